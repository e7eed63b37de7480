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

/* IEEE 754 binary16: 1 sign, 5 exponent, 10 fraction bits.  Exact for every value.  Both cases are computed and one is
 * taken, so that loops over it become vector code, and no step has a denormal float, which the host may have flushed
 * to zero.  The exponent's bias is 15 there and 127 here. */
static inline float f32_of_f16(uint16_t h) {
    const uint32_t smallest = (127 - 14) << 23; /* 2^-14, the bits of the smallest normal half */
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t fields = (uint32_t)(h & 0x7FFF) << 13;
    uint32_t infinite = fields >= 0x7C00 << 13 ? 0x7F800000 : 0; /* infinity and NaN have the largest exponent */
    uint32_t normal = (fields + ((127 - 15) << 23)) | infinite;
    float subnormal = f32_of_bits(smallest + fields) - f32_of_bits(smallest); /* fraction * 2^-24 */
    float value = fields < 0x0400 << 13 ? subnormal : f32_of_bits(normal);
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return f32_of_bits(bits | sign);
}

#endif
