/* kernels.h - the inner loops.  portable.c is the specification; generic/ has the same written once for vectors of any
 * width, and each instruction set compiles them in a file of its own.
 *
 * Reductions over k run in a fixed order that depends on the instruction set alone: never on the number of rows, tokens
 * or threads. */
#ifndef FASTGPT_KERNELS_H
#define FASTGPT_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "dtypes/dtype.h"

/* ---- Views of matrices in memory; ld, the stride, is the distance from a row to the next ---- */

/* Rows of any dtype; ld in bytes. */
typedef struct row_view {
    const void *at;
    int64_t ld;
} row_view;

/* Rows or panels of floats; ld in floats. */
typedef struct f32_view {
    const float *at;
    int64_t ld;
} f32_view;

/* Packed panels or tiles of BF16 values; ld in values, from a panel to the next, or from the tiles of MATRIX_ROWS rows
 * to the next. */
typedef struct bf16_view {
    const uint16_t *at;
    int64_t ld;
} bf16_view;

/* Outputs [n_tokens][n_rows]; ld in floats. */
typedef struct out_view {
    float *at;
    int64_t ld;
} out_view;

/* The size of a product of x [n_tokens][n_in] and w [n_rows][n_in], transposed. */
typedef struct gemm_size {
    int n_tokens, n_rows, n_in;
} gemm_size;

/* ---- Row-wise dot products, and conversions of rows ---- */

/* out[t][r] += x[t] . w[r]
 *   x  rows of floats for weights of F32, F16 and BF16, rows of `quantize_row` for blocks
 * out overlaps neither x nor w. */
typedef void dot_rows_kernel(out_view out, row_view x, row_view w, gemm_size size);

/* out += sum over i of p[i] * v[i], in rising order of i
 *   p [n_rows]   v [n_rows][n], rows ldv bytes apart   out [n] */
typedef void weighted_sum_kernel(float *out, const float *p, const void *v, int64_t ldv, int n_rows, int n);

/* Some heads of rows of a KV cache; ld in bytes. */
typedef struct head_rows {
    const void *at; /* [n_rows][n_row] of the type */
    int64_t ld;
    int n_rows, n_row;
    int first_head, n_heads, head_width; /* of Q8_0: a multiple of 32, MAX_Q8_0_HEAD at most */
} head_rows;

enum { MAX_Q8_0_HEAD = 2048 };

/* Attention of one query.  out[h][r] = q[first_head + h] . k[r][first_head + h]
 *   out  [n_heads][n_rows], zero before; of floats, the bits are those of dot_rows
 *   q    [n_row] floats, or for Q8_0 a row of quantize_row */
typedef void score_heads_kernel(out_view out, const void *q, const head_rows *k);

/* out[h] += sum over r of p[h][r] * v[r][first_head + h], in rising order of r; of floats, the bits are those of
 * weighted_sum
 *   p [n_heads][n_rows]   out [n_heads][head_width] */
typedef void sum_heads_kernel(float *out, f32_view p, const head_rows *v);

/* In place; x [n].  Error below 2e-7 * max(1, |x|) against float64. */
typedef void activation_kernel(float *x, int n);

/* A row of n values as F32, and F32 as a row of a KV cache (is_kv_type).  A row of Q8_0 in a cache is not one of
 * blocks: it has the integers of quantize_row [n], and then their scales as F16 [n / 32], so that all heads' scales are
 * loaded together. */
typedef void to_f32_kernel(float *out, const void *row, int n);
typedef void from_f32_kernel(void *out, const float *x, int n);

/* ---- Products of BF16 values ---- */

/* Tiles of the matrix kernels for BF16 values and for bytes. */
enum { MATRIX_ROWS = 32, MATRIX_TOKENS = 32, MATRIX_LANES = 16, MATRIX_K = 32 };

/* The epilogue of a product: out[t][r] = bias[r] + x[t] . w[r], without a bias 0 instead; with add, the old out[t][r]
 * is added, too.
 *   out [n_tokens][n_rows], rows ldo apart
 * Or, with an activation: activation(bias[r] + x[t] . w[r]), packed into panels for the next product, ld_panels values
 * apart; out is not written. */
typedef struct bf16_output {
    float *out;
    int64_t ldo;
    const float *bias;
    bool add;
    activation_kernel *activation;
    uint16_t *panels;
    int64_t ld_panels;
} bf16_output;

