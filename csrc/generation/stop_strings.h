/* stop_strings.h - the first of several strings in a text that comes piece by piece. */
#ifndef FASTGPT_STOP_STRINGS_H
#define FASTGPT_STOP_STRINGS_H

#include <stdbool.h>

#include "common/string_list.h"
#include "common/text_buffer.h"
#include "fastgpt.h"

/* The text that has come and was not taken yet.  Of it the first n_ready bytes can be shown; what follows may be the
 * beginning of a stop string, or, once found, is one. */
typedef struct stop_finder {
    string_list stops;
    text_buffer held;
    size_t n_ready;
    bool found;
} stop_finder;

/* Copies stops [n], each NUL-terminated.  OK, MEMORY, or ARGUMENT for one that is NULL, empty, or begins inside a
 * character. */
fastgpt_status stop_finder_create(stop_finder *f, const char *const *stops, int32_t n, fastgpt_error *error);
void stop_finder_free(stop_finder *f);

/* Takes what was ready, and adds a piece.  OK or MEMORY. */
fastgpt_status stop_finder_push(stop_finder *f, const char *piece, size_t n_bytes);

/* No more comes: all that is left is ready, unless a stop string was found. */
void stop_finder_finish(stop_finder *f);

/* Ready for another text. */
void stop_finder_reset(stop_finder *f);

#endif
