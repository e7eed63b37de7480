/* hash.h - 64 bits that tell bytes apart by chance, not from an enemy: whoever wants to, finds two texts of one hash.
 */
#ifndef FASTGPT_HASH_H
#define FASTGPT_HASH_H

#include <stddef.h>
#include <stdint.h>

/* The same on every little-endian machine and in every version: files hold it. */
uint64_t hash_bytes(const void *data, size_t n);

#endif
