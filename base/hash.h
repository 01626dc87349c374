/* A 64-bit non-cryptographic hash (FNV-1a, RFC draft-eastlake-fnv) for names and fingerprints of our own making;
 * nothing that an adversary may choose is ever trusted by it. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_INIT UINT64_C(0xcbf29ce484222325)

uint64_t hash_bytes(uint64_t seed, const void *data, size_t len);
uint64_t hash_str(uint64_t seed, const char *s); /* the terminating NUL counts, so that "ab","c" differs from "a","bc" */

#endif
