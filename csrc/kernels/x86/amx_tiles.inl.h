/* amx_tiles.inl.h - the loop of bf16.inl.h in AMX tiles (Intel SDM 2A, TDPBF16PS).  A tile register holds 16 rows of 64
 * bytes; an instruction multiplies 16 tokens of 32 values by 16 rows of weights as pairs.  Tiles 0 and 1 are the tokens
 * of the first panel with rows 0 .. 15 and 16 .. 31, 2 and 3 those of the second. */
#ifndef FASTGPT_AMX_TILES_INL_H
#define FASTGPT_AMX_TILES_INL_H

#include "common/always_inline.h"
#include "kernels/kernels.h"
#include "kernels/x86/overlap.h"
#include "kernels/x86/tile_shapes.h"

_Static_assert((int)TILE_ROWS == (int)MATRIX_LANES && TILE_BYTES == MATRIX_K * sizeof(uint16_t), "tiles are full");

static inline void begin_products(void) { set_shapes(); }
static inline void end_products(void) { _tile_release(); }

ALWAYS_INLINE void zero_sums(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

ALWAYS_INLINE void load_sums(const float *sums, const bool two_panels) {
    _tile_loadd(0, sums, TILE_BYTES);
    _tile_loadd(1, sums + TILE_SUMS, TILE_BYTES);
    if (two_panels) _tile_loadd(2, sums + 2 * TILE_SUMS, TILE_BYTES);
    if (two_panels) _tile_loadd(3, sums + 3 * TILE_SUMS, TILE_BYTES);
}

ALWAYS_INLINE void store_sums(float *sums, const bool two_panels) {
    _tile_stored(0, sums, TILE_BYTES);
    _tile_stored(1, sums + TILE_SUMS, TILE_BYTES);
    if (two_panels) _tile_stored(2, sums + 2 * TILE_SUMS, TILE_BYTES);
    if (two_panels) _tile_stored(3, sums + 3 * TILE_SUMS, TILE_BYTES);
}

/* Each weight is read once for these tokens, which shall stay in L1: hence the streaming loads. */
ALWAYS_INLINE void multiply_tiles(bf16_view x, const uint16_t *w, int n, overlapped_work *work, const bool two_panels) {
    const uint16_t *first_x = x.at, *second_x = x.at + x.ld;
    for (int k = 0; k < n; k += MATRIX_K, first_x += TILE_VALUES, second_x += TILE_VALUES, w += 2 * TILE_VALUES) {
        _tile_stream_loadd(4, w, TILE_BYTES);
        _tile_loadd(6, first_x, TILE_BYTES);
        _tile_dpbf16ps(0, 6, 4);
        _tile_stream_loadd(5, w + TILE_VALUES, TILE_BYTES);
        _tile_dpbf16ps(1, 6, 5);
        if (two_panels) _tile_loadd(7, second_x, TILE_BYTES);
        if (two_panels) _tile_dpbf16ps(2, 7, 4);
        overlap_step(work);
        if (two_panels) _tile_dpbf16ps(3, 7, 5);
    }
}

static void multiply_block(float *sums, bf16_view x, const uint16_t *w, int n_tokens, int n, bool begins,
                           overlapped_work *work) {
    const bool two_panels = n_tokens > MATRIX_LANES;
    if (begins) zero_sums();
    else load_sums(sums, two_panels);
    if (two_panels) multiply_tiles(x, w, n, work, true);
    else multiply_tiles(x, w, n, work, false);
    store_sums(sums, two_panels);
}

#endif
