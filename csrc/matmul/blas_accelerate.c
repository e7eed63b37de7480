/* blas_accelerate.c - blas.h on top of Apple's Accelerate framework, after its documentation
 * (https://developer.apple.com/documentation/accelerate/blas).  Never run: no Mac was at hand.
 *
 * ACCELERATE_NEW_LAPACK selects the interface of macOS 13.3 and later, ACCELERATE_LAPACK_ILP64 its form with
 * 64-bit sizes (__LAPACK_int). */
#define _DARWIN_C_SOURCE /* Apple's headers need more than POSIX */
#define ACCELERATE_NEW_LAPACK
#define ACCELERATE_LAPACK_ILP64
#include "matmul/blas.h"

#include <Accelerate/Accelerate.h>

_Static_assert(sizeof(__LAPACK_int) == sizeof(int64_t), "sizes must not narrow");

/* Nothing to do: Accelerate allocates as it likes, and its threading model belongs to each calling thread, so gemm sets
 * it. */
fastgpt_status blas_reserve(int n_threads) {
    (void)n_threads;
    return FASTGPT_OK;
}

void blas_release(int n_threads) { (void)n_threads; }

const char *blas_name(void) { return "Accelerate (ILP64)"; }

/* BLAS refuses a leading dimension of 0, even where there is nothing to step over. */
static __LAPACK_int leading(int64_t ld) { return ld > 0 ? ld : 1; }

static void gemm(enum CBLAS_TRANSPOSE op_b, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
                 const float *b, int64_t ldb, float beta, float *c, int64_t ldc) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, op_b, m, n, k, alpha, a, leading(lda), b, leading(ldb), beta, c,
                leading(ldc));
}

/* The same in the calling thread alone; the caller's threading model is given back.  Before macOS 15
 * there is no such switch, and Accelerate may use threads of its own. */
static void gemm_in_this_thread(enum CBLAS_TRANSPOSE op_b, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                                int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc) {
    if (__builtin_available(macOS 15.0, *)) {
        const BLAS_THREADING callers = BLASGetThreading();
        BLASSetThreading(BLAS_THREADING_SINGLE_THREADED);
        gemm(op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
        BLASSetThreading(callers);
    } else {
        gemm(op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    }
}

void blas_gemm_nt(int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                  int64_t ldb, float beta, float *c, int64_t ldc) {
    gemm_in_this_thread(CblasTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void blas_gemm_nn(int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                  int64_t ldb, float beta, float *c, int64_t ldc) {
    gemm_in_this_thread(CblasNoTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
