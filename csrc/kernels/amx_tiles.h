/* amx_tiles.h - the loop of bf16.h in AMX tiles (Intel SDM 2A, TDPBF16PS).  A tile register holds 16 rows of 64 bytes;
 * a product takes 16 rows of 32 weights, and 16 tokens by 32 numbers in pairs.  Tiles 0 and 1 are rows 0 .. 15 with the
 * tokens of the first and second panel, 2 and 3 rows 16 .. 31. */
#include "always_inline.h"
#include "bf16_piece.h"
#include "kernels.h"
#include "tile_shapes.h"

enum { LD_SUMS = MATRIX_TOKENS * sizeof(float), LD_ROWS = PIECE * sizeof(uint16_t) };

static inline void begin_products(void) { set_shapes(); }
static inline void end_products(void) { _tile_release(); }

ALWAYS_INLINE void zero_sums(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

ALWAYS_INLINE void load_sums(const float *sums, const bool two_panels) {
    const float *lower = sums + TILE_ROWS * MATRIX_TOKENS;
    _tile_loadd(0, sums, LD_SUMS);
    if (two_panels) _tile_loadd(1, sums + MATRIX_LANES, LD_SUMS);
    _tile_loadd(2, lower, LD_SUMS);
    if (two_panels) _tile_loadd(3, lower + MATRIX_LANES, LD_SUMS);
}

ALWAYS_INLINE void store_sums(float *sums, const bool two_panels) {
    float *lower = sums + TILE_ROWS * MATRIX_TOKENS;
    _tile_stored(0, sums, LD_SUMS);
    if (two_panels) _tile_stored(1, sums + MATRIX_LANES, LD_SUMS);
    _tile_stored(2, lower, LD_SUMS);
    if (two_panels) _tile_stored(3, lower + MATRIX_LANES, LD_SUMS);
}

ALWAYS_INLINE void multiply_tiles(const uint16_t *x, const uint16_t *second_x, const uint16_t *w, int n, fetching *next,
                                  const bool two_panels) {
    for (int k = 0; k < n; k += MATRIX_K) {
        _tile_loadd(4, w + k, LD_ROWS);
        _tile_loadd(6, x + k * MATRIX_LANES, TILE_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        if (two_panels) _tile_loadd(7, second_x + k * MATRIX_LANES, TILE_BYTES);
        if (two_panels) _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, w + TILE_ROWS * PIECE + k, LD_ROWS);
        _tile_dpbf16ps(2, 5, 6);
        fetch_some(next);
        if (two_panels) _tile_dpbf16ps(3, 5, 7);
    }
}

static void add_piece(float *sums, const uint16_t *x, const uint16_t *second_x, const uint16_t *w, int n_tokens,
                      int n_rows, int n, bool begins, fetching *next) {
    const bool two_panels = n_tokens > MATRIX_LANES;
    (void)n_rows; /* whole tiles, whatever is in the others */
    if (begins) zero_sums();
    else load_sums(sums, two_panels);
    if (two_panels) multiply_tiles(x, second_x, w, n, next, true);
    else multiply_tiles(x, second_x, w, n, next, false);
    store_sums(sums, two_panels);
}
