/* neon.inl.h - the functions that simd.inl.h needs, for AArch64 Advanced SIMD and, where the file is compiled for it,
 * with the dot product instructions. */
#ifndef FASTGPT_NEON_INL_H
#define FASTGPT_NEON_INL_H

#include <arm_neon.h>

#include "kernels/generic/vectors.inl.h"

static inline vec f16_to_f32(halves h) { return (vec)vcvt_f32_f16((float16x4_t)h); }

static inline vec bf16_to_f32(halves h) { return (vec)vshll_n_u16((uint16x4_t)h, 16); }

static inline vec splat_f16(const uint16_t *p) { return (vec)vcvt_f32_f16((float16x4_t)vdup_n_u16(*p)); }

static inline vec i8_to_f32(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    int16x8_t i16 = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
    return (vec)vcvtq_f32_s32(vmovl_s16(vget_low_s16(i16)));
}

static inline void split_nibbles(bytes *q, const uint8_t *p) {
    uint8x16_t pairs = vld1q_u8(p);
    q[0] = (bytes)vandq_u8(pairs, vdupq_n_u8(15));
    q[1] = (bytes)vshrq_n_u8(pairs, 4);
}

static inline ivec dot_bytes(ivec sum, bytes w, bytes x) {
    int8x16_t a = (int8x16_t)w, b = (int8x16_t)x;
#if defined(__ARM_FEATURE_DOTPROD)
    return (ivec)vdotq_s32((int32x4_t)sum, a, b);
#else
    int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_s8(vget_high_s8(a), vget_high_s8(b));
    return sum + (ivec)vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
#endif
}

static inline ivec dot_unsigned(ivec sum, bytes w, bytes x) { return dot_bytes(sum, w, x); }

/* ---- Tiles of I8 ---- */

#define TOKENS_PER_TILE 4
#define SUMS_ZERO_POINT false
#define SPLITS_PAIRS false

/* Unsigned bytes minus 128: their upper bit flips. */
static inline ivec dot_tile_bytes(ivec sum, bytes w, bytes x) { return dot_bytes(sum, w ^ -128, x); }

#endif
