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

/* ---- Heads of rows of a KV cache ---- */

/* Of all rows, from the first head on, as one matrix. */
static row_view first_head(dtype type, const head_rows *rows) {
    return (row_view){(const char *)rows->at + row_bytes(type, (int64_t)rows->first_head * rows->head_width), rows->ld};
}

#define HEADS(NAME, name, block, block_values)                                                                        \
    static void score_heads_##name(out_view out, const void *q, const head_rows *k) {                                 \
        const row_view rows = first_head(TYPE_##NAME, k);                                                             \
        const int d = k->head_width;                                                                                  \
        for (int64_t h = 0; h < k->n_heads; h++)                                                                      \
            dot_##name((out_view){out.at + h * out.ld, 0}, (row_view){(const float *)q + (k->first_head + h) * d, 0}, \
                       (row_view){(const char *)rows.at + row_bytes(TYPE_##NAME, h * d), rows.ld},                    \
                       (gemm_size){1, k->n_rows, d});                                                                 \
    }                                                                                                                 \
    static void sum_heads_##name(float *out, f32_view p, const head_rows *v) {                                        \
        const row_view rows = first_head(TYPE_##NAME, v);                                                             \
        const int d = v->head_width;                                                                                  \
        for (int64_t h = 0; h < v->n_heads; h++)                                                                      \
            sum_##name(out + h * d, p.at + h * p.ld, (const char *)rows.at + row_bytes(TYPE_##NAME, h * d), rows.ld,  \
                       v->n_rows, d);                                                                                 \
    }

FLOAT_DTYPES(HEADS)

/* The integers of a row, which its scales follow. */
static const int8_t *q8_0_row(const head_rows *rows, int64_t r) { return (const int8_t *)rows->at + r * rows->ld; }

static float q8_0_scale(const head_rows *rows, int64_t r, int64_t i) {
    return value_f16(q8_0_row(rows, r) + rows->n_row, (int)(i / 32));
}

static void score_heads_q8_0(out_view out, const void *q, const head_rows *k) {
    const int8_t *q_x = q;
    const float *d_x = (const float *)(const void *)(q_x + k->n_row);
    for (int64_t r = 0; r < k->n_rows; r++)
        for (int64_t h = 0; h < k->n_heads; h++) {
            const int64_t first = (k->first_head + h) * k->head_width;
            float sum = 0;
            for (int64_t i = first; i < first + k->head_width; i += 32) {
                int dot = 0;
                for (int64_t j = i; j < i + 32; j++) dot += q_x[j] * q8_0_row(k, r)[j];
                sum += (float)dot * (q8_0_scale(k, r, i) * d_x[i / 32]);
            }
            out.at[h * out.ld + r] = sum;
        }
}

static void sum_heads_q8_0(float *out, f32_view p, const head_rows *v) {
    const int64_t first = (int64_t)v->first_head * v->head_width;
    for (int64_t r = 0; r < v->n_rows; r++)
        for (int64_t i = 0; i < (int64_t)v->n_heads * v->head_width; i++) {
            const float weight = p.at[i / v->head_width * p.ld + r] * q8_0_scale(v, r, first + i);
            out[i] += weight * q8_0_row(v, r)[first + i];
        }
}

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

static void from_f32_row_q8_0(void *out, const float *x, int n) {
    int8_t *q = out;
    uint16_t *scales = (uint16_t *)(void *)(q + n);
    for (int i = 0; i < n; i += 32) {
        float d;
        quantize_group(q + i, &d, x + i);
        scales[i / 32] = f16_of_f32(d);
    }
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

static float exponentials(float *x, int n, float scale, float *x_max) {
    float max = x[0], sum = 0;
    for (int i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
    for (int i = 0; i < n; i++) sum += x[i] = expf(scale * (x[i] - max));
    *x_max = max;
    return sum;
}

static void softmax(float *x, int n, float scale) {
    float max, sum = exponentials(x, n, scale, &max);
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
    .score_heads = {KV_DTYPES(SCORE_HEADS_ENTRY)},
    .sum_heads = {KV_DTYPES(SUM_HEADS_ENTRY)},
    .weighted_sum = {FLOAT_DTYPES(WEIGHTED_SUM_ENTRY)},
    .from_f32 = {KV_DTYPES(FROM_F32_ENTRY)},
    .quantize_row = quantize_row,
    .quantize_token = quantize_token,
    .gemm_i8 = gemm_i8,
    .exponentials = exponentials,
    .softmax = softmax,
    .activation = {ACTIVATIONS(ACTIVATION_ENTRY)},
    .layer_norm = layer_norm,
};
