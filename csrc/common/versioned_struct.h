/* versioned_struct.h - structs of callers that may have been compiled against an older, shorter definition. */
#ifndef FASTGPT_VERSIONED_STRUCT_H
#define FASTGPT_VERSIONED_STRUCT_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Bytes of a struct up to the end of the last field that its first release had. */
#define FIRST_SIZE(type, last_field) (offsetof(type, last_field) + sizeof(((type *)0)->last_field))

/* Copies a struct that begins with its struct_size into out, which has `size` bytes; fields that the caller's version
 * lacks become zero.  Returns false for a struct_size that no known version had: less than `first_size`, or more than
 * `size`, as in a newer version, whose options this library cannot honour. */
static inline bool options_read(void *out, size_t size, const void *given, size_t first_size) {
    size_t given_size;
    memcpy(&given_size, given, sizeof given_size);
    if (given_size < first_size || given_size > size) return false;
    memset(out, 0, size);
    memcpy(out, given, given_size);
    return true;
}

#endif
