/* emulated_tiles.h - the AMX tile instructions that amx_tiles.inl.h uses, in plain C (Intel SDM 2A: LDTILECFG,
 * TILELOADD, TDPBF16PS, TILESTORED ...), so that its logic is tested on machines without them.  Include it before
 * amx_tiles.inl.h. */
#ifndef FASTGPT_EMULATED_TILES_H
#define FASTGPT_EMULATED_TILES_H

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dtypes/half.h"

typedef struct emulated_tile {
    uint8_t rows[16][64];
} emulated_tile;

static emulated_tile tiles[8];
static bool tiles_configured;

static inline void emulate_loadconfig(const void *config) {
    const uint8_t *bytes = config;
    if (bytes[0] != 1 || bytes[1] != 0) abort();
    for (int i = 0; i < 8; i++)
        if (bytes[16 + 2 * i] != 64 || bytes[17 + 2 * i] != 0 || bytes[48 + i] != 16) abort();
    tiles_configured = true;
}

static inline emulated_tile *tile(int i) {
    if (!tiles_configured) abort();
    return &tiles[i];
}

static inline void emulate_load(int i, const void *base, int64_t stride) {
    for (int r = 0; r < 16; r++) memcpy(tile(i)->rows[r], (const uint8_t *)base + r * stride, 64);
}

static inline void emulate_store(int i, void *base, int64_t stride) {
    for (int r = 0; r < 16; r++) memcpy((uint8_t *)base + r * stride, tile(i)->rows[r], 64);
}

static inline void emulate_dpbf16ps(int c, int a, int b) {
    for (int m = 0; m < 16; m++)
        for (int k = 0; k < 16; k++)
            for (int n = 0; n < 16; n++) {
                float sum;
                uint16_t left[2], right[2];
                memcpy(&sum, tile(c)->rows[m] + 4 * n, sizeof sum);
                memcpy(left, tile(a)->rows[m] + 4 * k, sizeof left);
                memcpy(right, tile(b)->rows[k] + 4 * n, sizeof right);
                sum += f32_of_bf16(left[0]) * f32_of_bf16(right[0]);
                sum += f32_of_bf16(left[1]) * f32_of_bf16(right[1]);
                memcpy(tile(c)->rows[m] + 4 * n, &sum, sizeof sum);
            }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(config) emulate_loadconfig(config)
#define _tile_release() (tiles_configured = false)
#define _tile_zero(i) memset(tile(i), 0, sizeof(emulated_tile))
#define _tile_loadd(i, base, stride) emulate_load(i, base, stride)
#define _tile_stream_loadd(i, base, stride) emulate_load(i, base, stride)
#define _tile_stored(i, base, stride) emulate_store(i, base, stride)
#define _tile_dpbf16ps(c, a, b) emulate_dpbf16ps(c, a, b)

#endif
