#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

static const char *const names[] = {"error", "warning", "info", "debug"};

static _Atomic int current = -1;

static int level_now(void)
{
	int level = atomic_load(&current);
	if (level >= 0)
		return level;
	level = LOG_LEVEL_INFO;
	const char *wanted = getenv("AETHER_LOG");
	for (int i = 0; wanted && i <= LOG_LEVEL_DEBUG; i++)
		if (!strcmp(wanted, names[i]))
			level = i;
	atomic_store(&current, level);
	return level;
}

void log_set_level(enum log_level level)
{
	atomic_store(&current, (int)level);
}

void log_line(enum log_level level, const char *area, const char *fmt, ...)
{
	if ((int)level > level_now())
		return;
	/* One write per line, so that lines of several threads and processes never mix; longer ones are cut. */
	char line[2048], when[32];
	format_time(when, now_wall_ms());
	int n = snprintf(line, sizeof line, "%s %s %s: ", when, names[level], area);
	va_list ap;
	va_start(ap, fmt);
	int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
	va_end(ap);
	if (m < 0)
		return;
	size_t len = (size_t)n + (size_t)m;
	if (len > sizeof line - 2)
		len = sizeof line - 2;
	line[len++] = '\n';
	write_all(STDERR_FILENO, line, len);
}
