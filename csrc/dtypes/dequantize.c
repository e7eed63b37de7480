/* dequantize.c - see dequantize.h.  Compiled without fused multiply-adds, as quantize.c is: the package gguf has none.
 */
#include "dtypes/dequantize.h"

#include "dtypes/decode.h"
#include "dtypes/half.h"

/* ---- Types of kernels ---- */

static void dequantize_floats(dtype type, float *out, const void *row, int n) {
    for (int i = 0; i < n; i++) out[i] = float_value(type, row, i);
}

static void dequantize_blocks(dtype type, float *out, const void *row, int n) {
    for (int i = 0; i < n / SUBBLOCK; i++) {
        int q[SUBBLOCK];
        float d = integers(q, type, row, i);
        for (int j = 0; j < SUBBLOCK; j++) out[SUBBLOCK * i + j] = d * (float)q[j];
    }
}

/* ---- Types that only files have ---- */

static int nibble(const uint8_t *q, int i) { return i < 16 ? q[i] & 15 : q[i - 16] >> 4; }

/* 16 where bit i of the 32 is set. */
static int fifth_bit(const uint8_t *high, int i) { return (high[i / 8] >> i % 8 & 1) << 4; }

static void dequantize_q4_1(float *out, const block_q4_1 *b) {
    float d = f32_of_f16(b->d), m = f32_of_f16(b->m);
    for (int i = 0; i < 32; i++) out[i] = d * (float)nibble(b->q, i) + m;
}

static void dequantize_q5_0(float *out, const block_q5_0 *b) {
    float d = f32_of_f16(b->d);
    for (int i = 0; i < 32; i++) out[i] = d * (float)(nibble(b->q, i) + fifth_bit(b->high, i) - 16);
}

static void dequantize_q5_1(float *out, const block_q5_1 *b) {
    float d = f32_of_f16(b->d), m = f32_of_f16(b->m);
    for (int i = 0; i < 32; i++) out[i] = d * (float)(nibble(b->q, i) + fifth_bit(b->high, i)) + m;
}

/* Scale and minimum of group g of 8, out of 12 bytes. */
static void unpack(const uint8_t *packed, int g, int *scale, int *minimum) {
    *scale = g < 4 ? packed[g] & 63 : (packed[g + 4] & 15) | packed[g - 4] >> 6 << 4;
    *minimum = g < 4 ? packed[g + 4] & 63 : packed[g + 4] >> 4 | packed[g] >> 6 << 4;
}

/* high [32]: bit g is the fifth of the values of group g; NULL = they have four. */
static void dequantize_groups(float *out, uint16_t d, uint16_t d_min, const uint8_t *packed, const uint8_t *q,
                              const uint8_t *high) {
    for (int g = 0; g < 8; g++, out += 32) {
        int scale, minimum;
        unpack(packed, g, &scale, &minimum);
        float step = f32_of_f16(d) * (float)scale, below = f32_of_f16(d_min) * (float)minimum;
        for (int l = 0; l < 32; l++) {
            int value = (q[g / 2 * 32 + l] >> g % 2 * 4 & 15) | (high ? high[l] >> g & 1 : 0) << 4;
            out[l] = step * (float)value - below;
        }
    }
}

static void dequantize_q4_k(float *out, const block_q4_k *b) {
    dequantize_groups(out, b->d, b->d_min, b->packed, b->q, NULL);
}

static void dequantize_q5_k(float *out, const block_q5_k *b) {
    dequantize_groups(out, b->d, b->d_min, b->packed, b->q, b->high);
}

static void dequantize_file_block(dtype type, float *out, const void *block) {
#define DEQUANTIZE(NAME, name, block_type, block_values) \
    if (type == TYPE_##NAME) dequantize_##name(out, (const block_type *)block);
    FILE_DTYPES(DEQUANTIZE)
}

/* ---- Any type ---- */

void dequantize_row(dtype type, float *out, const void *row, int32_t n) {
    const dtype_info *info = &dtype_infos[type];
    const uint8_t *block = row;
    if (is_float(type)) dequantize_floats(type, out, row, n);
    else if (!is_file_only(type)) dequantize_blocks(type, out, row, n);
    else
        for (int32_t i = 0; i < n; i += info->block_values, block += info->block_bytes)
            dequantize_file_block(type, out + i, block);
}
