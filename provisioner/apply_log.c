/* The log of a service, as its errors and probes want it. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/apply_private.h"

#define LOG_TAIL_BYTES 4096

uint64_t service_log_size(const struct apply_service *s)
{
	cleanup_free char *path = backend_log_path(s->apply->backend, s->name);
	struct stat st;
	return path && stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

char **apply_log_tail(const struct apply_service *s)
{
	cleanup_free char *path = s->apply->backend ? backend_log_path(s->apply->backend, s->name) : NULL;
	cleanup_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return NULL;
	char bytes[LOG_TAIL_BYTES + 1];
	off_t from = st.st_size > LOG_TAIL_BYTES ? st.st_size - LOG_TAIL_BYTES : 0;
	ssize_t n = pread(fd, bytes, LOG_TAIL_BYTES, from);
	if (n <= 0)
		return NULL;
	for (ssize_t i = 0; i < n; i++)
		if (((unsigned char)bytes[i] < ' ' && bytes[i] != '\n') ||
		    (unsigned char)bytes[i] >= 0x7f) /* JSON wants UTF-8; a cut may split one */
			bytes[i] = bytes[i] == '\t' ? ' ' : '?';
	bytes[n] = '\0';
	cleanup_free char *text = model_mask(s->apply->model, bytes);
	char **lines = NULL, *save = NULL;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		strv_push(&lines, xstrdup(line));
	size_t count = strv_len(lines);
	for (; count > APPLY_LOG_LINES; count--) {
		free(lines[0]);
		memmove(lines, lines + 1, count * sizeof *lines);
	}
	return lines;
}
