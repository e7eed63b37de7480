/* simd_blocks.h - products with rows of blocks.  Numbers of 32 weights and 32 activations are multiplied and summed as
 * integers, exactly; lane i takes bytes 4 i .. 4 i + 3 of each register.  The sums times their scales are added up in
 * F32 in rising order of k, and the lanes at last in halves. */
#include "rows.h"

enum { GROUP = 32, PARTS = GROUP / (4 * WIDTH) }; /* weights that are handled together; registers that they fill */

/* 32 weights of a row: integers, and the scale of each lane. */
typedef struct group {
    bytes q[PARTS];
    vec scale[PARTS];
} group;

typedef uint8_t bytes16 __attribute__((vector_size(16)));
typedef uint16_t pairs16 __attribute__((vector_size(16)));

static inline bytes16 load_16(const uint8_t *p) {
    bytes16 v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Bits [first, first + the ones of mask) of each byte. */
static inline bytes16 bits_of(bytes16 v, int first, uint8_t mask) { return (bytes16)((pairs16)v >> first) & mask; }

/* 16 + 16 bytes, less `zero`. */
ALWAYS_INLINE void put_32(group *g, bytes16 first, bytes16 second, int8_t zero) {
    memcpy(g->q, &first, sizeof first);
    memcpy((char *)g->q + sizeof first, &second, sizeof second);
    for (int p = 0; p < PARTS; p++) g->q[p] -= zero;
}

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
    bytes16 pairs = load_16(block->q);
    put_32(&g, pairs & 15, bits_of(pairs, 4, 15), 8);
    for (int p = 0; p < PARTS; p++) g.scale[p] = splat_f16(&block->d);
    return g;
}

ALWAYS_INLINE group group_q6_k(const char *row, int i) {
    const block_q6_k *block = (const block_q6_k *)(const void *)row + i / 8;
    int half = i % 8 / 4, j = i % 4;
    const uint8_t *low = block->low + 64 * half + 32 * (j % 2), *high = block->high + 32 * half;
    const int8_t *scales = block->scales + 8 * half + 2 * j;
    group g;
    bytes16 first = bits_of(load_16(low), j / 2 * 4, 15) + bits_of(load_16(high), 2 * j, 3) * 16;
    bytes16 second = bits_of(load_16(low + 16), j / 2 * 4, 15) + bits_of(load_16(high + 16), 2 * j, 3) * 16;
    put_32(&g, first, second, 32);
    float each[8];
    for (int lane = 0; lane < 8; lane++) each[lane] = scales[lane / 4];
    for (int p = 0; p < PARTS; p++) g.scale[p] = splat_f16(&block->d) * load(each + WIDTH * p);
    return g;
}

ALWAYS_INLINE group group_of(const number_type type, const char *row, int i) {
    return type == TYPE_Q8_0 ? group_q8_0(row, i) : type == TYPE_Q4_0 ? group_q4_0(row, i) : group_q6_k(row, i);
}

/* A tile as in dot_tile. */
ALWAYS_INLINE void block_tile(const number_type type, float *out, int64_t ldo, const char *x, int64_t ldx,
                              const char *w, int64_t ldw, const int n_tokens, const int n_rows, int n_in) {
    vec sum[ROWS][TOKENS] = {{{0}}};
    const int group_bytes = type == TYPE_Q8_0 ? 34 : type == TYPE_Q4_0 ? 18 : 27; /* of Q6_K about */
    const char *next = w + n_rows * ldw;
    for (int i = 0; i < n_in / GROUP; i++) {
        prefetch(next + (int64_t)n_rows * group_bytes * i, n_rows * group_bytes);
#pragma GCC unroll 8
        for (int r = 0; r < n_rows; r++) {
            group g = group_of(type, w + r * ldw, i);
#pragma GCC unroll 8
            for (int t = 0; t < n_tokens; t++) {
                const char *xt = x + t * ldx;
                float d = ((const float *)(const void *)(xt + n_in))[i];
#pragma GCC unroll 2
                for (int p = 0; p < PARTS; p++) {
                    ivec dot = dot_bytes((ivec){0}, g.q[p], load_bytes((const int8_t *)xt + GROUP * i + 4 * WIDTH * p));
                    sum[r][t] += __builtin_convertvector(dot, vec) * (g.scale[p] * d);
                }
            }
        }
    }
    for (int r = 0; r < n_rows; r++)
        for (int t = 0; t < n_tokens; t++) out[t * ldo + r] += sum_lanes(sum[r][t]);
}

/* The product of one type; sizes are those of dot_rows_kernel, n_in a multiple of GROUP. */
#define BLOCK_KERNEL(suffix, type)                                                                         \
    static void dot_##suffix(float *out, int64_t ldo, const void *x_rows, int64_t ldx, const void *w_rows, \
                             int64_t ldw, int n_tokens, int n_rows, int n_in) {                            \
        const char *x = x_rows, *w = w_rows;                                                               \
        FOR_EACH_TILE(BLOCK_TILE_##suffix);                                                                \
    }
#define BLOCK_TILE(type, tokens, rows) \
    block_tile(type, out + t * ldo + r, ldo, x + t * ldx, ldx, w + r * ldw, ldw, tokens, rows, n_in)
#define BLOCK_TILE_q8_0(tokens, rows) BLOCK_TILE(TYPE_Q8_0, tokens, rows)
#define BLOCK_TILE_q4_0(tokens, rows) BLOCK_TILE(TYPE_Q4_0, tokens, rows)
#define BLOCK_TILE_q6_k(tokens, rows) BLOCK_TILE(TYPE_Q6_K, tokens, rows)

BLOCK_KERNEL(q8_0, TYPE_Q8_0)
BLOCK_KERNEL(q4_0, TYPE_Q4_0)
BLOCK_KERNEL(q6_k, TYPE_Q6_K)

/* ---- Activations ---- */

typedef int8_t narrow_bytes __attribute__((vector_size(WIDTH)));

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
        narrow_bytes in_range = __builtin_convertvector(rounded, narrow_bytes);
        memcpy(q + i, &in_range, sizeof in_range);
    }
}

static void quantize_row(void *out, const float *x, int n) {
    int8_t *q = out;
    float *d = (float *)(void *)(q + n);
    for (int i = 0; i < n; i += GROUP) quantize_group(q + i, d + i / GROUP, x + i);
}
