/* simd.h - the kernels of kernels.h for vectors of WIDTH floats, in the vector extensions of gcc and clang
 * (https://gcc.gnu.org/onlinedocs/gcc/Vector-Extensions.html).  An instruction set's file defines
 *
 *     WIDTH   floats in a register
 *     ROWS    weight rows of a tile of dot_rows
 *     TOKENS  token rows of that tile: ROWS * TOKENS accumulators, which must fit the registers
 *
 * and includes this.  The compiler turns a * b + c into a fused multiply-add (-ffp-contract=fast).
 *
 * Order of a sum over k: lane i adds k = i, i + WIDTH, ... in rising order, the tail padded with zeros; then
 * the lanes are added in halves: i with i + WIDTH / 2, and so on. */
#include <math.h>
#include <string.h>

#include "kernels.h"

typedef float vec __attribute__((vector_size(WIDTH * 4)));
typedef int32_t ivec __attribute__((vector_size(WIDTH * 4)));
typedef float vec_anywhere __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));

static inline vec load(const float *p) { return *(const vec_anywhere *)p; }
static inline void store(float *p, vec v) { *(vec_anywhere *)p = v; }
static inline vec splat(float x) { return x - (vec){0}; }

/* The first n < WIDTH floats, then zeros. */
static inline vec load_first(const float *p, int n) {
    vec v = {0};
    memcpy(&v, p, (size_t)n * sizeof(float));
    return v;
}

static inline void store_first(float *p, vec v, int n) { memcpy(p, &v, (size_t)n * sizeof(float)); }

static inline vec choose(ivec mask, vec a, vec b) { return (vec)(((ivec)a & mask) | ((ivec)b & ~mask)); }

/* A NaN in x stays one. */
static inline vec clamp(vec x, float low, float high) {
    x = choose(x < low, splat(low), x);
    return choose(x > high, splat(high), x);
}

/* Half of a vector each: lanes 0 .. n / 2 - 1, and the rest.  Copies of parts of a register cost one instruction. */
#define SPLIT(half, v) \
    half low, high;    \
    memcpy(&low, &v, sizeof low), memcpy(&high, (const char *)&v + sizeof low, sizeof high)

typedef float vec2 __attribute__((vector_size(8)));
typedef float vec4 __attribute__((vector_size(16)));

static inline float sum_of_4(vec4 v) {
    SPLIT(vec2, v);
    low += high;
    return low[0] + low[1];
}

#if WIDTH == 4
static inline float sum_lanes(vec v) { return sum_of_4(v); }
#else
static inline float sum_lanes(vec v) {
    SPLIT(vec4, v);
    return sum_of_4(low + high);
}
#endif

/* ---- Products ---- */

/* A tile of n_rows <= ROWS by n_tokens <= TOKENS; the counts are constants wherever this is inlined, so that
 * the accumulators live in registers. */
static inline __attribute__((always_inline)) void dot_tile(float *out, int64_t ldo, const float *x, int64_t ldx,
                                                           const float *w, int64_t ldw, const int n_tokens,
                                                           const int n_rows, int n_in) {
    vec sum[ROWS][TOKENS] = {{{0}}};
    const float *next = w + n_rows * ldw; /* the next tile, fetched line by line while this one is computed */
    int k = 0;
    for (; k + WIDTH <= n_in; k += WIDTH) {
        __builtin_prefetch(next + n_rows * k);
        if (n_rows * WIDTH > 16) __builtin_prefetch(next + n_rows * k + 16);
#pragma GCC unroll 8
        for (int r = 0; r < n_rows; r++) {
            vec wr = load(w + r * ldw + k);
#pragma GCC unroll 8
            for (int t = 0; t < n_tokens; t++) sum[r][t] += wr * load(x + t * ldx + k);
        }
    }
    if (k < n_in) {
        for (int r = 0; r < n_rows; r++) {
            vec wr = load_first(w + r * ldw + k, n_in - k);
            for (int t = 0; t < n_tokens; t++) sum[r][t] += wr * load_first(x + t * ldx + k, n_in - k);
        }
    }
    for (int r = 0; r < n_rows; r++)
        for (int t = 0; t < n_tokens; t++) out[t * ldo + r] += sum_lanes(sum[r][t]);
}

static void dot_rows(float *out, int64_t ldo, const float *x, int64_t ldx, const float *w, int64_t ldw, int n_tokens,
                     int n_rows, int n_in) {
    int r = 0;
    for (; r + ROWS <= n_rows; r += ROWS) {
        int t = 0;
        for (; t + TOKENS <= n_tokens; t += TOKENS)
            dot_tile(out + t * ldo + r, ldo, x + t * ldx, ldx, w + r * ldw, ldw, TOKENS, ROWS, n_in);
        for (; t < n_tokens; t++) dot_tile(out + t * ldo + r, ldo, x + t * ldx, ldx, w + r * ldw, ldw, 1, ROWS, n_in);
    }
    for (; r < n_rows; r++)
        for (int t = 0; t < n_tokens; t++)
            dot_tile(out + t * ldo + r, ldo, x + t * ldx, ldx, w + r * ldw, ldw, 1, 1, n_in);
}

