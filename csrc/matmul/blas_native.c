/* blas_native.c - blas.h in plain C: no library needed, and short enough to read.
 *
 * b is packed panel by panel, BLOCK_K rows of BLOCK_N columns, into a small array that stays in L1 while every row of c
 * is updated from it.  The one hot loop, in add_rows, runs along a row of c over contiguous floats, which compilers
 * vectorize at any width; it takes four rows of the panel at a time, so that it computes more than it loads.
 *
 * Each element of c is summed in ascending k, whatever m and n are: cutting a product along m or n gives the same bits.
 */
#include "matmul/blas.h"

enum {
    ROWS = 4,     /* rows of the panel in one pass over a row of c; BLOCK_K is a multiple */
    BLOCK_K = 64,
    BLOCK_N = 128 /* the panel is 64 x 128 floats = 32 KiB */
};

fastgpt_status blas_reserve(int n_threads) {
    (void)n_threads;
    return FASTGPT_OK;
}

void blas_release(int n_threads) { (void)n_threads; }

const char *blas_name(void) { return "Native"; }

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

static void clear(float *c, int64_t ldc, int64_t m, int64_t n) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) c[i * ldc + j] = 0.0f;
}

/* panel [n_k rounded up to ROWS][BLOCK_N] = n_cols columns of op(b) from element (p, j) on; the rows that round up are
 * zero. */
static void pack_panel(float *panel, const gemm_args *g, int64_t p, int64_t n_k, int64_t j, int64_t n_cols) {
    const int64_t k_stride = g->transpose_b ? 1 : g->ldb, n_stride = g->transpose_b ? g->ldb : 1;
    const float *from = g->b + p * k_stride + j * n_stride;
    for (int64_t row = 0; row < n_k; row++)
        for (int64_t col = 0; col < n_cols; col++) panel[row * BLOCK_N + col] = from[row * k_stride + col * n_stride];
    for (int64_t row = n_k; row % ROWS != 0; row++)
        for (int64_t col = 0; col < n_cols; col++) panel[row * BLOCK_N + col] = 0.0f;
}

/* c [n_cols] += x [ROWS] panel,   panel [ROWS][BLOCK_N] */
static void add_rows(float *restrict c, const float *restrict panel, const float *x, int64_t n_cols) {
    const float x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3];
    for (int64_t j = 0; j < n_cols; j++)
        c[j] =
            c[j] + x0 * panel[j] + x1 * panel[BLOCK_N + j] + x2 * panel[2 * BLOCK_N + j] + x3 * panel[3 * BLOCK_N + j];
}

/* c [n_cols] += a panel,   a [n_k]   panel as pack_panel leaves it */
static void add_product(float *c, const float *a, const float *panel, int64_t n_k, int64_t n_cols) {
    int64_t p = 0;
    for (; p + ROWS <= n_k; p += ROWS) add_rows(c, panel + p * BLOCK_N, a + p, n_cols);
    if (p == n_k) return;
    float padded[ROWS] = {0.0f};
    for (int64_t r = 0; p + r < n_k; r++) padded[r] = a[p + r];
    add_rows(c, panel + p * BLOCK_N, padded, n_cols);
}

void blas_gemm(const gemm_args *g) {
    float panel[BLOCK_K * BLOCK_N];
    if (!g->accumulate) clear(g->c, g->ldc, g->m, g->n);
    for (int64_t p = 0; p < g->k; p += BLOCK_K)
        for (int64_t j = 0; j < g->n; j += BLOCK_N) {
            const int64_t n_k = min64(BLOCK_K, g->k - p), n_cols = min64(BLOCK_N, g->n - j);
            pack_panel(panel, g, p, n_k, j, n_cols);
            for (int64_t i = 0; i < g->m; i++)
                add_product(g->c + i * g->ldc + j, g->a + i * g->lda + p, panel, n_k, n_cols);
        }
}
