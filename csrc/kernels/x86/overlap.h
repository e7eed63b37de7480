/* overlap.h - work that overlaps the multiplication of tiles, a little at each step, since tiles leave most of a core
 * idle: the tokens that come next are prefetched, and finished sums are stored.  A file that includes this has
 *
 *     void store_rows(const pending_store *p, int first, int n)
 *         stores the sums of tokens [first, first + n). */
#ifndef FASTGPT_OVERLAP_H
#define FASTGPT_OVERLAP_H

#include "common/arithmetic.h"
#include "kernels/kernels.h"

/* BF16 values of a tile, and sums of a tile; a block is two by two tiles: sums [2 panels][2][16 tokens][16 rows]. */
enum { TILE_VALUES = MATRIX_LANES * MATRIX_K, TILE_SUMS = MATRIX_LANES * MATRIX_LANES, BLOCK_SUMS = 4 * TILE_SUMS };

/* Sums of a block that are still to be stored: of n_tokens tokens from t on and n_rows rows from r on. */
typedef struct pending_store {
    const bf16_output *to;
    const float *sums;
    int t, r, n_tokens, n_rows;
    int n_stored, per_step; /* tokens */
} pending_store;

/* Cache lines of the panels of the next tokens that are still to be prefetched. */
typedef struct panel_prefetch {
    const char *panel;
    int64_t ld; /* bytes */
    int panel_lines, line, n_lines, per_step;
} panel_prefetch;

typedef struct overlapped_work {
    panel_prefetch tokens;
    pending_store block;
} overlapped_work;

static void store_rows(const pending_store *p, int first, int n);

static inline void store_some(pending_store *p, int n) {
    n = min_int(n, p->n_tokens - p->n_stored);
    if (n <= 0) return;
    store_rows(p, p->n_stored, n);
    p->n_stored += n;
}

static inline void prefetch_some(panel_prefetch *p) {
    enum { LINE = 64 };
    const int end = p->n_lines < p->per_step ? 0 : p->n_lines - p->per_step;
    for (; p->n_lines > end; p->n_lines--) {
        __builtin_prefetch(p->panel + p->line * LINE, 0, 2);
        if (++p->line < p->panel_lines) continue;
        p->line = 0;
        p->panel += p->ld;
    }
}

static inline void overlap_step(overlapped_work *work) {
    prefetch_some(&work->tokens);
    store_some(&work->block, work->block.per_step);
}

#endif