/* n_columns registers of out, summed over all rows; n_columns is a constant wherever this is inlined. */
static inline __attribute__((always_inline)) void sum_columns(float *out, const float *p, const float *v, int64_t ldv,
                                                              int n_rows, const int n_columns) {
    vec sum[4] = {{0}};
    for (int i = 0; i < n_rows; i++)
#pragma GCC unroll 4
        for (int c = 0; c < n_columns; c++) sum[c] += p[i] * load(v + i * ldv + c * WIDTH);
    for (int c = 0; c < n_columns; c++) store(out + c * WIDTH, sum[c]);
}

static void weighted_sum(float *out, const float *p, const float *v, int64_t ldv, int n_rows, int n) {
    int j = 0;
    for (; j + 4 * WIDTH <= n; j += 4 * WIDTH) sum_columns(out + j, p, v + j, ldv, n_rows, 4);
    for (; j + WIDTH <= n; j += WIDTH) sum_columns(out + j, p, v + j, ldv, n_rows, 1);
    if (j == n) return;
    vec sum = {0};
    for (int i = 0; i < n_rows; i++) sum += p[i] * load_first(v + i * ldv + j, n - j);
    store_first(out + j, sum, n - j);
}

/* ---- Functions of one number ---- */

/* exp(x), x clamped to [-87, 88]: x = n ln 2 + r with |r| <= ln 2 / 2, and a polynomial for exp(r) (Cephes,
 * expf).  Relative error below 2e-7 in that range. */
static inline vec vexp(vec x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    x = clamp(x, -87.0f, 88.0f);
    vec shifted = x * 1.44269504f + magic;
    vec n = shifted - magic;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec poly = 1.9875691500e-4f * r + 1.3981999507e-3f;
    poly = poly * r + 8.3334519073e-3f;
    poly = poly * r + 4.1665795894e-2f;
    poly = poly * r + 1.6666665459e-1f;
    poly = poly * r + 5.0000001201e-1f;
    vec exp_r = poly * r * r + r + 1.0f;
    ivec power = ((ivec)shifted - 0x4B400000 + 127) << 23; /* 0x4B400000: the bits of magic */
    return exp_r * (vec)power;
}

static inline float largest(const float *x, int n) {
    vec best = splat(x[0]);
    int i = 0;
    for (; i + WIDTH <= n; i += WIDTH) best = choose(load(x + i) > best, load(x + i), best);
    float result = best[0];
    for (int lane = 1; lane < WIDTH; lane++) result = best[lane] > result ? best[lane] : result;
    for (; i < n; i++) result = x[i] > result ? x[i] : result;
    return result;
}

static void softmax(float *x, int n) {
    float max = largest(x, n);
    int n_whole = n - n % WIDTH;
    vec sum = {0};
    for (int i = 0; i < n_whole; i += WIDTH) {
        vec e = vexp(load(x + i) - max);
        store(x + i, e);
        sum += e;
    }
    if (n_whole < n) {
        store_first(x + n_whole, vexp(load_first(x + n_whole, n - n_whole) - max), n - n_whole);
        sum += load_first(x + n_whole, n - n_whole);
    }
    float scale = 1 / sum_lanes(sum);
    for (int i = 0; i < n; i++) x[i] *= scale;
}

/* x / 2 * (1 + tanh u) = x / (1 + exp(-2 u)) */
static inline vec vgelu(vec x) {
    const float two_sqrt_2_over_pi = 1.5957691216f;
    vec u2 = two_sqrt_2_over_pi * (x + 0.044715f * x * x * x);
    return x / (1.0f + vexp(-u2));
}

static void gelu(float *x, int n) {
    int i = 0;
    for (; i + WIDTH <= n; i += WIDTH) store(x + i, vgelu(load(x + i)));
    if (i < n) store_first(x + i, vgelu(load_first(x + i, n - i)), n - i);
}

static void layer_norm(float *out, const float *x, const float *w, const float *b, int n, float epsilon) {
    vec sum = {0}, squares = {0};
    int i = 0;
    for (; i + WIDTH <= n; i += WIDTH) sum += load(x + i);
    sum += load_first(x + i, n - i);
    float mean = sum_lanes(sum) / (float)n;
    for (i = 0; i + WIDTH <= n; i += WIDTH) squares += (load(x + i) - mean) * (load(x + i) - mean);
    float tail = 0;
    for (int j = i; j < n; j++) tail += (x[j] - mean) * (x[j] - mean);
    float scale = 1 / sqrtf((sum_lanes(squares) + tail) / (float)n + epsilon);
    for (i = 0; i + WIDTH <= n; i += WIDTH) store(out + i, (load(x + i) - mean) * scale * load(w + i) + load(b + i));
    for (; i < n; i++) out[i] = (x[i] - mean) * scale * w[i] + b[i];
}
