/* blocks.inl.h - products with rows of blocks.  Numbers of 32 weights and 32 activations are multiplied and summed as
 * integers, exactly; lane i takes bytes 4 i .. 4 i + 3 of each register.  The sums times their scales are added up in
 * F32 in rising order of k, and the lanes at last in halves. */
#ifndef FASTGPT_BLOCKS_INL_H
#define FASTGPT_BLOCKS_INL_H

#include "kernels/generic/vectors.inl.h"
#include "kernels/generic/dot.inl.h"
#include "kernels/kernels.h"
#include "dtypes/from_f32.h"

enum { GROUP = 32, PARTS = GROUP / (4 * WIDTH) }; /* weights that are handled together; registers that they fill */

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
        g.scale[p] = splat_f16(&block->d) * choose(lane_numbers + WIDTH * p < 4, splat(scales[0]), splat(scales[1]));
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
ALWAYS_INLINE bytes part_of(const char *x, int i, int p) {
    return load_bytes((const int8_t *)x + GROUP * i + 4 * WIDTH * p);
}

/* A tile as in dot_tile. */
ALWAYS_INLINE void block_tile(const dtype type, float *out, int64_t ldo, const char *x, int64_t ldx, const char *w,
                              int64_t ldw, int64_t apart, const int n_tokens, const int n_rows, int n_in,
                              const bool stream) {
    vec sum[MOST_ROWS][TOKENS] = {{{0}}};
    const int group_bytes = group_bytes_of(type);
    const char *next = w + n_rows * ldw + FETCH_BEYOND; /* fetched line by line */
    for (int i = 0; i < n_in / GROUP; i++) {
        ivec start[TOKENS][PARTS]; /* of a sum: what the zero point adds to it, taken back */
        for (int t = 0; t < n_tokens; t++)
            for (int p = 0; p < PARTS; p++)
                start[t][p] = -dot_unsigned((ivec){0}, zero_point(type) - (bytes){0}, part_of(x + t * ldx, i, p));
#pragma GCC unroll 8
        for (int r = 0; r < n_rows; r++) {
            const char *row = w + r * apart * ldw;
            if (!stream) __builtin_prefetch(next + (int64_t)(i * n_rows + r) * group_bytes, 0, FETCH_LEVEL);
            else if (STREAM_AHEAD) __builtin_prefetch(row + i * group_bytes + STREAM_AHEAD, 0, FETCH_LEVEL);
            group g = group_of(type, row, i);
#pragma GCC unroll 8
            for (int t = 0; t < n_tokens; t++) {
                float d = ((const float *)(const void *)(x + t * ldx + n_in))[i];
#pragma GCC unroll 2
                for (int p = 0; p < PARTS; p++) {
                    bytes xt = part_of(x + t * ldx, i, p);
                    ivec dot =
                        zero_point(type) ? dot_unsigned(start[t][p], g.q[p], xt) : dot_bytes((ivec){0}, g.q[p], xt);
                    sum[r][t] += __builtin_convertvector(dot, vec) * (g.scale[p] * d);
                }
            }
        }
    }
    for (int r = 0; r < n_rows; r++)
        for (int t = 0; t < n_tokens; t++) out[t * ldo + r * apart] += sum_lanes(sum[r][t]);
}

/* The product of one type; sizes are those of dot_rows_kernel, n_in a multiple of GROUP. */
ALWAYS_INLINE void dot_blocks(const dtype type, float *out, int64_t ldo, const char *x, int64_t ldx, const char *w,
                              int64_t ldw, int n_tokens, int n_rows, int n_in) {
#define TILE(t, tokens, r, rows, apart, stream)                                                                     \
    block_tile(type, out + (t) * ldo + (r), ldo, x + (t) * ldx, ldx, w + (r) * ldw, ldw, apart, tokens, rows, n_in, \
               stream)
    FOR_EACH_TILE(STREAMED(type, n_tokens), TILE);
#undef TILE
}

/* ---- Rows ---- */

/* Scales are those of lanes of four numbers, and in all types but Q6_K the same for all lanes. */
ALWAYS_INLINE void group_to_f32(const dtype type, float *out, group g) {
    int8_t q[GROUP];
    for (int p = 0; p < PARTS; p++) g.q[p] -= zero_point(type);
    memcpy(q, g.q, sizeof q);
#pragma GCC unroll 8
    for (int i = 0; i < GROUP; i += WIDTH) {
        vec scale = g.scale[i / (4 * WIDTH)];
        store(out + i, widen_bytes(q + i) * (type == TYPE_Q6_K ? splat(scale[i / 4 % WIDTH]) : scale));
    }
}

ALWAYS_INLINE void blocks_to_f32(const dtype type, float *out, const char *row, int n) {
    for (int i = 0; i < n / GROUP; i++) group_to_f32(type, out + GROUP * i, group_of(type, row, i));
}

/* The kernels of one type. */
#define BLOCK_KERNELS(NAME, name, block, block_values)                                                      \
    static void dot_##name(float *out, int64_t ldo, const void *x, int64_t ldx, const void *w, int64_t ldw, \
                           int n_tokens, int n_rows, int n_in) {                                            \
        dot_blocks(TYPE_##NAME, out, ldo, x, ldx, w, ldw, n_tokens, n_rows, n_in);                          \
    }                                                                                                       \
    static void to_f32_##name(float *out, const void *row, int n) { blocks_to_f32(TYPE_##NAME, out, row, n); }

BLOCK_DTYPES(BLOCK_KERNELS)

/* Signed bytes become unsigned by 128 more, which is a flip of their upper bit. */
ALWAYS_INLINE void byte_row(const dtype type, void *out, const char *row, int n) {
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

static void byte_row_q8_0(void *out, const void *row, int n) { byte_row(TYPE_Q8_0, out, row, n); }
static void byte_row_q4_0(void *out, const void *row, int n) { byte_row(TYPE_Q4_0, out, row, n); }

/* ---- Activations ---- */

typedef int8_t int8_vec __attribute__((vector_size(WIDTH)));

/* Adding 1.5 * 2^23 in one rounding (a fused multiply-add) rounds the product to an integer. */
static inline void quantize_group(int8_t *q, float *d, const float *x) {
    const float magic = 12582912.0f;
    ivec largest = {0}; /* as bits of |x|: their order is that of the numbers, and NaN above all */
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
        int8_vec in_range = __builtin_convertvector(rounded, int8_vec);
        memcpy(q + i, &in_range, sizeof in_range);
    }
}

static void quantize_row(void *out, const float *x, int n) {
    int8_t *q = out;
    float *d = (float *)(void *)(q + n);
    for (int i = 0; i < n; i += GROUP) quantize_group(q + i, d + i / GROUP, x + i);
}

#endif
