/* portable.c - the specification: plain loops in the order of the formulas. */
#include "kernels.h"

#include <math.h>

static void dot_rows(float *out, int64_t ldo, const float *x, int64_t ldx, const float *w, int64_t ldw, int n_tokens,
                     int n_rows, int n_in) {
    for (int r = 0; r < n_rows; r++) {
        for (int t = 0; t < n_tokens; t++) {
            float sum = 0;
            for (int k = 0; k < n_in; k++) sum += x[t * ldx + k] * w[r * ldw + k];
            out[t * ldo + r] += sum;
        }
    }
}

static void weighted_sum(float *out, const float *p, const float *v, int64_t ldv, int n_rows, int n) {
    for (int j = 0; j < n; j++) out[j] = 0;
    for (int i = 0; i < n_rows; i++)
        for (int j = 0; j < n; j++) out[j] += p[i] * v[i * ldv + j];
}

static void softmax(float *x, int n) {
    float max = x[0], sum = 0;
    for (int i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
    for (int i = 0; i < n; i++) sum += x[i] = expf(x[i] - max);
    for (int i = 0; i < n; i++) x[i] /= sum;
}

static void gelu(float *x, int n) {
    const float sqrt_2_over_pi = 0.7978845608f;
    for (int i = 0; i < n; i++) {
        float u = sqrt_2_over_pi * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
        x[i] = 0.5f * x[i] * (1 + tanhf(u));
    }
}

static void layer_norm(float *out, const float *x, const float *w, const float *b, int n, float epsilon) {
    float mean = 0, variance = 0;
    for (int i = 0; i < n; i++) mean += x[i] / (float)n;
    for (int i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean) / (float)n;
    float scale = 1 / sqrtf(variance + epsilon);
    for (int i = 0; i < n; i++) out[i] = (x[i] - mean) * scale * w[i] + b[i];
}

const kernels kernels_portable = {"portable", dot_rows, weighted_sum, softmax, gelu, layer_norm};
