/* blocks.inl.h - products with rows of blocks.  32 weights and 32 activations are multiplied and summed as
 * integers, exactly; lane i has bytes 4 i .. 4 i + 3 of each register.  The sums times their scales are added up in
 * F32 in rising order of k, and the lanes at last in halves. */
#ifndef FASTGPT_BLOCKS_INL_H
#define FASTGPT_BLOCKS_INL_H

#include "kernels/generic/vectors.inl.h"
#include "kernels/generic/dot.inl.h"
#include "kernels/kernels.h"
#include "dtypes/from_f32.h"

enum { GROUP = 32, PARTS = GROUP / (4 * WIDTH) }; /* weights of a group; registers that they fill */

/* 32 weights of a row: integers, and the scale of each lane. */
typedef struct group {
    bytes q[PARTS];
    vec scale[PARTS];
} group;

ALWAYS_INLINE group group_q8_0(const char *row, int i) {
    const block_q8_0 *block = (const block_q8_0 *)(const void *)row + i;
    group g;
    for (int p = 0; p < PARTS; p++) {
        g.q[p] = load_bytes(block->q + 4 * WIDTH * p);
        g.scale[p] = splat_f16(&block->d);
    }
    return g;
}

ALWAYS_INLINE group group_q4_0(const char *row, int i) {
    const block_q4_0 *block = (const block_q4_0 *)(const void *)row + i;
    group g;
    split_nibbles(g.q, block->q);
    for (int p = 0; p < PARTS; p++) g.scale[p] = splat_f16(&block->d);
    return g;
}

/* Bits [first, first + the ones of mask) of each byte. */
static inline bytes bits_of(bytes v, int first, int8_t mask) { return (bytes)((shorts)v >> first) & mask; }

ALWAYS_INLINE group group_q6_k(const char *row, int i) {
    const block_q6_k *block = (const block_q6_k *)(const void *)row + i / 8;
    int half = i % 8 / 4, j = i % 4;
    const int8_t *low = (const int8_t *)block->low + 64 * half + 32 * (j % 2);
    const int8_t *high = (const int8_t *)block->high + 32 * half;
    const int8_t *scales = block->scales + 8 * half + 2 * j; /* of 16 weights, which fill four lanes */
    group g;
    for (int p = 0; p < PARTS; p++) {
        int at = 4 * WIDTH * p;
        g.q[p] = bits_of(load_bytes(low + at), j / 2 * 4, 15) | (bits_of(load_bytes(high + at), 2 * j, 3) << 4);
        g.scale[p] = splat_f16(&block->d) * choose(lane_indices + WIDTH * p < 4, splat(scales[0]), splat(scales[1]));
    }
    return g;
}

