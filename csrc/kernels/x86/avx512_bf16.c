/* avx512_bf16.c - avx512_vnni.c with BF16 products for many tokens: a pair of a token is multiplied by 32 rows at
 * once. */
#define WIDTH 8
#define ROWS 4
#define TOKENS 4
#include "kernels/x86/x86.inl.h"

#include "kernels/x86/avx512_math.h"
#include "kernels/generic/simd.inl.h"

#include "kernels/x86/overlap.h"
#include "kernels/x86/gemm_q8.inl.h"

#include "kernels/x86/gemm_f32.inl.h"

#include "kernels/x86/stream_f32.inl.h"

enum { TOKENS_AT_ONCE = 8 };

static inline void begin_products(void) {}
static inline void end_products(void) {}

/* Some tokens and all rows of a block. */
static void add_tokens(float *sums, const uint16_t *x, const uint16_t *w, int n, bool begins) {
    enum { PAIRS = MATRIX_K / 2 };
    __m512 sum[TOKENS_AT_ONCE][2];
    for (int t = 0; t < TOKENS_AT_ONCE; t++)
        for (int i = 0; i < 2; i++)
            sum[t][i] = begins ? _mm512_setzero_ps() : _mm512_loadu_ps(sums + t * MATRIX_LANES + i * TILE_SUMS);
    for (int k = 0; k < n; k += MATRIX_K, x += TILE_VALUES, w += 2 * TILE_VALUES)
        for (int p = 0; p < PAIRS; p++) {
            const __m512bh rows[2] = {(__m512bh)_mm512_loadu_si512(w + 2 * p * MATRIX_LANES),
                                      (__m512bh)_mm512_loadu_si512(w + TILE_VALUES + 2 * p * MATRIX_LANES)};
#pragma GCC unroll 8
            for (int t = 0; t < TOKENS_AT_ONCE; t++) {
                const __m512bh pair = (__m512bh)_mm512_set1_epi32(four_bytes(x + t * MATRIX_K + 2 * p));
#pragma GCC unroll 2
                for (int i = 0; i < 2; i++) sum[t][i] = _mm512_dpbf16_ps(sum[t][i], rows[i], pair);
            }
        }
    for (int t = 0; t < TOKENS_AT_ONCE; t++)
        for (int i = 0; i < 2; i++) _mm512_storeu_ps(sums + t * MATRIX_LANES + i * TILE_SUMS, sum[t][i]);
}

static void multiply_block(float *sums, bf16_view x, const uint16_t *w, int n_tokens, int n, bool begins,
                           overlapped_work *work) {
    for (int k = 0; k < n; k += MATRIX_K) overlap_step(work);
    for (int t = 0; t < n_tokens && t < MATRIX_TOKENS; t += TOKENS_AT_ONCE) {
        const uint16_t *panel = t < MATRIX_LANES ? x.at : x.at + x.ld;
        const int row = t % MATRIX_LANES;
        add_tokens(sums + t / MATRIX_LANES * 2 * TILE_SUMS + row * MATRIX_LANES, panel + row * MATRIX_K, w, n, begins);
    }
}

#include "kernels/x86/bf16.inl.h"

static const bf16_kernels bf16 = {.panel = bf16_panel,
                                  .tiles = bf16_tiles,
                                  .columns = bf16_columns,
                                  .softmax_panel = bf16_softmax_panel,
                                  .gemm = bf16_gemm};

const kernels kernels_avx512_bf16 = KERNELS("avx512-bf16", "avx512", &bf16, gemm_q8, &float_products);
