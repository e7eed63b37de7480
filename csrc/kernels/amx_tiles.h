/* amx_tiles.h - the matrix kernel in AMX tiles (Intel SDM 2A, TDPBF16PS).  A tile register holds 16 rows of 64 bytes; a
 * product takes 16 rows of 32 weights as they lie in memory, and 16 tokens by 32 numbers in pairs. */
#include "matrix.h"
#include "tile_shapes.h"

/* c [32][32] = w x^T, as two by two tiles: 0 and 1 are rows 0 .. 15 with the tokens of the first and second panel, 2
 * and 3 rows 16 .. 31. */
static void product_32_by_32(float *c, const uint16_t *x, const uint16_t *w, int64_t ldw, int n_in) {
    const uint16_t *second_x = x + (int64_t)n_in * MATRIX_LANES;
    const char *second_w = (const char *)w + TILE_ROWS * ldw;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int k = 0; k < n_in; k += MATRIX_K) {
        _tile_loadd(4, w + k, ldw);
        _tile_loadd(6, x + (int64_t)k * MATRIX_LANES, TILE_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, second_x + (int64_t)k * MATRIX_LANES, TILE_BYTES);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, (const uint16_t *)(const void *)second_w + k, ldw);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    const int ldc = MATRIX_TOKENS * (int)sizeof *c;
    _tile_stored(0, c, ldc);
    _tile_stored(1, c + MATRIX_LANES, ldc);
    _tile_stored(2, c + TILE_ROWS * MATRIX_TOKENS, ldc);
    _tile_stored(3, c + TILE_ROWS * MATRIX_TOKENS + MATRIX_LANES, ldc);
}

static void matrix(float *out, int64_t ldo, const uint16_t *x, const uint16_t *w, int64_t ldw, int n_tokens, int n_rows,
                   int n_in) {
    float c[MATRIX_ROWS * MATRIX_TOKENS];
    set_shapes();
    product_32_by_32(c, x, w, ldw, n_in);
    _tile_release();
    add_transposed(out, ldo, c, n_tokens, n_rows);
}
