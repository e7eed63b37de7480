/* math.inl.h - softmax, activations and layer_norm. */
#ifndef FASTGPT_MATH_INL_H
#define FASTGPT_MATH_INL_H

#include "kernels/generic/vectors.inl.h"

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

static inline float larger_float(float a, float b) { return a > b ? a : b; }

static inline float largest_lane(vec v) {
    float lanes[WIDTH];
    store(lanes, v);
    for (int half = WIDTH / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] = larger_float(lanes[i + half], lanes[i]);
    return lanes[0];
}

/* Where n is no multiple of WIDTH, the last vector overlaps the one before. */
static inline float largest(const float *x, int n) {
    float result = x[0];
    if (n >= WIDTH) {
        vec best = load(x + n - WIDTH);
        for (int i = 0; i + WIDTH <= n; i += WIDTH) best = vmax(load(x + i), best);
        return largest_lane(best);
    }
    for (int i = 1; i < n; i++) result = larger_float(x[i], result);
    return result;
}

static float exponentials(float *x, int n, float scale, float *x_max) {
    const float max = *x_max = largest(x, n);
    int n_whole = n - n % WIDTH;
    vec sum = {0};
    for (int i = 0; i < n_whole; i += WIDTH) {
        vec e = vexp(scale * (load(x + i) - max));
        store(x + i, e);
        sum += e;
    }
    if (n_whole < n) {
        store_first(x + n_whole, vexp(scale * (load_first(x + n_whole, n - n_whole) - max)), n - n_whole);
        sum += load_first(x + n_whole, n - n_whole);
    }
    return sum_lanes(sum);
}

static void softmax(float *x, int n, float scale) {
    float max, share = 1 / exponentials(x, n, scale, &max);
    for (int i = 0; i < n; i++) x[i] *= share;
}

/* x / 2 * (1 + tanh u) = x / (1 + exp(-2 u)) */
static inline vec vgelu_tanh(vec x) {
    const float two_sqrt_2_over_pi = 1.5957691216f;
    vec u2 = two_sqrt_2_over_pi * (x + 0.044715f * x * x * x);
    return x / (1.0f + vexp(-u2));
}

/* x / 2 * (1 + erf(x / sqrt 2)), where 1 - erf(z) = p(t) exp(-z^2), t = 1 / (1 + 0.3275911 z), for z >= 0
 * (Abramowitz & Stegun 1964, 7.1.26: error below 1.5e-7). */
static inline vec vgelu_erf(vec x) {
    vec z = choose(x < 0.0f, -x, x) * 0.7071067812f;
    vec t = 1.0f / (1.0f + 0.3275911f * z);
    vec poly = 1.061405429f * t - 1.453152027f;
    poly = poly * t + 1.421413741f;
    poly = poly * t - 0.284496736f;
    poly = poly * t + 0.254829592f;
    vec rest = poly * t * vexp(-z * z); /* 1 - erf(z) */
    return 0.5f * x * choose(x < 0.0f, rest, 2.0f - rest);
}

static inline vec vrelu(vec x) { return choose(x < 0.0f, (vec){0}, x); }

static inline vec vsilu(vec x) { return x / (1.0f + vexp(-x)); }

/* f is a constant wherever this is inlined. */
static inline __attribute__((always_inline)) void map(float *x, int n, vec (*f)(vec)) {
    int i = 0;
    for (; i + WIDTH <= n; i += WIDTH) store(x + i, f(load(x + i)));
    if (i < n) store_first(x + i, f(load_first(x + i, n - i)), n - i);
}

static void gelu_tanh(float *x, int n) { map(x, n, vgelu_tanh); }
static void gelu_erf(float *x, int n) { map(x, n, vgelu_erf); }
static void relu(float *x, int n) { map(x, n, vrelu); }
static void silu(float *x, int n) { map(x, n, vsilu); }

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

#endif
