/* portable.c - the specification: plain loops in the order of the formulas. */
#include "kernels/kernels.h"

#include <math.h>
#include <stddef.h>

#include "dtypes/decode.h"
#include "dtypes/dequantize.h"
#include "dtypes/from_f32.h"

/* ---- Products ---- */

static float dot_numbers(number_type type, const void *x, const void *w, int n_in) {
    float sum = 0;
    for (int k = 0; k < n_in; k++) sum += number(TYPE_F32, x, k) * number(type, w, k);
    return sum;
}

static float dot_blocks(number_type type, const void *x, const void *w, int n_in) {
    const int8_t *q_x = x;
    const float *d_x = (const float *)(const void *)(q_x + n_in);
    float sum = 0;
    for (int part = 0; part < n_in / 16; part++) {
        int q_w[16], dot = 0;
        float d_w = integers(q_w, type, w, part);
        for (int i = 0; i < 16; i++) dot += q_w[i] * q_x[16 * part + i];
        sum += (float)dot * (d_w * d_x[part / 2]);
    }
    return sum;
}

static void dot_rows(number_type type, float *out, int64_t ldo, const char *x, int64_t ldx, const char *w, int64_t ldw,
                     int n_tokens, int n_rows, int n_in) {
    float (*dot)(number_type, const void *, const void *, int) = takes_quantized(type) ? dot_blocks : dot_numbers;
    for (int r = 0; r < n_rows; r++)
        for (int t = 0; t < n_tokens; t++) out[t * ldo + r] += dot(type, x + t * ldx, w + r * ldw, n_in);
}

static void weighted_sum(number_type type, float *out, const float *p, const char *v, int64_t ldv, int n_rows, int n) {
    for (int i = 0; i < n_rows; i++)
        for (int j = 0; j < n; j++) out[j] += p[i] * number(type, v + i * ldv, j);
}

#define DOT(suffix, type)                                                                                     \
    static void dot_##suffix(float *out, int64_t ldo, const void *x, int64_t ldx, const void *w, int64_t ldw, \
                             int n_tokens, int n_rows, int n_in) {                                            \
        dot_rows(type, out, ldo, x, ldx, w, ldw, n_tokens, n_rows, n_in);                                     \
    }
#define SUM(suffix, type)                                                                                 \
    static void sum_##suffix(float *out, const float *p, const void *v, int64_t ldv, int n_rows, int n) { \
        weighted_sum(type, out, p, v, ldv, n_rows, n);                                                    \
    }

#define WIDEN(suffix, type) \
    static void widen_row_##suffix(float *out, const void *row, int n) { widen_row(type, out, row, n); }

DOT(f32, TYPE_F32)
DOT(f16, TYPE_F16)
DOT(bf16, TYPE_BF16)
DOT(q8_0, TYPE_Q8_0)
DOT(q4_0, TYPE_Q4_0)
DOT(q6_k, TYPE_Q6_K)
SUM(f32, TYPE_F32)
SUM(f16, TYPE_F16)
SUM(bf16, TYPE_BF16)
WIDEN(f32, TYPE_F32)
WIDEN(f16, TYPE_F16)
WIDEN(bf16, TYPE_BF16)
WIDEN(q8_0, TYPE_Q8_0)
WIDEN(q4_0, TYPE_Q4_0)
WIDEN(q6_k, TYPE_Q6_K)

/* ---- Activations ---- */

static void quantize_group(int8_t *q, float *d, const float *x) {
    float largest = 0;
    for (int i = 0; i < 32; i++)
        if (!isnan(largest) && !(fabsf(x[i]) <= largest)) largest = fabsf(x[i]);
    bool zero = largest < 1e-30f;
    *d = zero ? 0 : largest / 127;
    float inverse = zero ? 0 : 127 / largest;
    bool finite = largest <= 3.4028235e38f;
    for (int i = 0; i < 32; i++) q[i] = finite ? (int8_t)lrint((double)x[i] * inverse) : 0;
}

static void quantize_row(void *out, const float *x, int n) {
    int8_t *q = out;
    float *d = (float *)(void *)(q + n);
    for (int i = 0; i < n; i += 32) quantize_group(q + i, d + i / 32, x + i);
}

/* ---- Functions of one number, and rows ---- */

static void softmax(float *x, int n, float scale) {
    float max = x[0], sum = 0;
    for (int i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
    for (int i = 0; i < n; i++) sum += x[i] = expf(scale * (x[i] - max));
    for (int i = 0; i < n; i++) x[i] /= sum;
}

static void gelu(float *x, int n) {
    const float sqrt_2_over_pi = 0.7978845608f;
    for (int i = 0; i < n; i++) {
        float u = sqrt_2_over_pi * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
        x[i] = 0.5f * x[i] * (1 + tanhf(u));
    }
}

static void gelu_erf(float *x, int n) {
    const float sqrt_half = 0.7071067812f;
    for (int i = 0; i < n; i++) x[i] = 0.5f * x[i] * (1 + erff(x[i] * sqrt_half));
}

static void relu(float *x, int n) {
    for (int i = 0; i < n; i++) x[i] = x[i] < 0 ? 0 : x[i];
}

static void silu(float *x, int n) {
    for (int i = 0; i < n; i++) x[i] = x[i] / (1 + expf(-x[i]));
}

static void layer_norm(float *out, const float *x, const float *w, const float *b, int n, float epsilon) {
    float mean = 0, variance = 0;
    for (int i = 0; i < n; i++) mean += x[i] / (float)n;
    for (int i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean) / (float)n;
    float scale = 1 / sqrtf(variance + epsilon);
    for (int i = 0; i < n; i++) out[i] = (x[i] - mean) * scale * w[i] + b[i];
}

const kernels kernels_portable = {
    .name = "portable",
    .family = "portable",
    .dot_rows = {dot_f32, dot_f16, dot_bf16, dot_q8_0, dot_q4_0, dot_q6_k},
    .widen = {widen_row_f32, widen_row_f16, widen_row_bf16, widen_row_q8_0, widen_row_q4_0, widen_row_q6_k},
    .weighted_sum = {sum_f32, sum_f16, sum_bf16},
    .narrow = {narrow_row_f32, narrow_row_f16, narrow_row_bf16},
    .quantize_row = quantize_row,
    .softmax = softmax,
    .activation = {gelu, gelu_erf, relu, silu},
    .layer_norm = layer_norm,
};
