/* half.h - the two 16-bit float formats. */
#ifndef FASTGPT_HALF_H
#define FASTGPT_HALF_H

#include <stdint.h>
#include <string.h>

static inline float f32_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* bfloat16 is the upper half of a float. */
static inline float f32_of_bf16(uint16_t h) { return f32_of_bits((uint32_t)h << 16); }

/* IEEE 754 binary16: 1 sign, 5 exponent, 10 fraction bits.  Exact for every value. */
static inline float f32_of_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t magnitude = h & 0x7FFF;
    if (magnitude >= 0x7C00) return f32_of_bits(sign | 0x7F800000 | (magnitude & 0x3FF) << 13); /* infinity, NaN */
    if (magnitude >= 0x0400) return f32_of_bits(sign | ((magnitude << 13) + ((127 - 15) << 23)));
    float subnormal = (float)magnitude * 0x1p-24f;
    return sign ? -subnormal : subnormal;
}

#endif
