/* kernels.h - the inner loops.  portable.c is the specification; generic/ has the same written once for vectors of any
 * width, and each instruction set compiles them in a file of its own.
 *
 * Reductions over k run in a fixed order that depends on the instruction set alone: never on the number of
 * rows, tokens or threads.  Distances between rows (ld...) count elements of `out`, and bytes of everything else. */
#ifndef FASTGPT_KERNELS_H
#define FASTGPT_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "dtypes/dtype.h"

/* out[t][r] += x[t] . w[r]
 *   x [n_tokens][n_in]: for weights of F32, F16 and BF16 floats, for block formats rows of `quantize_row`
 *   w [n_rows][n_in]    out [n_tokens][n_rows]; overlaps neither */
typedef void dot_rows_kernel(float *out, int64_t ldo, const void *x, int64_t ldx, const void *w, int64_t ldw,
                             int n_tokens, int n_rows, int n_in);

/* out += sum over i of p[i] * v[i], in rising order of i
 *   p [n_rows]   v [n_rows][n]   out [n] */
typedef void weighted_sum_kernel(float *out, const float *p, const void *v, int64_t ldv, int n_rows, int n);

/* In place; x [n].  Error below 2e-7 * max(1, |x|) against float64. */
typedef void activation_kernel(float *x, int n);

/* A row of n values as F32, and F32 as a row of floats of another type. */
typedef void to_f32_kernel(float *out, const void *row, int n);
typedef void from_f32_kernel(void *out, const float *x, int n);

/* Tiles of the matrix kernels for BF16 numbers and bytes. */
enum { MATRIX_ROWS = 32, MATRIX_TOKENS = 32, MATRIX_LANES = 16, MATRIX_K = 32 };

/* Where products go: out[t][r] = start + x[t] . w[r], where the start is bias[r], or 0 without a bias; with add,
 * out[t][r] more.
 *   out [n_tokens][n_rows], rows ldo apart
 * Or, with an activation, what that makes of them, as panels for the next product, ld_panels numbers apart. */
typedef struct bf16_output {
    float *out;
    int64_t ldo;
    const float *bias;
    bool add;
    activation_kernel *activation;
    uint16_t *panels;
    int64_t ld_panels;
} bf16_output;

/* Activations as BF16 numbers, some tokens of them in a panel.
 *   x  [n_tokens][n_in], rows ldx floats apart; n_tokens <= MATRIX_LANES
 * n_in is filled up with zeros to a multiple of MATRIX_K, and so are tokens to MATRIX_LANES. */
typedef void bf16_panel_kernel(uint16_t *panel, const float *x, int64_t ldx, int n_tokens, int n_in);

/* Products of BF16 numbers, to which both operands are rounded, to nearest, ties to even.  Pairs of products are summed
 * in F32, in rising order of k, so a token's sums are the same bits beside any others, in few tokens or many. */
typedef struct bf16_kernels {
    bf16_panel_kernel *panel; /* [n_in / MATRIX_K][MATRIX_LANES][MATRIX_K] */

    /* n numbers of rows of weights: [n_rows / MATRIX_ROWS][n / MATRIX_K][2] tiles of sixteen rows, which have pairs of
     * numbers behind each other, [MATRIX_K / 2][16][2]; filled up with zeros.
     *   w  [n_rows][n] of the type, rows ldw bytes apart */
    void (*tiles)(uint16_t *tiles, const void *w, int64_t ldw, dtype type, int n_rows, int n);

    /* The same of the columns of x: they are the rows.
     *   x  [n_rows][n], rows ldx floats apart
     *   ld  numbers from the tiles of MATRIX_ROWS columns to the next */
    void (*columns)(uint16_t *tiles, int64_t ld, const float *x, int64_t ldx, int n_rows, int n);

    /* What the softmax makes of scores, but for the division by their sums: exp(scale * (x - max x)), as a panel of
     * tokens with n numbers each; zeros stand behind those of a row.  Relative error below 1e-5 before rounding.
     *   sums    [n_tokens]
     *   x       [n_tokens], rows ldx floats apart; n_tokens <= MATRIX_LANES
     *   n_seen  >= 1: row t has n_seen + t scores, n at most
     *   scale   > 0 */
    void (*softmax_panel)(uint16_t *panel, float *sums, const float *x, int64_t ldx, int n_tokens, int n_seen, int n,
                          float scale);

    /* Some n of the numbers that are multiplied, or all.
     *   sums  what those before came to, unless it begins; out is written when it ends.  Scratch, not used by a call
     *         that both begins and ends: [n_tokens][n_rows], both filled up to multiples of 32
     *   x      panels, ldx numbers apart
     *   tiles  of MATRIX_ROWS rows, ld_tiles numbers from those to the next */
    void (*product)(const bf16_output *to, float *sums, const uint16_t *x, int64_t ldx, const uint16_t *tiles,
                    int64_t ld_tiles, int n_tokens, int n_rows, int n, bool begins, bool ends);

    /* Of few tokens, at most STREAM_TOKENS, with weights where they lie; for types that have it it takes hardly longer
     * than reading them, from one token on.
     *   to  floats, without an activation
     *   x   panels of `stream_panel`, behind each other
     *   w   [n_rows][n_in] of the type, rows ldw bytes apart */
    void (*stream)(const bf16_output *to, const uint16_t *x, const void *w, int64_t ldw, dtype type, int n_tokens,
                   int n_rows, int n_in);
    bf16_panel_kernel *stream_panel; /* [n_in / 2][MATRIX_LANES][2] */
    bool streams[N_KERNEL_DTYPES];
} bf16_kernels;