/* Packs the activations of some tokens into a panel of BF16 values.
 *   x  [n_tokens][n_in], rows ldx floats apart; n_tokens <= MATRIX_LANES
 * n_in is padded with zeros to a multiple of MATRIX_K, and tokens to MATRIX_LANES. */
typedef void bf16_panel_kernel(uint16_t *panel, const float *x, int64_t ldx, int n_tokens, int n_in);

/* Products of BF16 values, to which both operands are rounded, to nearest, ties to even.  Pairs of products are summed
 * in F32, in rising order of k, so a token's sums are the same bits whatever other tokens there are. */
typedef struct bf16_kernels {
    bf16_panel_kernel *panel; /* [n_in / MATRIX_K][MATRIX_LANES][MATRIX_K] */

    /* Packs n values of rows of weights: [n_rows / MATRIX_ROWS][n / MATRIX_K][2] tiles of sixteen rows, each a
     * transposed matrix of pairs, [MATRIX_K / 2][16][2]; padded with zeros. w  [n_rows][n] of the type, rows ldw bytes
     * apart */
    void (*tiles)(uint16_t *tiles, const void *w, int64_t ldw, dtype type, int n_rows, int n);

    /* The same of the columns of x: they are the rows of the tiles.
     *   x  [n_rows][n], rows ldx floats apart
     *   ld  values from the tiles of MATRIX_ROWS columns to the next */
    void (*columns)(uint16_t *tiles, int64_t ld, const float *x, int64_t ldx, int n_rows, int n);

    /* Softmax without the division by its sum: the unnormalised exponentials exp(scale * (x - max x)), packed into a
     * panel of tokens with n values each, zeros behind those of a row.  Relative error below 1e-5 before rounding.
     *   sums       [n_tokens]
     *   x          [n_tokens]; n_tokens <= MATRIX_LANES
     *   n_visible  >= 1: row t has n_visible + t scores, n at most
     *   scale      > 0 */
    void (*softmax_panel)(uint16_t *panel, float *sums, f32_view x, int n_tokens, int n_visible, int n, float scale);

    /* The product of n_in of the values of each row, of some or of all.
     *   sums   of the values before these, unless it begins; when it ends, `to` is written instead.  Scratch:
     * [n_tokens] [n_rows], both padded to multiples of 32; not used by a call that both begins and ends x      panels
     *   tiles  of `tiles` or `columns` */
    void (*gemm)(const bf16_output *to, float *sums, bf16_view x, bf16_view tiles, gemm_size size, bool begins,
                 bool ends);

    /* For few tokens, at most STREAM_TOKENS, with weights as they are in memory; for the types that have it, it takes
     * hardly longer than reading them, even for one token.
     *   to  floats, without an activation
     *   x   contiguous panels of `stream_panel`
     *   w   of the type */
    void (*stream)(const bf16_output *to, const uint16_t *x, row_view w, dtype type, gemm_size size);
    bf16_panel_kernel *stream_panel; /* [n_in / 2][MATRIX_LANES][2] */
    bool streams[N_KERNEL_DTYPES];
} bf16_kernels;

enum { STREAM_TOKENS = 64 };

/* ---- Products of bytes ---- */

/* 32 activations of each of MATRIX_LANES tokens, quantized as quantize_row does, four of a token next to each other. */
typedef struct matrix_block {
    int8_t q[8][MATRIX_LANES][4];
    int32_t sums[MATRIX_LANES]; /* of the q of a token */
    float d[MATRIX_LANES];
} matrix_block;

/* out[t][r] += x[t] . w[r] with weights of 8 bits: sums of integers within 32 values, times both scales in F32.
 *   x  [MATRIX_TOKENS / MATRIX_LANES][n_in / 32], the first n_tokens of them used
 *   w  [MATRIX_ROWS] rows of unpack_u8, the first n_rows of them used; the others must be readable, too
 *   zero  the zero point of w
 *   next  what the caller reads next, 34 bytes for 32 values of w: prefetched */
typedef void gemm_q8_kernel(out_view out, const matrix_block *x, const uint8_t *w, int zero, const uint8_t *next,
                            gemm_size size);

/* ---- Products of bytes with a scale a row ---- */

/* The activations of a token for tiles of I8: x[i] = d * q[i].  d = (largest |x|) / 127; q = x * (127 / largest),
 * rounded to nearest, ties to even; all zero where the largest is below 1e-30.  A NaN or infinity makes d one, and q
 * zero. Kernels whose sums of 16 bits would overflow leave less in q, and the rest in splits, which follow. */
