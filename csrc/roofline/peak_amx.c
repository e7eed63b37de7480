/* peak_amx.c - AMX tiles: 16 x 16 sums of 32 products of bf16 an instruction. */
#include "kernels/x86/tile_strides.h"

#include "roofline/peak.h"
#include "kernels/x86/tile_shapes.h"

enum { PRODUCTS = 4, VALUES = TILE_ROWS * 32, OPERATIONS = 2 * TILE_ROWS * VALUES };

/* Of either sign, between 1 / 128 and 2.  With zeros a CPU of the class of Sapphire Rapids runs faster than with any
 * weights. */
static void fill_values(uint16_t *values) {
    for (int i = 0; i < VALUES; i++) values[i] = (uint16_t)(0x3C00 + i * 37 % 1024 + (i % 3 == 0 ? 0x8000 : 0));
}

static float dot_bf16(int n_rounds) {
    float sums[TILE_ROWS * TILE_ROWS];
    uint16_t values[VALUES];
    fill_values(values);
    set_shapes();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, values, TILE_BYTES);
    _tile_loadd(5, values, TILE_BYTES);
    _tile_loadd(6, values, TILE_BYTES);
    _tile_loadd(7, values, TILE_BYTES);
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
