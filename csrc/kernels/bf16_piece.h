/* bf16_piece.h - of the products of BF16 numbers, what both loops that multiply know. */
#ifndef FASTGPT_BF16_PIECE_H
#define FASTGPT_BF16_PIECE_H

#include <stdint.h>

/* Of n_in, what is multiplied before the next tokens take their turn: so much of 32 rows and of 32 tokens stays in a
 * cache of 48 KB. */
enum { PIECE = 256 };

/* The weights of the next piece, fetched a few lines at a time while this one is multiplied. */
typedef struct fetching {
    const char *row;
    int64_t ld; /* bytes */
    int row_lines, line, n_lines;
    int per_step;
} fetching;

static inline void fetch_some(fetching *f) {
    enum { LINE = 64 };
    const int end = f->n_lines < f->per_step ? 0 : f->n_lines - f->per_step;
    for (; f->n_lines > end; f->n_lines--) {
        __builtin_prefetch(f->row + f->line * LINE, 0, 2);
        if (++f->line < f->row_lines) continue;
        f->line = 0;
        f->row += f->ld;
    }
}

#endif
