#include "cli/screen.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "cli/output.h"

void screen_size(unsigned *rows, unsigned *columns)
{
	struct winsize size = {0};
	bool known = !ioctl(STDERR_FILENO, TIOCGWINSZ, &size);
	*rows = known && size.ws_row > 1 ? size.ws_row - 1 : known && size.ws_row ? 1 : 23;
	*columns = known && size.ws_col > 1 ? size.ws_col - 1 : 79;
}

/* To the beginning of the first line. */
static void add_return(const struct screen *s, struct buffer *out)
{
	buffer_adds(out, "\r");
	if (s->drawn > 1)
		buffer_printf(out, "\033[%uA", s->drawn - 1);
}

void screen_draw(struct screen *s, char *const *lines)
{
	cleanup_buffer struct buffer out = BUFFER_INIT;
	unsigned rows, columns, n = 0;
	screen_size(&rows, &columns);
	add_return(s, &out);
	for (; lines[n] && n < rows; n++) {
		cleanup_free char *line = output_cell(lines[n], (int)columns);
		buffer_printf(&out, "%s%s\033[K", n ? "\n" : "", line);
	}
	buffer_adds(&out, "\033[J");
	s->drawn = n;
	write_all(STDERR_FILENO, out.data, out.len); /* at once: nothing flickers */
}

void screen_clear(struct screen *s)
{
	cleanup_buffer struct buffer out = BUFFER_INIT;
	if (!s->drawn)
		return;
	add_return(s, &out);
	buffer_adds(&out, "\033[J");
	s->drawn = 0;
	write_all(STDERR_FILENO, out.data, out.len);
}