typedef struct i8_activations {
    float d;
    int32_t sum; /* of the q of x, splits included */
    int32_t n_splits;
    int32_t padding;
    int8_t q[]; /* [n], then i8_split [n_splits] */
} i8_activations;

/* More of the activations that a line of a tile meets. */
typedef struct i8_split {
    int32_t line;
    int8_t q[I8_LINE_K];
} i8_split;

static inline i8_split *i8_splits(i8_activations *x, int n) { return (i8_split *)(void *)(x->q + n); }

/* Bytes of a token, whatever its values are: whole cache lines, an odd number, so that tokens do not share sets of the
 * cache. */
static inline int64_t i8_activation_bytes(int64_t n) {
    const int64_t n_bytes = (int64_t)sizeof(i8_activations) + n + n / I8_LINE_K * (int64_t)sizeof(i8_split);
    return ((n_bytes / 64 + 1) | 1) * 64;
}

typedef void quantize_token_kernel(i8_activations *to, const float *x, int n);

/* out[t][r] = bias[r] + d[t] * scales[r] * (sum over k of integers), without a bias 0 instead; with add, the old
 * out[t][r] is added, too.  The sum is exact, so an output depends on its row and token alone.
 *   x       tokens of quantize_token
 *   tiles   [n_rows / I8_TILE_ROWS, rounded up][n_in / I8_LINE_K]
 *   scales, bias  [n_rows] */
typedef struct gemm_i8_args {
    out_view out;
    row_view x;
    const tile_line_i8 *tiles;
    const float *scales, *bias;
    bool add;
    gemm_size size;
} gemm_i8_args;

typedef void gemm_i8_kernel(const gemm_i8_args *g);

/* ---- Products of floats ---- */

/* Tiles of the kernels for floats. */
enum { MAX_FLOAT_LANES = 16, FLOAT_ROWS = 48 };

/* What the caller reads next for row r, from at + r * ld on, to be prefetched during a product: at most a cache line
 * for so many values. */
typedef struct read_ahead {
    const uint8_t *at;
    int64_t ld, line_bytes;
    int line_values;
} read_ahead;

/* out[t][r] += x[t] . w[r], the products summed in rising order of k
 *   x  panels [n_in][lanes], the first n_tokens of their tokens used; the last panel is whole
 *   w  n_rows <= FLOAT_ROWS */
typedef void gemm_f32_kernel(out_view out, f32_view x, f32_view w, read_ahead next, gemm_size size);

/* The same bits for STREAMED_PANELS panels at most, with weights as they are in memory. */
enum { STREAMED_PANELS = 2 };
typedef void stream_f32_kernel(out_view out, f32_view x, row_view w, gemm_size size);

typedef struct float_kernels {
    gemm_f32_kernel *gemm;
    stream_f32_kernel *stream[N_FLOAT_DTYPES];
    int lanes; /* tokens of a panel */
} float_kernels;

/* ---- All kernels of an instruction set ---- */

/* Between the two products of a feed-forward layer. */
#define ACTIVATIONS(ACTIVATION)      \
    ACTIVATION(GELU_TANH, gelu_tanh) \
    ACTIVATION(GELU_ERF, gelu_erf)   \
    ACTIVATION(RELU, relu)           \
    ACTIVATION(SILU, silu)
#define ACTIVATION_VALUE(NAME, name) NAME,
typedef enum activation { ACTIVATIONS(ACTIVATION_VALUE) N_ACTIVATIONS } activation;

