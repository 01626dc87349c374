#include "base/base64.h"

#include <string.h>

char *base64_url(const char *text)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	struct buffer out = BUFFER_INIT;
	size_t len = strlen(text);
	for (size_t i = 0; i < len; i += 3) {
		unsigned rest = (unsigned)(len - i), bits = (unsigned)(unsigned char)text[i] << 16;
		bits |= rest > 1 ? (unsigned)(unsigned char)text[i + 1] << 8 : 0;
		bits |= rest > 2 ? (unsigned char)text[i + 2] : 0;
		for (unsigned k = 0; k < 4; k++)
			buffer_addc(&out, k <= rest ? alphabet[bits >> (18 - 6 * k) & 63] : '=');
	}
	return buffer_detach(&out);
}

void base64_decode(const char *text, struct buffer *out)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	unsigned bits = 0, have = 0;
	for (const char *at; *text && *text != '=' && (at = strchr(alphabet, *text)); text++) {
		bits = bits << 6 | (unsigned)(at - alphabet);
		have += 6;
		if (have >= 8) {
			have -= 8;
			buffer_addc(out, (char)(bits >> have & 255));
		}
	}
}
