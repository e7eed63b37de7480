/* half.h - the two 16-bit float formats: to F32 is exact, from F32 rounds to nearest, ties to even. */
#ifndef FASTGPT_HALF_H
#define FASTGPT_HALF_H

#include <stdint.h>
#include <string.h>

static inline float f32_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t bits_of_f32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* bfloat16 is the upper half of a float. */
static inline float f32_of_bf16(uint16_t h) { return f32_of_bits((uint32_t)h << 16); }

/* IEEE 754 binary16: 1 sign, 5 exponent, 10 fraction bits.  Exact for every value.  Both cases are computed and one is
 * selected, so that loops over it vectorise, and no step has a denormal float, which the host may have flushed to
 * zero.  The exponent's bias is 15 there and 127 here. */
static inline float f32_of_f16(uint16_t h) {
    const uint32_t smallest = (127 - 14) << 23; /* 2^-14, the bits of the smallest normal half */
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t fields = (uint32_t)(h & 0x7FFF) << 13;
    uint32_t infinite = fields >= 0x7C00 << 13 ? 0x7F800000 : 0; /* infinity and NaN have the largest exponent */
    uint32_t normal = (fields + ((127 - 15) << 23)) | infinite;
    float subnormal = f32_of_bits(smallest + fields) - f32_of_bits(smallest); /* fraction * 2^-24 */
    float value = fields < 0x0400 << 13 ? subnormal : f32_of_bits(normal);
    return f32_of_bits(bits_of_f32(value) | sign);
}

/* Values from half way between the largest finite value and the next power of two on become infinity.  NaN stays NaN,
 * with the upper bits of its payload, and quiet. */
static inline uint16_t bf16_of_f32(float value) {
    uint32_t bits = bits_of_f32(value);
    uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16; /* a carry moves the exponent, as it should */
    uint32_t quiet = bits >> 16 | 0x0040;
    return (uint16_t)((bits & 0x7FFFFFFF) > 0x7F800000 ? quiet : rounded);
}

/* As bf16_of_f32 for infinity and NaN; magnitudes up to 2^-25 become zero.  All cases are computed and one is selected,
 * and no result depends on denormal floats, as in f32_of_f16. */
static inline uint16_t f16_of_f32(float value) {
    const uint32_t smallest = (127 - 14) << 23; /* 2^-14, the bits of the smallest normal half */
    uint32_t sign = bits_of_f32(value) >> 16 & 0x8000, bits = bits_of_f32(value) & 0x7FFFFFFF;
    uint32_t quiet = 0x7E00 | (bits >> 13 & 0x03FF);
    uint32_t normal = (bits - ((127 - 15) << 23) + 0x0FFF + (bits >> 13 & 1)) >> 13;
    uint32_t infinite = bits > 0x7F800000 ? quiet : 0x7C00;
    uint32_t above = bits < 143u << 23 ? normal : infinite; /* 2^16 */
    float with_half = f32_of_bits(bits) + 0.5f;             /* the last bit of values in [0.5, 1) is 2^-24 */
    uint32_t subnormal = bits_of_f32(with_half) - bits_of_f32(0.5f);
    return (uint16_t)(sign | (bits < smallest ? subnormal : above));
}

#endif
