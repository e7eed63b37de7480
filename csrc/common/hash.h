/* hash.h - a fast non-cryptographic 64-bit hash; collisions can be forged. */
#ifndef FASTGPT_HASH_H
#define FASTGPT_HASH_H

#include <stddef.h>
#include <stdint.h>

/* The same on every little-endian machine and in every version, since files contain it. */
uint64_t hash_bytes(const void *data, size_t n);

#endif
