/* portable.c - the specification of the kernels: plain loops in the order of the formulas. */
#include "kernels/kernels.h"

#include <math.h>
#include <stddef.h>

#include "dtypes/decode.h"
#include "dtypes/dequantize.h"
#include "dtypes/from_f32.h"

/* ---- Products ---- */

static float dot_floats(dtype type, const void *x, const void *w, int n_in) {
    float sum = 0;
    for (int k = 0; k < n_in; k++) sum += value_f32(x, k) * float_value(type, w, k);
    return sum;
}

static float dot_blocks(dtype type, const void *x, const void *w, int n_in) {
    const int8_t *q_x = x;
    const float *d_x = (const float *)(const void *)(q_x + n_in);
    float sum = 0;
    for (int i = 0; i < n_in / SUBBLOCK; i++) {
        int q_w[SUBBLOCK], dot = 0;
        float d_w = integers(q_w, type, w, i);
        for (int j = 0; j < SUBBLOCK; j++) dot += q_w[j] * q_x[SUBBLOCK * i + j];
        sum += (float)dot * (d_w * d_x[i / 2]);
    }
    return sum;
}

static void dot_rows(dtype type, out_view out, row_view x, row_view w, gemm_size size) {
    float (*dot)(dtype, const void *, const void *, int) = takes_quantized(type) ? dot_blocks : dot_floats;
    for (int r = 0; r < size.n_rows; r++)
        for (int t = 0; t < size.n_tokens; t++)
            out.at[t * out.ld + r] +=
                dot(type, (const char *)x.at + t * x.ld, (const char *)w.at + r * w.ld, size.n_in);
}

static void weighted_sum(dtype type, float *out, const float *p, const char *v, int64_t ldv, int n_rows, int n) {
    for (int i = 0; i < n_rows; i++)
        for (int j = 0; j < n; j++) out[j] += p[i] * float_value(type, v + i * ldv, j);
}

#define DOT(NAME, name, block, block_values)                                       \
    static void dot_##name(out_view out, row_view x, row_view w, gemm_size size) { \
        dot_rows(TYPE_##NAME, out, x, w, size);                                    \
    }
#define SUM(NAME, name, block, block_values)                                                            \
    static void sum_##name(float *out, const float *p, const void *v, int64_t ldv, int n_rows, int n) { \
        weighted_sum(TYPE_##NAME, out, p, v, ldv, n_rows, n);                                           \
    }
#define TO_F32(NAME, name, block, block_values) \
    static void to_f32_##name(float *out, const void *row, int n) { dequantize_row(TYPE_##NAME, out, row, n); }

KERNEL_DTYPES(DOT)
FLOAT_DTYPES(SUM)
KERNEL_DTYPES(TO_F32)

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

static void quantize_token(i8_activations *to, const float *x, int n) {
    float largest = 0;
    for (int i = 0; i < n; i++)
        if (!isnan(largest) && !(fabsf(x[i]) <= largest)) largest = fabsf(x[i]);
    const bool zero = largest < 1e-30f, finite = largest <= 3.4028235e38f;
    const float inverse = zero ? 0 : 127 / largest;
    *to = (i8_activations){.d = zero ? 0 : largest / 127};
    for (int i = 0; i < n; i++) {
        to->q[i] = finite ? (int8_t)lrint((double)x[i] * inverse) : 0;
        to->sum += to->q[i];
    }
}

/* ---- Products with tiles ---- */

static int32_t dot_tile_row(const tile_line_i8 *tile, int row, const int8_t *q, int n_in) {
    int32_t sum = 0;
    for (int k = 0; k < n_in; k++) sum += (tile[k / I8_LINE_K].q[row][k % I8_LINE_K] - I8_ZERO_POINT) * q[k];
    return sum;
}

static void gemm_i8(const gemm_i8_args *g) {
    const int n_in = g->size.n_in;
    for (int t = 0; t < g->size.n_tokens; t++) {
        const i8_activations *x = (const void *)((const char *)g->x.at + t * g->x.ld);
        float *out = g->out.at + t * g->out.ld;
        for (int r = 0; r < g->size.n_rows; r++) {
            const tile_line_i8 *tile = g->tiles + (int64_t)(r / I8_TILE_ROWS) * (n_in / I8_LINE_K);
            const float sum = (float)dot_tile_row(tile, r % I8_TILE_ROWS, x->q, n_in);
            out[r] = sum * (g->scales[r] * x->d) + (g->bias ? g->bias[r] : 0) + (g->add ? out[r] : 0);
        }
    }
}

/* ---- Softmax, activations and layer_norm ---- */

static void softmax(float *x, int n, float scale) {
    float max = x[0], sum = 0;
    for (int i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
    for (int i = 0; i < n; i++) sum += x[i] = expf(scale * (x[i] - max));
    for (int i = 0; i < n; i++) x[i] /= sum;
}

static void gelu_tanh(float *x, int n) {
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
    .dot_rows = {KERNEL_DTYPES(DOT_ROWS_ENTRY)},
    .to_f32 = {KERNEL_DTYPES(TO_F32_ENTRY)},
    .weighted_sum = {FLOAT_DTYPES(WEIGHTED_SUM_ENTRY)},
    .from_f32 = {FLOAT_DTYPES(FROM_F32_ENTRY)},
    .quantize_row = quantize_row,
    .quantize_token = quantize_token,
    .gemm_i8 = gemm_i8,
    .softmax = softmax,
    .activation = {ACTIVATIONS(ACTIVATION_ENTRY)},
    .layer_norm = layer_norm,
};
