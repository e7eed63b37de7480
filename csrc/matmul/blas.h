/* blas.h - the seam to OpenBLAS, Accelerate or plain C.  One file blas_*.c implements it, chosen at build. */
#ifndef FASTGPT_BLAS_H
#define FASTGPT_BLAS_H

#include <stdint.h>

#include "fastgpt.h"

/* Called for each context, before its first product: the memory for n_threads products at a time, where this library
 * owns the BLAS, until blas_release.  A system BLAS is left as its host set it, and allocates as it likes.  OK or
 * MEMORY. */
fastgpt_status blas_reserve(int n_threads);
void blas_release(int n_threads);

/* "OpenBLAS (ILP64)", "Accelerate", "Native" ...: static storage. */
const char *blas_name(void);

/* c = alpha a b^T + beta c
 *   a [m][k], rows lda apart   b [n][k], rows ldb apart   c [m][n], rows ldc apart */
void blas_gemm_nt(int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                  int64_t ldb, float beta, float *c, int64_t ldc);

/* c = alpha a b + beta c
 *   a [m][k], rows lda apart   b [k][n], rows ldb apart   c [m][n], rows ldc apart */
void blas_gemm_nn(int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                  int64_t ldb, float beta, float *c, int64_t ldc);

#endif
