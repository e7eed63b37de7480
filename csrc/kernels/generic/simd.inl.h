/* simd.inl.h - the kernels of kernels.h in the vectors of vectors.inl.h.  An instruction set's file defines
 *
 *     WIDTH   floats in a register
 *     ROWS    weight rows of a tile of dot_rows
 *     TOKENS  token rows of that tile: ROWS * TOKENS accumulators, which must fit the registers
 *
 * includes vectors.inl.h, defines the functions that portable vector code expresses badly or not at all,
 *
 *     vec f16_to_f32(halves h)            IEEE half precision to F32
 *     vec bf16_to_f32(halves h)           bfloat16, which is the upper half of F32
 *     vec splat_f16(const uint16_t *p)    one half precision value, in every lane
 *     vec i8_to_f32(const int8_t *p)      WIDTH integers as F32
 *     void split_nibbles(bytes *q, const uint8_t *p)    the lower halves of 16 bytes, then the upper halves: 32 values
 *     ivec dot_bytes(ivec sum, bytes w, bytes x)    lane i: sum[i] + bytes 4 i .. 4 i + 3 of w times those of x, where
 *                                         -128 <= w <= 127 and -127 <= x <= 127
 *     ivec dot_unsigned(ivec sum, bytes w, bytes x)    the same for 0 <= w <= 127
 *     what i8.inl.h lists
 *
 * and includes this.  It may define how memory is read best:
 *
 *     PREFETCH_LEVEL, PREFETCH_BEYOND  the cache into which the rows of the next tile are prefetched, 3 for L1 and 2
 * for L2, and how many bytes further STREAMED(type, n_tokens)  whether the rows of a tile of n_tokens <= TOKENS are not
 * neighbours, but the heads of streams, each of which is a run of contiguous rows STREAMS                   how many
 * streams for one token; for several tokens there are ROWS STREAM_AHEAD              bytes that are prefetched ahead in
 * a stream; 0: only what the CPU prefetches by itself
 *
 * A file that defines MATH gets the functions of math.inl.h from elsewhere, under the names that MATH makes. */
#ifndef FASTGPT_SIMD_INL_H
#define FASTGPT_SIMD_INL_H

#include "kernels/kernels.h"

#include "kernels/generic/dot.inl.h"
#include "kernels/generic/blocks.inl.h"
#include "kernels/generic/heads.inl.h"
#include "kernels/generic/i8.inl.h"

#ifndef MATH
#include "kernels/generic/math.inl.h"
#define MATH(function) function
#endif

#define MATH_ENTRY(NAME, name) [NAME] = MATH(name),

/* The table of one instruction set; its kernels for matrices may be NULL. */
#define KERNELS(its_name, its_family, its_bf16, its_gemm_q8, its_floats)           \
    {                                                                              \
        .name = its_name,                                                          \
        .family = its_family,                                                      \
        .dot_rows = {KERNEL_DTYPES(DOT_ROWS_ENTRY)},                               \
        .to_f32 = {KERNEL_DTYPES(TO_F32_ENTRY)},                                   \
        .weighted_sum = {FLOAT_DTYPES(WEIGHTED_SUM_ENTRY)},                        \
        .from_f32 = {KV_DTYPES(FROM_F32_ENTRY)},                                   \
        .score_heads = {KV_DTYPES(SCORE_HEADS_ENTRY)},                             \
        .sum_heads = {KV_DTYPES(SUM_HEADS_ENTRY)},                                 \
        .bf16 = its_bf16,                                                          \
        .gemm_q8 = its_gemm_q8,                                                    \
        .floats = its_floats,                                                      \
        .unpack_u8 = {[TYPE_Q8_0] = unpack_u8_q8_0, [TYPE_Q4_0] = unpack_u8_q4_0}, \
        .quantize_row = quantize_row,                                              \
        .quantize_token = quantize_token,                                          \
        .gemm_i8 = gemm_i8,                                                        \
        .exponentials = MATH(exponentials),                                        \
        .softmax = MATH(softmax),                                                  \
        .activation = {ACTIVATIONS(MATH_ENTRY)},                                   \
        .layer_norm = MATH(layer_norm),                                            \
    }

#endif
