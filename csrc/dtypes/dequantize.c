/* dequantize.c - see dequantize.h.  Compiled without fused multiply-adds, as quantize.c is: the package gguf has none.
 */
#include "dtypes/dequantize.h"

#include "dtypes/decode.h"
#include "dtypes/half.h"

/* ---- Types of kernels ---- */

static void widen_numbers(number_type type, float *out, const void *row, int n) {
    for (int i = 0; i < n; i++) out[i] = number(type, row, i);
}

static void widen_blocks(number_type type, float *out, const void *row, int n) {
    for (int part = 0; part < n / 16; part++) {
        int q[16];
        float d = integers(q, type, row, part);
        for (int i = 0; i < 16; i++) out[16 * part + i] = d * (float)q[i];
    }
}

/* ---- Types that only files have ---- */

static int nibble(const uint8_t *q, int i) { return i < 16 ? q[i] & 15 : q[i - 16] >> 4; }

/* 16 where bit i of the 32 is set. */
static int fifth_bit(const uint8_t *high, int i) { return (high[i / 8] >> i % 8 & 1) << 4; }

static void widen_q4_1(float *out, const block_q4_1 *b) {
    float d = f32_of_f16(b->d), m = f32_of_f16(b->m);
    for (int i = 0; i < 32; i++) out[i] = d * (float)nibble(b->q, i) + m;
}

static void widen_q5_0(float *out, const block_q5_0 *b) {
    float d = f32_of_f16(b->d);
    for (int i = 0; i < 32; i++) out[i] = d * (float)(nibble(b->q, i) + fifth_bit(b->high, i) - 16);
}

static void widen_q5_1(float *out, const block_q5_1 *b) {
    float d = f32_of_f16(b->d), m = f32_of_f16(b->m);
    for (int i = 0; i < 32; i++) out[i] = d * (float)(nibble(b->q, i) + fifth_bit(b->high, i)) + m;
}

/* Scale and minimum of group g of 8, out of 12 bytes. */
static void unpack(const uint8_t *packed, int g, int *scale, int *minimum) {
    *scale = g < 4 ? packed[g] & 63 : (packed[g + 4] & 15) | packed[g - 4] >> 6 << 4;
    *minimum = g < 4 ? packed[g + 4] & 63 : packed[g + 4] >> 4 | packed[g] >> 6 << 4;
}

/* high [32]: bit g is the fifth of the numbers of group g; NULL = they have four. */
static void widen_groups(float *out, uint16_t d, uint16_t d_min, const uint8_t *packed, const uint8_t *q,
                         const uint8_t *high) {
    for (int g = 0; g < 8; g++, out += 32) {
        int scale, minimum;
        unpack(packed, g, &scale, &minimum);
        float step = f32_of_f16(d) * (float)scale, below = f32_of_f16(d_min) * (float)minimum;
        for (int l = 0; l < 32; l++) {
            int number = (q[g / 2 * 32 + l] >> g % 2 * 4 & 15) | (high ? high[l] >> g & 1 : 0) << 4;
            out[l] = step * (float)number - below;
        }
    }
}

static void widen_block(number_type type, float *out, const void *block) {
    const block_q4_k *q4 = block;
    const block_q5_k *q5 = block;
    if (type == TYPE_Q4_1) widen_q4_1(out, block);
    else if (type == TYPE_Q5_0) widen_q5_0(out, block);
    else if (type == TYPE_Q5_1) widen_q5_1(out, block);
    else if (type == TYPE_Q4_K) widen_groups(out, q4->d, q4->d_min, q4->packed, q4->q, NULL);
    else widen_groups(out, q5->d, q5->d_min, q5->packed, q5->q, q5->high);
}

/* ---- Any type ---- */

void widen_row(number_type type, float *out, const void *row, int32_t n) {
    const number_format *format = &number_formats[type];
    const uint8_t *block = row;
    if (type <= TYPE_BF16) widen_numbers(type, out, row, n);
    else if (!is_recoded(type)) widen_blocks(type, out, row, n);
    else
        for (int32_t i = 0; i < n; i += format->block_numbers, block += format->block_bytes)
            widen_block(type, out + i, block);
}
