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

/* Nothing to do: Accelerate allocates as it likes, and its threading model is set by blas_gemm, for each calling
 * thread. */
fastgpt_status blas_reserve(int n_threads) {
    (void)n_threads;
    return FASTGPT_OK;
}

void blas_release(int n_threads) { (void)n_threads; }

const char *blas_name(void) { return "Accelerate (ILP64)"; }

/* BLAS refuses a leading dimension of 0, even for a matrix without elements. */
static __LAPACK_int leading(int64_t ld) { return ld > 0 ? ld : 1; }

static void sgemm(const gemm_args *g) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, g->transpose_b ? CblasTrans : CblasNoTrans, g->m, g->n, g->k, 1.0f, g->a,
                leading(g->lda), g->b, leading(g->ldb), g->accumulate ? 1.0f : 0.0f, g->c, leading(g->ldc));
}

/* In the calling thread alone, whose threading model is restored afterwards.  Before macOS 15 there is no such switch,
 * and Accelerate may use threads of its own. */
void blas_gemm(const gemm_args *g) {
    if (__builtin_available(macOS 15.0, *)) {
        const BLAS_THREADING before = BLASGetThreading();
        BLASSetThreading(BLAS_THREADING_SINGLE_THREADED);
        sgemm(g);
        BLASSetThreading(before);
    } else {
        sgemm(g);
    }
}
