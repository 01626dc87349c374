/* Base64: RFC 4648. */
#ifndef BASE_BASE64_H
#define BASE_BASE64_H

#include "base/buffer.h"

char *base64_url(const char *text); /* new: in the alphabet for URLs, padded */
/* Appends what the text (of the plain alphabet) stands for, up to where it ends or is none. */
void base64_decode(const char *text, struct buffer *out);

#endif
