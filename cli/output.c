#include "cli/output.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/strv.h"
#include "cli/exit_codes.h"

#define TABLE_GAP 2        /* spaces between columns */
#define TABLE_COLUMN_MIN 8 /* what is narrower tells nothing */
#define TABLE_PADDED_MAX 60 /* what is longer stands out of its column, where there is no terminal to be cut for */

static bool json_mode, document_written;

void output_set_json(bool json)
{
	json_mode = json;
}

bool output_is_json(void)
{
	return json_mode;
}

void output_document(json_t *document)
{
	if (json_mode) {
		if (document_written)
			abort();
		document_written = true;
		json_dumpf(document, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(document);
}

void output_line(const char *fmt, ...)
{
	va_list ap;
	if (json_mode)
		return;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

void output_note(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

void output_error(const struct error *err)
{
	if (json_mode && !document_written) {
		output_document(json_pack("{s:o}", "error", error_to_json(err)));
		return;
	}
	fprintf(stderr, "Error: %s\n", err->message ? err->message : error_code_name(err->code));
	if (err->hint)
		fprintf(stderr, "Hint: %s\n", err->hint);
}

/* Columns on a terminal: one for each character of UTF-8. */
static int width(const char *s)
{
	int n = 0;
	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

char *output_cell(const char *text, int columns)
{
	char *copy = xstrdup(text), *end = copy;
	for (char *p = copy; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	if (columns < 0 || width(copy) <= columns)
		return copy;
	for (int n = 0; n < columns - 1; n++)
		for (end++; ((unsigned char)*end & 0xc0) == 0x80; end++)
			;
	char *shorter = xasprintf("%.*s\xe2\x80\xa6", (int)(end - copy), copy);
	free(copy);
	return shorter;
}

/* 0: no terminal */
static int terminal_columns(void)
{
	struct winsize size;
	return isatty(STDOUT_FILENO) && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) ? size.ws_col : 0;
}

/* Takes from the widest column until a row fits. */
static void narrow(int *widths, unsigned columns, int total)
{
	for (;;) {
		int sum = (int)(columns - 1) * TABLE_GAP;
		unsigned widest = 0;
		for (unsigned i = 0; i < columns; i++) {
			sum += widths[i];
			if (widths[i] > widths[widest])
				widest = i;
		}
		if (sum <= total || widths[widest] <= TABLE_COLUMN_MIN)
			return;
		widths[widest]--;
	}
}

void output_table(const char *const *cells, unsigned columns, unsigned rows)
{
	cleanup_free int *widths = xcalloc(columns, sizeof *widths);
	cleanup_strv char **lines = NULL;
	int total = terminal_columns();
	if (json_mode)
		return;
	for (unsigned i = 0; i < columns * rows; i++) {
		strv_push(&lines, output_cell(cells[i], -1));
		int w = width(lines[i]);
		if (w > widths[i % columns] && (total || w <= TABLE_PADDED_MAX))
			widths[i % columns] = w;
	}
	if (total)
		narrow(widths, columns, total);
	for (unsigned i = 0; i < columns * rows; i++) {
		bool last = i % columns == columns - 1;
		cleanup_free char *cell = output_cell(lines[i], total ? widths[i % columns] : -1);
		int short_of = widths[i % columns] - width(cell);
		fputs(cell, stdout);
		printf("%*s", last ? 0 : (short_of > 0 ? short_of : 0) + TABLE_GAP, "");
		if (last)
			putchar('\n');
	}
}

int output_flush(void)
{
	if (fflush(stdout) || ferror(stdout))
		return errno ? -errno : -EIO;
	return 0;
}

int output_exit_code(const struct error *err)
{
	switch (err->code) {
	case ERROR_USAGE:
		return EXIT_CODE_USAGE;
	case ERROR_NOT_A_REPOSITORY:
	case ERROR_NOT_MOUNTED:
	case ERROR_WORKSPACE_NOT_FOUND:
	case ERROR_CONFIG_NOT_FOUND:
	case ERROR_SERVICE_UNKNOWN:
	case ERROR_TRASH_NOT_FOUND:
		return EXIT_CODE_NOT_FOUND;
	case ERROR_NOT_READY:
		return EXIT_CODE_NOT_READY;
	case ERROR_CANCELED:
		return EXIT_CODE_INTERRUPTED;
	default:
		return EXIT_CODE_FAILED;
	}
}
