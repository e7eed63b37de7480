/* blas_cblas.c - blas.h on top of OpenBLAS, or of any library with the standard C interface to BLAS
 * (https://www.netlib.org/blas/#_cblas).
 *
 * FASTGPT_OPENBLAS_IS_PRIVATE: a copy of OpenBLAS that belongs to this library alone.  Its symbols begin with
 * fastgpt_ (cmake/private_openblas.cmake), while its header still has the names of the original.
 * FASTGPT_CBLAS_HEADER: the header of another library than the one that <cblas.h> is of (cmake/blas.cmake). */
#include "matmul/blas.h"

#include <pthread.h>
#include <stdbool.h>

#ifdef FASTGPT_OPENBLAS_IS_PRIVATE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
 * that a child would find locked for ever.  So a fork waits for the products that run, and products wait for the fork.
 * OpenBLAS has set up its own fork handlers when it was loaded, before these: thus these hold the lock around its.  A
 * fork waits at most for the end of the steps that run. */
static pthread_rwlock_t fork_lock = PTHREAD_RWLOCK_INITIALIZER;

static void before_fork(void) { pthread_rwlock_wrlock(&fork_lock); }
static void after_fork_in_parent(void) { pthread_rwlock_unlock(&fork_lock); }

/* Unlocking is for the thread that locked, and the child's thread is another one. */
static void after_fork_in_child(void) { pthread_rwlock_init(&fork_lock, NULL); }

static void watch_forks(void) { pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child); }

static void hold_forks(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    pthread_rwlock_rdlock(&fork_lock);
}

static void let_fork(void) { pthread_rwlock_unlock(&fork_lock); }

#ifdef FASTGPT_OPENBLAS_IS_PRIVATE
/* More products at a time than there are cores are no faster.  OpenBLAS has a table of two buffers for each thread that
 * it was built for, and prints when it is full; one of them it keeps for itself. */
static int most_products(void) {
    const char *built_for = strstr(scipy_openblas_get_config64_(), "MAX_THREADS=");
    int most = built_for ? 2 * atoi(built_for + strlen("MAX_THREADS=")) - 1 : 1;
    long n_cores = sysconf(_SC_NPROCESSORS_ONLN);
    return n_cores > 0 && n_cores < most ? (int)n_cores : most;
}

fastgpt_status blas_reserve(int n_threads) {
    hold_forks();
    bool reserved = fastgpt_openblas_reserve(n_threads, most_products());
    let_fork();
    return reserved ? FASTGPT_OK : FASTGPT_ERR_MEMORY;
}

void blas_release(int n_threads) {
    hold_forks();
    fastgpt_openblas_release(n_threads);
    let_fork();
}

static void begin_product(void) {
    hold_forks();
    fastgpt_openblas_begin();
}

static void end_product(void) {
    fastgpt_openblas_end();
    let_fork();
}
#else
fastgpt_status blas_reserve(int n_threads) {
    (void)n_threads;
    return FASTGPT_OK;
}

void blas_release(int n_threads) { (void)n_threads; }

static void begin_product(void) { hold_forks(); }
static void end_product(void) { let_fork(); }
#endif

const char *blas_name(void) { return sizeof(blas_int) == sizeof(int64_t) ? LIBRARY " (ILP64)" : LIBRARY " (LP64)"; }

static bool fits(int64_t size) { return (blas_int)size == size; }

/* CBLAS refuses a leading dimension of 0, even where there is nothing to step over. */
static blas_int leading(int64_t ld) { return (blas_int)(ld > 0 ? ld : 1); }

/* c = alpha a op(b) + beta c for sizes that the library's integer cannot hold.  Slow, and never wrong.
 * Element (p, j) of op(b) is b[p * k_stride + j * n_stride]. */
static void gemm_huge(int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                      int64_t k_stride, int64_t n_stride, float beta, float *c, int64_t ldc) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            float sum = 0.0f;
            for (int64_t p = 0; p < k; p++) sum += a[i * lda + p] * b[p * k_stride + j * n_stride];
            c[i * ldc + j] = alpha * sum + (beta == 0.0f ? 0.0f : beta * c[i * ldc + j]);
        }
}

static void gemm(enum CBLAS_TRANSPOSE op_b, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
                 const float *b, int64_t ldb, float beta, float *c, int64_t ldc) {
    if (fits(m) && fits(n) && fits(k) && fits(lda) && fits(ldb) && fits(ldc)) {
        begin_product();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, op_b, (blas_int)m, (blas_int)n, (blas_int)k, alpha, a, leading(lda), b,
                    leading(ldb), beta, c, leading(ldc));
        end_product();
    } else
        gemm_huge(m, n, k, alpha, a, lda, b, op_b == CblasTrans ? 1 : ldb, op_b == CblasTrans ? ldb : 1, beta, c, ldc);
}

void blas_gemm_nt(int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                  int64_t ldb, float beta, float *c, int64_t ldc) {
    gemm(CblasTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void blas_gemm_nn(int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                  int64_t ldb, float beta, float *c, int64_t ldc) {
    gemm(CblasNoTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
