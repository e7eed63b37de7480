/* blas.h - the seam to OpenBLAS, Accelerate or plain C.  One file blas_*.c implements it, chosen at build. */
#ifndef FASTGPT_BLAS_H
#define FASTGPT_BLAS_H

#include <stdbool.h>
#include <stdint.h>

#include "fastgpt.h"

/* Called for each context, before its first product.  Where this library owns the BLAS, this reserves the memory of
 * n_threads products at a time, until blas_release; a system BLAS allocates as it likes.  OK or MEMORY. */
fastgpt_status blas_reserve(int n_threads);
void blas_release(int n_threads);

/* "OpenBLAS (ILP64)", "Accelerate", "Native" ...: static storage. */
const char *blas_name(void);

/* c = a op(b), or with accumulate c += a op(b); op(b) is b, or b^T with transpose_b
 *   a [m][k], rows lda apart   op(b) [k][n], rows of b ldb apart   c [m][n], rows ldc apart */
typedef struct gemm_args {
    int64_t m, n, k;
    const float *a;
    int64_t lda;
    const float *b; /* [k][n], or [n][k] with transpose_b */
    int64_t ldb;
    float *c; /* without accumulate it is overwritten, whatever it holds */
    int64_t ldc;
    bool transpose_b, accumulate;
} gemm_args;

void blas_gemm(const gemm_args *g);

#endif