ALWAYS_INLINE group group_of(const dtype type, const char *row, int i) {
#define GROUP_OF(NAME, name, block, block_values) \
    if (type == TYPE_##NAME) return group_##name(row, i);
    BLOCK_DTYPES(GROUP_OF)
#undef GROUP_OF
    __builtin_unreachable();
}

/* Bytes of a group, rounded up where they are not whole. */
ALWAYS_INLINE int group_bytes_of(const dtype type) {
#define GROUP_BYTES(NAME, name, block, block_values) \
    if (type == TYPE_##NAME) return (int)((sizeof(block) * GROUP + block_values - 1) / block_values);
    BLOCK_DTYPES(GROUP_BYTES)
#undef GROUP_BYTES
    __builtin_unreachable();
}

/* Register p of group i of a row of activations. */
ALWAYS_INLINE bytes load_part(const char *x, int i, int p) {
    return load_bytes((const int8_t *)x + GROUP * i + 4 * WIDTH * p);
}

/* Where the sums of integers of a group begin: what the zero point contributes to them, negated. */
typedef ivec group_starts[TOKENS][PARTS];

ALWAYS_INLINE void start_sums(group_starts start, const dtype type, row_view x, int i, const int n_tokens) {
    for (int t = 0; t < n_tokens; t++)
        for (int p = 0; p < PARTS; p++)
            start[t][p] =
                -dot_unsigned((ivec){0}, zero_point(type) - (bytes){0}, load_part((const char *)x.at + t * x.ld, i, p));
}

/* A tile as in dot_tile. */
ALWAYS_INLINE void block_tile(const dtype type, out_view out, row_view x, row_view w, const tile c, int n_in) {
    tile_sums sum = {{{0}}};
    const char *const x_rows = x.at, *const w_rows = w.at;
    const int group_bytes = group_bytes_of(type);
    const char *next = w_rows + c.n_rows * w.ld + PREFETCH_BEYOND; /* prefetched line by line */
    for (int i = 0; i < n_in / GROUP; i++) {
        group_starts start;
        start_sums(start, type, x, i, c.n_tokens);
#pragma GCC unroll 8
        for (int r = 0; r < c.n_rows; r++) {
            const char *row = w_rows + r * c.apart * w.ld;
            if (!c.stream) __builtin_prefetch(next + (int64_t)(i * c.n_rows + r) * group_bytes, 0, PREFETCH_LEVEL);
            else if (STREAM_AHEAD) __builtin_prefetch(row + i * group_bytes + STREAM_AHEAD, 0, PREFETCH_LEVEL);
            group g = group_of(type, row, i);
#pragma GCC unroll 8
            for (int t = 0; t < c.n_tokens; t++) {
                float d = ((const float *)(const void *)(x_rows + t * x.ld + n_in))[i];
#pragma GCC unroll 2
                for (int p = 0; p < PARTS; p++) {
                    bytes xt = load_part(x_rows + t * x.ld, i, p);
                    ivec dot =
                        zero_point(type) ? dot_unsigned(start[t][p], g.q[p], xt) : dot_bytes((ivec){0}, g.q[p], xt);
                    sum[r][t] += __builtin_convertvector(dot, vec) * (g.scale[p] * d);
                }
            }
        }
    }
    add_tile(out, sum, c);
}

/* The product of one type; n_in is a multiple of GROUP. */
ALWAYS_INLINE void dot_blocks(const dtype type, out_view out, row_view x, row_view w, gemm_size size) {
    const int n_tokens = size.n_tokens, n_rows = size.n_rows, n_in = size.n_in;
#define TILE(t, r, c) block_tile(type, out_from(out, t, r), rows_from(x, t), rows_from(w, r), c, n_in)
    FOR_EACH_TILE(STREAMED(type, n_tokens), TILE);
#undef TILE
}

/* ---- Rows ---- */

/* A scale belongs to the four values of a lane; in all types but Q6_K, all lanes have the same. */
ALWAYS_INLINE void group_to_f32(const dtype type, float *out, group g) {
    int8_t q[GROUP];
    for (int p = 0; p < PARTS; p++) g.q[p] -= zero_point(type);
    memcpy(q, g.q, sizeof q);
#pragma GCC unroll 8
    for (int i = 0; i < GROUP; i += WIDTH) {
        vec scale = g.scale[i / (4 * WIDTH)];
        store(out + i, i8_to_f32(q + i) * (type == TYPE_Q6_K ? splat(scale[i / 4 % WIDTH]) : scale));
    }
}

ALWAYS_INLINE void blocks_to_f32(const dtype type, float *out, const char *row, int n) {
    for (int i = 0; i < n / GROUP; i++) group_to_f32(type, out + GROUP * i, group_of(type, row, i));
}

/* The kernels of one type. */
#define BLOCK_KERNELS(NAME, name, block, block_values)                             \
    static void dot_##name(out_view out, row_view x, row_view w, gemm_size size) { \
        dot_blocks(TYPE_##NAME, out, x, w, size);                                  \
    }                                                                              \
    static void to_f32_##name(float *out, const void *row, int n) { blocks_to_f32(TYPE_##NAME, out, row, n); }

BLOCK_DTYPES(BLOCK_KERNELS)

/* Signed bytes become unsigned by adding 128, which flips their upper bit. */
ALWAYS_INLINE void unpack_u8(const dtype type, void *out, const char *row, int n) {
    uint8_t *q = out;
    float *d = (float *)(void *)(q + n);
    for (int i = 0; i < n / GROUP; i++) {
        group g = group_of(type, row, i);
        if (type == TYPE_Q8_0)
            for (int p = 0; p < PARTS; p++) g.q[p] ^= -128;
        memcpy(q + GROUP * i, g.q, GROUP);
        d[i] = g.scale[0][0];
    }
}

static void unpack_u8_q8_0(void *out, const void *row, int n) { unpack_u8(TYPE_Q8_0, out, row, n); }
static void unpack_u8_q4_0(void *out, const void *row, int n) { unpack_u8(TYPE_Q4_0, out, row, n); }

/* ---- Activations ---- */

/* Adding 1.5 * 2^23 in one rounding (a fused multiply-add) rounds the product to an integer. */
static inline void quantize_group(int8_t *q, float *d, const float *x) {
    const float magic = 12582912.0f;
    ivec largest = {0}; /* as bits of |x|: their order is that of the values, and NaN is above all */
    for (int i = 0; i < GROUP; i += WIDTH) {
        ivec magnitude = (ivec)load(x + i) & 0x7FFFFFFF;
        ivec above = magnitude > largest;
        largest = (magnitude & above) | (largest & ~above);
    }
    float max = 0;
    int32_t max_bits = largest[0];
    for (int lane = 1; lane < WIDTH; lane++) max_bits = largest[lane] > max_bits ? largest[lane] : max_bits;
    memcpy(&max, &max_bits, sizeof max);
    *d = max < 1e-30f ? 0 : max / 127;
    float inverse = max < 1e-30f ? 0 : 127 / max;
    for (int i = 0; i < GROUP; i += WIDTH) {
        ivec rounded = (ivec)(load(x + i) * inverse + magic) - 0x4B400000; /* the bits of magic */
        store_i8(q + i, rounded);
    }
}

static void quantize_row(void *out, const float *x, int n) {
    int8_t *q = out;
    float *d = (float *)(void *)(q + n);
    for (int i = 0; i < n; i += GROUP) quantize_group(q + i, d + i / GROUP, x + i);
}

#endif
