/* kernels.h - the inner loops.  portable.c is the specification; simd.h is the same written once for vectors
 * of any width, and each instruction set compiles it in a file of its own.
 *
 * Reductions over k run in a fixed order that depends on the instruction set alone: never on the number of
 * rows, tokens or threads. */
#ifndef FASTGPT_KERNELS_H
#define FASTGPT_KERNELS_H

#include <stdint.h>

typedef struct kernels {
    const char *name;

    /* out[t][r] += x[t] . w[r]
     *   x [n_tokens][n_in], rows ldx apart   w [n_rows][n_in], rows ldw apart
     *   out [n_tokens][n_rows], rows ldo apart; overlaps neither */
    void (*dot_rows)(float *out, int64_t ldo, const float *x, int64_t ldx, const float *w, int64_t ldw, int n_tokens,
                     int n_rows, int n_in);

    /* out = sum over i of p[i] * v[i]
     *   p [n_rows]   v [n_rows][n], rows ldv apart   out [n] */
    void (*weighted_sum)(float *out, const float *p, const float *v, int64_t ldv, int n_rows, int n);

    /* x = exp(x - max x) / sum, in place; x [n], n >= 1.  Absolute error below 3e-7 + n 2^-24 against float64. */
    void (*softmax)(float *x, int n);

    /* x = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))), in place; x [n] (Hendrycks & Gimpel 2016,
     * arXiv 1606.08415).  Error below 2e-7 * max(1, |x|) against float64. */
    void (*gelu)(float *x, int n);

    /* out = (x - mean) / sqrt(variance + epsilon) * w + b; all [n]; out may be x (Ba et al. 2016, arXiv
     * 1607.06450) */
    void (*layer_norm)(float *out, const float *x, const float *w, const float *b, int n, float epsilon);
} kernels;

/* The kernels for this CPU, or those that the environment variable FASTGPT_ISA names; NULL when it names none
 * that this CPU and build have.  Chosen at the first call. */
const kernels *kernels_chosen(void);

/* Every set that this CPU and build can run, portable first; *n of them. */
const kernels *const *kernels_all(int *n);

extern const kernels kernels_portable;
extern const kernels kernels_avx2;
extern const kernels kernels_avx512;
extern const kernels kernels_neon;

#endif