enum { STREAM_TOKENS = 64 };

/* 32 activations of each of MATRIX_LANES tokens, as quantize_row rounds them, four at a time side by side. */
typedef struct matrix_block {
    int8_t q[8][MATRIX_LANES][4];
    int32_t sums[MATRIX_LANES]; /* of the q of a token */
    float d[MATRIX_LANES];
} matrix_block;

/* The same product with weights of 8 bits: sums of integers within 32 numbers, times both scales in F32.
 *   x  [MATRIX_TOKENS / MATRIX_LANES][n_in / 32], of which n_tokens count
 *   w  [MATRIX_ROWS] rows of byte_row, of which n_rows count; the others must be readable, too
 *   zero  what the integers of w stand above
 *   next  what the caller will read next, 34 bytes for 32 numbers of w: fetched meanwhile */
typedef void matrix_bytes_kernel(float *out, int64_t ldo, const matrix_block *x, const uint8_t *w, int zero,
                                 const uint8_t *next, int n_tokens, int n_rows, int n_in);

/* Tiles of the kernels for floats. */
enum { MAX_FLOAT_LANES = 16, FLOAT_ROWS = 48 };

/* What the caller will read next for row r, from at + r * ld on: a line at most for so many numbers; fetched
 * meanwhile. */
typedef struct read_ahead {
    const uint8_t *at;
    int64_t ld, line_bytes;
    int line_numbers;
} read_ahead;

/* out[t][r] += x[t] . w[r], the products summed in rising order of k
 *   x  panels [n_in][lanes] that are ldx floats apart, of which n_tokens count; the last one is whole
 *   w  [n_rows][n_in], rows ldw floats apart; n_rows <= FLOAT_ROWS */
typedef void matrix_floats_kernel(float *out, int64_t ldo, const float *x, int64_t ldx, const float *w, int64_t ldw,
                                  read_ahead next, int n_tokens, int n_rows, int n_in);

/* The same for STREAMED_PANELS panels at most, with weights as they lie in memory, rows ldw bytes apart: the same bits.
 */
enum { STREAMED_PANELS = 2 };
typedef void stream_floats_kernel(float *out, int64_t ldo, const float *x, int64_t ldx, const void *w, int64_t ldw,
                                  int n_tokens, int n_rows, int n_in);

typedef struct float_kernels {
    matrix_floats_kernel *matrix;
    stream_floats_kernel *stream[N_FLOAT_DTYPES];
    int lanes; /* tokens of a panel */
} float_kernels;

/* What stands between the two products of a feed-forward layer. */
#define ACTIVATIONS(ACTIVATION)      \
    ACTIVATION(GELU_TANH, gelu_tanh) \
    ACTIVATION(GELU_ERF, gelu_erf)   \
    ACTIVATION(RELU, relu)           \
    ACTIVATION(SILU, silu)
#define ACTIVATION_VALUE(NAME, name) NAME,
typedef enum activation { ACTIVATIONS(ACTIVATION_VALUE) N_ACTIVATIONS } activation;

typedef struct kernels {
    const char *name; /* "avx512-vnni" ... */
    const char *family; /* "avx512" ...: what FASTGPT_ISA names */

    dot_rows_kernel *dot_rows[N_KERNEL_DTYPES];
    to_f32_kernel *to_f32[N_KERNEL_DTYPES];
    weighted_sum_kernel *weighted_sum[N_FLOAT_DTYPES];
    from_f32_kernel *from_f32[N_FLOAT_DTYPES];
    const bf16_kernels *bf16; /* NULL where the CPU multiplies no BF16 numbers */
    matrix_bytes_kernel *matrix_bytes; /* NULL where it multiplies no bytes, or BF16 numbers much faster */

    const float_kernels *floats; /* NULL where BLAS takes their place */

    /* A row of weights as unsigned bytes: n of them, q, then n / 32 F32 scales d, with w[i] = d[i / 32] * (q[i] -
     * zero), where zero is u8_zero_point of the type.  For Q8_0 and Q4_0 where there is a matrix_bytes, else NULL. */
    void (*byte_row[N_KERNEL_DTYPES])(void *out, const void *row, int n);

    /* Activations for weights in blocks: n int8 numbers q, then n / 32 F32 scales d, with x[i] = d[i / 32] * q[i].
     * d = (largest |x| of the block) / 127; q = x * (127 / largest), rounded to nearest, ties to even; all zero where
     * the largest is below 1e-30.  A NaN or infinity in the block makes its d one.  n is a multiple of 32. */
    void (*quantize_row)(void *out, const float *x, int n);

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

/* The zero point of the integers of a block: w = d * (q - zero_point).  Those of Q8_0 are signed. */
enum { ZERO_POINT_Q8_0 = 0, ZERO_POINT_Q4_0 = 8, ZERO_POINT_Q6_K = 32 };

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
#define ACTIVATION_ENTRY(NAME, name) [NAME] = name,

/* The kernels for this CPU, or the best of the family that the environment variable FASTGPT_ISA names; NULL when it
 * names none that this CPU and build have.  Chosen at the first call. */
const kernels *kernels_chosen(void);

/* Every set that this CPU and build can run, portable first, the best last; *n of them. */
const kernels *const *kernels_all(int *n);

extern const kernels kernels_portable;
extern const kernels kernels_avx2;
extern const kernels kernels_avx2_vnni;
extern const kernels kernels_avx512;
extern const kernels kernels_avx512_vnni;
extern const kernels kernels_avx512_bf16;
extern const kernels kernels_amx;
extern const kernels kernels_neon;
extern const kernels kernels_neon_dotprod;

#endif
