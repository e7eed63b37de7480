/* peak_amx.c - AMX tiles: 16 x 16 sums of 32 products of bf16 an instruction. */
#include <immintrin.h>

#include "peak.h"
#include "tile_shapes.h"

enum { PRODUCTS = 4, OPERATIONS = 2 * TILE_ROWS * TILE_ROWS * 32 };

static float dot_bf16(int n_rounds) {
    float sums[TILE_ROWS * TILE_ROWS];
    set_shapes();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (int round = 0; round < n_rounds; round++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, TILE_BYTES);
    _tile_release();
    return sums[0];
}

const peak peak_amx = {.family = "amx", .bf16 = {dot_bf16, PRODUCTS * OPERATIONS, 0}};
