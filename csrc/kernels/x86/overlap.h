/* overlap.h - what is done a little at a time while tiles are multiplied, since that leaves most of a core idle: the
 * tokens that come next are fetched, and finished sums are put where they belong.  A file that includes this has
 *
 *     void put_rows(const finished *f, int first, int n)
 *         puts sums of tokens [first, first + n). */
#ifndef FASTGPT_OVERLAP_H
#define FASTGPT_OVERLAP_H

#include "common/arithmetic.h"
#include "kernels/kernels.h"

/* What a tile has of BF16 numbers, and of sums; a block is two by two of these: sums [2 panels][2][16 tokens][16 rows].
 */
enum { TILE_NUMBERS = MATRIX_LANES * MATRIX_K, TILE_SUMS = MATRIX_LANES * MATRIX_LANES, BLOCK_SUMS = 4 * TILE_SUMS };

/* Sums of a block: n_tokens from t on, and n_rows from r on; those of `put` tokens are where they belong. */
typedef struct finished {
    const bf16_output *to;
    const float *sums;
    int t, r, n_tokens, n_rows;
    int put, per_step; /* of which per_step come next */
} finished;

/* Lines that are left of the panels of the next tokens, so many of which come next. */
typedef struct fetching {
    const char *panel;
    int64_t ld; /* bytes */
    int panel_lines, line, n_lines, per_step;
} fetching;

typedef struct meanwhile {
    fetching tokens;
    finished block;
} meanwhile;

static void put_rows(const finished *f, int first, int n);

static inline void put_some(finished *f, int n) {
    n = min_int(n, f->n_tokens - f->put);
    if (n <= 0) return;
    put_rows(f, f->put, n);
    f->put += n;
}

static inline void fetch_some(fetching *f) {
    enum { LINE = 64 };
    const int end = f->n_lines < f->per_step ? 0 : f->n_lines - f->per_step;
    for (; f->n_lines > end; f->n_lines--) {
        __builtin_prefetch(f->panel + f->line * LINE, 0, 2);
        if (++f->line < f->panel_lines) continue;
        f->line = 0;
        f->panel += f->ld;
    }
}

static inline void do_some(meanwhile *m) {
    fetch_some(&m->tokens);
    put_some(&m->block, m->block.per_step);
}

#endif
