/* decode.h - weights of the types that kernels compute with, one by one: the plainest code, for portable kernels and
 * for dequantize.c. */
#ifndef FASTGPT_DECODE_H
#define FASTGPT_DECODE_H

#include "dtypes/dtype.h"
#include "dtypes/half.h"

/* ---- Floats: value k of a row ---- */

static inline float value_f32(const void *row, int k) { return ((const float *)row)[k]; }
static inline float value_f16(const void *row, int k) { return f32_of_f16(((const uint16_t *)row)[k]); }
static inline float value_bf16(const void *row, int k) { return f32_of_bf16(((const uint16_t *)row)[k]); }

static inline float float_value(dtype type, const void *row, int k) {
#define VALUE(NAME, name, block, block_values) \
    if (type == TYPE_##NAME) return value_##name(row, k);
    FLOAT_DTYPES(VALUE)
#undef VALUE
    __builtin_unreachable();
}

/* ---- Blocks: the integers of 16 weights; returns their scale ---- */

enum { SUBBLOCK = 16 };

/* i counts the sixteens of a row in all three. */
static inline float integers_q8_0(int *q, const void *row, int i) {
    const block_q8_0 *block = (const block_q8_0 *)row + i / 2;
    for (int j = 0; j < SUBBLOCK; j++) q[j] = block->q[SUBBLOCK * (i % 2) + j];
    return f32_of_f16(block->d);
}

static inline float integers_q4_0(int *q, const void *row, int i) {
    const block_q4_0 *block = (const block_q4_0 *)row + i / 2;
    for (int j = 0; j < SUBBLOCK; j++) q[j] = (block->q[j] >> 4 * (i % 2) & 15) - 8;
    return f32_of_f16(block->d);
}

static inline float integers_q6_k(int *q, const void *row, int i) {
    const block_q6_k *block = (const block_q6_k *)row + i / 16;
    int half = i % 16 / 8, quarter = i % 8 / 2, at = i % 2 * SUBBLOCK;
    for (int j = 0; j < SUBBLOCK; j++) {
        int low = block->low[64 * half + 32 * (quarter % 2) + at + j] >> quarter / 2 * 4 & 15;
        q[j] = low + 16 * (block->high[32 * half + at + j] >> 2 * quarter & 3) - 32;
    }
    return f32_of_f16(block->d) * block->scales[i % 16];
}

static inline float integers(int *q, dtype type, const void *row, int i) {
#define INTEGERS(NAME, name, block, block_values) \
    if (type == TYPE_##NAME) return integers_##name(q, row, i);
    BLOCK_DTYPES(INTEGERS)
#undef INTEGERS
    __builtin_unreachable();
}

#endif
