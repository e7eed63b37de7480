/* versioned_struct.h - structs of the caller, which may have been compiled against an older header and so be shorter.
 */
#ifndef FASTGPT_VERSIONED_STRUCT_H
#define FASTGPT_VERSIONED_STRUCT_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Bytes of a struct up to the end of the last field that its first release had. */
#define FIRST_SIZE(type, last_field) (offsetof(type, last_field) + sizeof(((type *)0)->last_field))

/* Copies a struct that begins with its struct_size into out, a struct of `size` bytes; fields that the caller does not
 * know of become zero.  Returns false when there is no such struct: it is shorter than `first_size`, or longer than
 * ours, and then may ask for what this library does not know. */
static inline bool options_read(void *out, size_t size, const void *given, size_t first_size) {
    size_t given_size;
    memcpy(&given_size, given, sizeof given_size);
    if (given_size < first_size || given_size > size) return false;
    memset(out, 0, size);
    memcpy(out, given, given_size);
    return true;
}

#endif
