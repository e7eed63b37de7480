/* blas_native.c - blas.h in plain C: no library needed, and short enough to read.
 *
 * b is copied panel by panel, BLOCK_K rows of BLOCK_N columns, into a small array that stays in the
 * first-level cache while every row of c takes its share from it.  The one hot loop, in add_rows, runs
 * along a row of c over contiguous floats, which compilers turn into vector instructions of any width;
 * four rows of the panel at a time, so that it computes more than it loads.
 *
 * Each element of c is summed in ascending k, whatever m and n are: a product that is cut into several
 * along m or n gives the same bits. */
#include "matmul/blas.h"

enum {
    ROWS = 4,     /* rows of the panel in one pass over a row of c; BLOCK_K is a multiple */
    BLOCK_K = 64,
    BLOCK_N = 128 /* the panel is 64 x 128 floats = 32 KiB */
};

/* op(b) [k][n], whichever way it is stored: element (p, j) is data[p * k_stride + j * n_stride]. */
typedef struct {
    const float *data;
    int64_t k_stride, n_stride;
} operand;

fastgpt_status blas_reserve(int n_threads) {
    (void)n_threads;
    return FASTGPT_OK;
}

void blas_release(int n_threads) { (void)n_threads; }

const char *blas_name(void) { return "Native"; }

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

/* c [m][n] *= beta.  A beta of 0 overwrites whatever c holds, NaN too. */
static void scale(float *c, int64_t ldc, float beta, int64_t m, int64_t n) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) c[i * ldc + j] = beta == 0.0f ? 0.0f : beta * c[i * ldc + j];
}

/* panel [n_k rounded up to ROWS][BLOCK_N] = n_cols columns of op(b) from element (p, j) on; the rows that
 * round up are zero. */
static void pack_panel(float *panel, operand b, int64_t p, int64_t n_k, int64_t j, int64_t n_cols) {
    const float *from = b.data + p * b.k_stride + j * b.n_stride;
    for (int64_t row = 0; row < n_k; row++)
        for (int64_t col = 0; col < n_cols; col++)
            panel[row * BLOCK_N + col] = from[row * b.k_stride + col * b.n_stride];
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

/* c [n_cols] += alpha a panel,   a [n_k]   panel as pack_panel leaves it */
static void add_product(float *c, float alpha, const float *a, const float *panel, int64_t n_k, int64_t n_cols) {
    for (int64_t p = 0; p < n_k; p += ROWS) {
        float x[ROWS] = {0.0f};
        for (int64_t r = 0; r < min64(ROWS, n_k - p); r++) x[r] = alpha * a[p + r];
        add_rows(c, panel + p * BLOCK_N, x, n_cols);
    }
}

/* c [m][n] = alpha a op(b) + beta c */
static void gemm(int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, operand b, float beta,
                 float *c, int64_t ldc) {
    float panel[BLOCK_K * BLOCK_N];
    scale(c, ldc, beta, m, n);
    if (alpha == 0.0f) return; /* as in any BLAS: a and b are then not looked at */
    for (int64_t p = 0; p < k; p += BLOCK_K)
        for (int64_t j = 0; j < n; j += BLOCK_N) {
            const int64_t n_k = min64(BLOCK_K, k - p), n_cols = min64(BLOCK_N, n - j);
            pack_panel(panel, b, p, n_k, j, n_cols);
            for (int64_t i = 0; i < m; i++) add_product(c + i * ldc + j, alpha, a + i * lda + p, panel, n_k, n_cols);
        }
}

void blas_gemm_nt(int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                  int64_t ldb, float beta, float *c, int64_t ldc) {
    const operand b_transposed = {.data = b, .k_stride = 1, .n_stride = ldb};
    gemm(m, n, k, alpha, a, lda, b_transposed, beta, c, ldc);
}

void blas_gemm_nn(int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                  int64_t ldb, float beta, float *c, int64_t ldc) {
    const operand b_as_stored = {.data = b, .k_stride = ldb, .n_stride = 1};
    gemm(m, n, k, alpha, a, lda, b_as_stored, beta, c, ldc);
}
