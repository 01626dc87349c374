#include "base/buffer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

static void reserve(struct buffer *b, size_t extra)
{
	if (extra > BUFFER_MAX || b->len + extra + 1 > BUFFER_MAX)
		abort();
	size_t need = b->len + extra + 1;
	if (need <= b->cap)
		return;
	size_t cap = b->cap ? b->cap : 64;
	while (cap < need)
		cap *= 2;
	b->data = xrealloc(b->data, cap);
	b->cap = cap;
}

void buffer_add(struct buffer *b, const void *data, size_t len)
{
	reserve(b, len);
	if (len)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	b->data[b->len] = '\0';
}

void buffer_adds(struct buffer *b, const char *s)
{
	buffer_add(b, s, strlen(s));
}

void buffer_addc(struct buffer *b, char c)
{
	buffer_add(b, &c, 1);
}

void buffer_vprintf(struct buffer *b, const char *fmt, va_list ap)
{
	va_list again;
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, again);
	va_end(again);
	if (n < 0)
		abort();
	reserve(b, (size_t)n);
	vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
	b->len += (size_t)n;
}

void buffer_printf(struct buffer *b, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	buffer_vprintf(b, fmt, ap);
	va_end(ap);
}

void buffer_clear(struct buffer *b)
{
	b->len = 0;
	if (b->data)
		b->data[0] = '\0';
}

char *buffer_detach(struct buffer *b)
{
	char *s = b->data ? b->data : xstrdup("");
	*b = (struct buffer)BUFFER_INIT;
	return s;
}

const char *buffer_str(const struct buffer *b)
{
	return b->data ? b->data : "";
}

void buffer_release(struct buffer *b)
{
	free(b->data);
	*b = (struct buffer)BUFFER_INIT;
}
