/* Diagnostics of the long-running processes, one line each: "2026-01-31T12:00:00.123Z level area: text".
 * They go to standard error, which the keeper points at the environment's log file. Thread-safe. Secrets never
 * belong here: log names, not values. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Default INFO; AETHER_LOG=error|warning|info|debug in the environment overrides it at the first use. */
void log_set_level(enum log_level level);
void log_line(enum log_level level, const char *area, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define log_error(area, ...) log_line(LOG_LEVEL_ERROR, area, __VA_ARGS__)
#define log_warning(area, ...) log_line(LOG_LEVEL_WARNING, area, __VA_ARGS__)
#define log_info(area, ...) log_line(LOG_LEVEL_INFO, area, __VA_ARGS__)
#define log_debug(area, ...) log_line(LOG_LEVEL_DEBUG, area, __VA_ARGS__)

#endif
