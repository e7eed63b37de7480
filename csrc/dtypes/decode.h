/* decode.h - weights of the types that kernels compute with, as numbers: the plainest code, for portable kernels and
 * for dequantize.c. */
#ifndef FASTGPT_DECODE_H
#define FASTGPT_DECODE_H

#include "dtypes/dtype.h"
#include "dtypes/half.h"

/* Number k of a row of F32, F16 or BF16. */
static inline float number(number_type type, const void *row, int k) {
    if (type == TYPE_F32) return ((const float *)row)[k];
    uint16_t h = ((const uint16_t *)row)[k];
    return type == TYPE_F16 ? f32_of_f16(h) : f32_of_bf16(h);
}

/* The integers of 16 weights and their scale; `part` counts sixteens of a row. */
static inline float integers(int *q, number_type type, const void *row, int part) {
    if (type == TYPE_Q8_0) {
        const block_q8_0 *block = (const block_q8_0 *)row + part / 2;
        for (int i = 0; i < 16; i++) q[i] = block->q[16 * (part % 2) + i];
        return f32_of_f16(block->d);
    }
    if (type == TYPE_Q4_0) {
        const block_q4_0 *block = (const block_q4_0 *)row + part / 2;
        for (int i = 0; i < 16; i++) q[i] = (block->q[i] >> 4 * (part % 2) & 15) - 8;
        return f32_of_f16(block->d);
    }
    const block_q6_k *block = (const block_q6_k *)row + part / 16;
    int half = part % 16 / 8, j = part % 8 / 2, at = part % 2 * 16;
    for (int i = 0; i < 16; i++) {
        int low = block->low[64 * half + 32 * (j % 2) + at + i] >> j / 2 * 4 & 15;
        q[i] = low + 16 * (block->high[32 * half + at + i] >> 2 * j & 3) - 32;
    }
    return f32_of_f16(block->d) * block->scales[part % 16];
}

#endif
