/* SHA-256 (FIPS 180-4): the fingerprint of what an adversary may choose. For anything else there is base/hash.h. */
#ifndef BASE_SHA256_H
#define BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_HEX 65 /* with the NUL */

struct sha256 {
	uint32_t state[8];
	uint64_t bytes;
	unsigned char block[64];
};

void sha256_begin(struct sha256 *s);
void sha256_add(struct sha256 *s, const void *data, size_t len);
/* The terminating NUL counts, so that "ab","c" differs from "a","bc". */
void sha256_add_str(struct sha256 *s, const char *text);
void sha256_end(struct sha256 *s, char hex[SHA256_HEX]);

#endif
