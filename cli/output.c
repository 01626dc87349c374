#include "cli/output.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "cli/exit_codes.h"

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

void output_table(const char *const *cells, unsigned columns, unsigned rows)
{
	cleanup_free int *widths = xcalloc(columns, sizeof *widths);
	for (unsigned i = 0; i < columns * rows; i++)
		if (width(cells[i]) > widths[i % columns])
			widths[i % columns] = width(cells[i]);
	for (unsigned i = 0; !json_mode && i < columns * rows; i++) {
		bool last = i % columns == columns - 1;
		fputs(cells[i], stdout);
		printf("%*s", last ? 0 : widths[i % columns] - width(cells[i]) + 2, "");
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
