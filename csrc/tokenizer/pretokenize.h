/* pretokenize.h - cuts text into the pieces that are merged each on its own. */
#ifndef FASTGPT_PRETOKENIZE_H
#define FASTGPT_PRETOKENIZE_H

#include <stddef.h>
#include <stdint.h>

/* Length of the first piece of text [n], n >= 1; in [1, n].  Looks at the piece and one character more.
 * A byte that is not UTF-8 is a character that is neither letter nor number nor space. */
size_t piece_length(const uint8_t *text, size_t n);

#endif