typedef struct kernels {
    const char *name;   /* "avx512-vnni" ... */
    const char *family; /* "avx512" ...: what FASTGPT_ISA names */

    dot_rows_kernel *dot_rows[N_KERNEL_DTYPES];
    to_f32_kernel *to_f32[N_KERNEL_DTYPES];
    weighted_sum_kernel *weighted_sum[N_FLOAT_DTYPES];
    from_f32_kernel *from_f32[N_KERNEL_DTYPES]; /* for the types of KV caches */
    score_heads_kernel *score_heads[N_KERNEL_DTYPES];
    sum_heads_kernel *sum_heads[N_KERNEL_DTYPES];
    const bf16_kernels *bf16;   /* NULL where the CPU does not multiply BF16 values */
    gemm_q8_kernel *gemm_q8;     /* NULL where it does not multiply bytes, or BF16 values much faster */
    const float_kernels *floats; /* NULL where BLAS is used instead */
    quantize_token_kernel *quantize_token;
    gemm_i8_kernel *gemm_i8;

    /* A row of weights as n unsigned bytes q, then n / 32 F32 scales d, with w[i] = d[i / 32] * (q[i] - zero), where
     * zero is u8_zero_point of the type.  For Q8_0 and Q4_0 where there is a gemm_q8, else NULL. */
    void (*unpack_u8[N_KERNEL_DTYPES])(void *out, const void *row, int n);

    /* Activations for weights in blocks: n int8 values q, then n / 32 F32 scales d, with x[i] = d[i / 32] * q[i].
     * d = (largest |x| of the block) / 127; q = x * (127 / largest), rounded to nearest, ties to even; all zero where
     * the largest is below 1e-30.  A NaN or infinity in the block makes its d one.  n is a multiple of 32. */
    void (*quantize_row)(void *out, const float *x, int n);

    /* x = exp(scale * (x - max x)), in place; x [n], n >= 1, scale > 0.  *x_max = max x; returns their sum.  Absolute
     * error below 3e-7 against float64. */
    float (*exponentials)(float *x, int n, float scale, float *x_max);

    /* x = exp(scale * (x - max x)) / sum, in place; x [n], n >= 1, scale > 0.  Absolute error below 3e-7 + n 2^-24
     * against float64. */
    void (*softmax)(float *x, int n, float scale);

    /*   GELU_TANH  x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))  (Hendrycks & Gimpel 2016, arXiv 1606.08415)
     *   GELU_ERF   x / 2 * (1 + erf(x / sqrt(2)))                         (the same paper)
     *   RELU       max(x, 0), of NaN NaN
     *   SILU       x / (1 + exp(-x)) */
    activation_kernel *activation[N_ACTIVATIONS];

    /* out = (x - mean) / sqrt(variance + epsilon) * w + b; all [n]; out may be x (Ba et al. 2016, arXiv
     * 1607.06450) */
    void (*layer_norm)(float *out, const float *x, const float *w, const float *b, int n, float epsilon);
} kernels;

/* w = d * (q - zero_point) for the integers q of a block. */
static inline int8_t zero_point(dtype type) {
#define ZERO_POINT(NAME, name, block, block_values) \
    if (type == TYPE_##NAME) return ZERO_POINT_##NAME;
    BLOCK_DTYPES(ZERO_POINT)
#undef ZERO_POINT
    return 0;
}

/* The same for unpack_u8, which makes them all unsigned. */
static inline int u8_zero_point(dtype type) { return type == TYPE_Q8_0 ? 128 : zero_point(type); }

/* Bytes of a row of quantize_row, or of unsigned bytes with scales. */
static inline int64_t quantized_row_bytes(int64_t n) { return n + n / 32 * (int64_t)sizeof(float); }

/* Whether products with weights of this type take activations of quantize_row. */
static inline bool takes_quantized(dtype type) { return !is_float(type); }

/* The lines of a set's tables: each table is made from the list of what it is indexed by, so that a kernel which is
 * missing does not compile. */
#define DOT_ROWS_ENTRY(NAME, name, block, block_values) [TYPE_##NAME] = dot_##name,
#define TO_F32_ENTRY(NAME, name, block, block_values) [TYPE_##NAME] = to_f32_##name,
#define WEIGHTED_SUM_ENTRY(NAME, name, block, block_values) [TYPE_##NAME] = sum_##name,
#define FROM_F32_ENTRY(NAME, name, block, block_values) [TYPE_##NAME] = from_f32_row_##name,
#define SCORE_HEADS_ENTRY(NAME, name, block, block_values) [TYPE_##NAME] = score_heads_##name,
#define SUM_HEADS_ENTRY(NAME, name, block, block_values) [TYPE_##NAME] = sum_heads_##name,
#define ACTIVATION_ENTRY(NAME, name) [NAME] = name,

/* The kernels for this CPU, or the best of the family that the environment variable FASTGPT_ISA names; NULL when it
 * names none that this CPU and build have.  Chosen at the first call. */
const kernels *kernels_chosen(void);

/* Every set that this CPU and build can run, portable first, the best last; *n of them. */
const kernels *const *kernels_all(int *n);

/* The specification, which every CPU runs. */
extern const kernels kernels_portable;

#endif
