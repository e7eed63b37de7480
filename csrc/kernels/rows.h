/* rows.h - rows of weights as F32 and back: plain loops that every file of kernels compiles for its instruction set. */
#include <string.h>

#include "half.h"
#include "kernels.h"

static void widen_row_f32(float *out, const void *row, int n) { memcpy(out, row, (size_t)n * sizeof(float)); }

static void widen_row_f16(float *out, const void *row, int n) {
    const uint16_t *h = row;
    for (int i = 0; i < n; i++) out[i] = f32_of_f16(h[i]);
}

static void widen_row_bf16(float *out, const void *row, int n) {
    const uint16_t *h = row;
    for (int i = 0; i < n; i++) out[i] = f32_of_bf16(h[i]);
}

static void widen_row_q8_0(float *out, const void *row, int n) {
    const block_q8_0 *block = row;
    for (; n > 0; n -= 32, out += 32, block++) {
        float d = f32_of_f16(block->d);
        for (int i = 0; i < 32; i++) out[i] = d * block->q[i];
    }
}

static void widen_row_q4_0(float *out, const void *row, int n) {
    const block_q4_0 *block = row;
    for (; n > 0; n -= 32, out += 32, block++) {
        float d = f32_of_f16(block->d);
        for (int i = 0; i < 16; i++) out[i] = d * (block->q[i] % 16 - 8);
        for (int i = 0; i < 16; i++) out[i + 16] = d * (block->q[i] / 16 - 8);
    }
}

static void widen_row_q6_k(float *out, const void *row, int n) {
    const block_q6_k *block = row;
    for (; n > 0; n -= 256, block++) {
        for (int g = 0; g < 8; g++, out += 32) {
            int half = g / 4, j = g % 4;
            for (int l = 0; l < 32; l++) {
                int low = block->low[64 * half + 32 * (j % 2) + l] >> j / 2 * 4 & 15;
                int high = block->high[32 * half + l] >> 2 * j & 3;
                out[l] = f32_of_f16(block->d) * block->scales[8 * half + 2 * j + l / 16] * (low + 16 * high - 32);
            }
        }
    }
}

static void narrow_row_f32(void *out, const float *x, int n) { memcpy(out, x, (size_t)n * sizeof(float)); }

static void narrow_row_f16(void *out, const float *x, int n) {
    uint16_t *h = out;
    for (int i = 0; i < n; i++) h[i] = f16_of_f32(x[i]);
}

static void narrow_row_bf16(void *out, const float *x, int n) {
    uint16_t *h = out;
    for (int i = 0; i < n; i++) h[i] = bf16_of_f32(x[i]);
}
