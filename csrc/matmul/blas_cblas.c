/* blas_cblas.c - blas.h on top of OpenBLAS, or of any library with the standard C interface to BLAS
 * (https://www.netlib.org/blas/#_cblas).
 *
 * FASTGPT_OPENBLAS_IS_PRIVATE: a copy of OpenBLAS that belongs to this library alone.  Its symbols begin with
 * fastgpt_ (cmake/private_openblas.cmake), while its header still has the names of the original.
 * FASTGPT_CBLAS_HEADER: the header of another library than the one that <cblas.h> is of (cmake/blas.cmake). */
#include "matmul/blas.h"

#include <stdbool.h>

#include "common/os.h"

#ifdef FASTGPT_OPENBLAS_IS_PRIVATE
#include <stdlib.h>
#include <string.h>

#include "matmul/openblas_os.h"
#define scipy_cblas_sgemm64_ fastgpt_scipy_cblas_sgemm64_
#define scipy_openblas_get_config64_ fastgpt_scipy_openblas_get_config64_
#include <cblas.h>
#define cblas_sgemm scipy_cblas_sgemm64_
#elif defined(FASTGPT_CBLAS_HEADER)
#include FASTGPT_CBLAS_HEADER
#else
#include <cblas.h>
#endif

/* The integer of the library's interface: 32 bits wide in an LP64 build, 64 in an ILP64 build. */
#if defined(OPENBLAS_VERSION)
#define LIBRARY "OpenBLAS"
typedef blasint blas_int;
#elif defined(CBLAS_INT)
#define LIBRARY "CBLAS"
typedef CBLAS_INT blas_int;
#elif defined(BLIS_H)
#define LIBRARY "BLIS"
typedef f77_int blas_int;
#else
#define LIBRARY "CBLAS"
typedef int blas_int;
#endif

/* A system's OpenBLAS may run threads of its own, and hangs when the process forks while they work; our copy has locks
 * that a child would find locked for ever.  So a fork waits for the running products, at most until their steps end,
 * and new products wait for the fork.  OpenBLAS registers its own fork handlers when it is loaded, before those of
 * os_hold_forks; so forks are held while OpenBLAS's handlers run. */

#ifdef FASTGPT_OPENBLAS_IS_PRIVATE
/* How many products may run at a time: not more than there are cores, since that is no faster; and not more than
 * OpenBLAS has buffers for.  Its table has two for each thread that it was built for, one of which it keeps for itself,
 * and it prints when the table is full. */
static int max_products(void) {
    const char *built_for = strstr(scipy_openblas_get_config64_(), "MAX_THREADS=");
    int max = built_for ? 2 * atoi(built_for + strlen("MAX_THREADS=")) - 1 : 1;
    int n_cores = os_cores().online;
    return n_cores > 0 && n_cores < max ? n_cores : max;
}

fastgpt_status blas_reserve(int n_threads) {
    os_hold_forks();
    bool reserved = fastgpt_openblas_reserve(n_threads, max_products());
    os_allow_forks();
    return reserved ? FASTGPT_OK : FASTGPT_ERR_MEMORY;
}

void blas_release(int n_threads) {
    os_hold_forks();
    fastgpt_openblas_release(n_threads);
    os_allow_forks();
}

static void begin_product(void) {
    os_hold_forks();
    fastgpt_openblas_begin();
}

static void end_product(void) {
    fastgpt_openblas_end();
    os_allow_forks();
}
#else
fastgpt_status blas_reserve(int n_threads) {
    (void)n_threads;
    return FASTGPT_OK;
}

void blas_release(int n_threads) { (void)n_threads; }

static void begin_product(void) { os_hold_forks(); }
static void end_product(void) { os_allow_forks(); }
#endif

const char *blas_name(void) { return sizeof(blas_int) == sizeof(int64_t) ? LIBRARY " (ILP64)" : LIBRARY " (LP64)"; }

static bool fits(int64_t size) { return (blas_int)size == size; }

static bool all_fit(const gemm_args *g) {
    return fits(g->m) && fits(g->n) && fits(g->k) && fits(g->lda) && fits(g->ldb) && fits(g->ldc);
}

/* CBLAS refuses a leading dimension of 0, even for a matrix without elements. */
static blas_int leading(int64_t ld) { return (blas_int)(ld > 0 ? ld : 1); }

/* For sizes that the library's integer cannot hold: slow, but correct. */
static void gemm_huge(const gemm_args *g) {
    const int64_t k_stride = g->transpose_b ? 1 : g->ldb, n_stride = g->transpose_b ? g->ldb : 1;
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            float sum = 0.0f;
            for (int64_t p = 0; p < g->k; p++) sum += g->a[i * g->lda + p] * g->b[p * k_stride + j * n_stride];
            g->c[i * g->ldc + j] = sum + (g->accumulate ? g->c[i * g->ldc + j] : 0.0f);
        }
}

static void gemm_by_library(const gemm_args *g) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, g->transpose_b ? CblasTrans : CblasNoTrans, (blas_int)g->m, (blas_int)g->n,
                (blas_int)g->k, 1.0f, g->a, leading(g->lda), g->b, leading(g->ldb), g->accumulate ? 1.0f : 0.0f, g->c,
                leading(g->ldc));
}

void blas_gemm(const gemm_args *g) {
    if (!all_fit(g)) {
        gemm_huge(g);
        return;
    }
    begin_product();
    gemm_by_library(g);
    end_product();
}
