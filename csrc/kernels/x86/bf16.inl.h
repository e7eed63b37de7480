/* bf16.inl.h - bf16_kernels in AVX-512 BF16, but for the one loop that multiplies.  A file that includes this has
 *
 *     void begin_products(void), end_products(void)
 *     void multiply_block(float *sums, bf16_view x, const uint16_t *w, int n_tokens, int n, bool begins,
 *                         overlapped_work *work)
 *         sums = or, unless it begins, += the products of n values of the tokens of two panels and of 32 rows, a block
 *         of overlap.h.  It calls overlap_step(work) for every MATRIX_K values.
 *
 * The instruction that rounds treats denormal values as zero. */
#ifndef FASTGPT_BF16_INL_H
#define FASTGPT_BF16_INL_H

#include <math.h>
#include <string.h>

#include "common/always_inline.h"
#include "kernels/kernels.h"
#include "common/arithmetic.h"
#include "kernels/x86/matrix.h"
#include "kernels/x86/overlap.h"

_Static_assert(MATRIX_K == 32 && MATRIX_LANES == 16, "a register has 32 BF16 values, in 16 pairs");

static inline __m512i bf16_of(__m512 first, __m512 second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }

/* The first n of 32 floats as BF16, then zeros. */
static inline __m512i bf16_of_first(const float *x, int n) {
    return bf16_of(_mm512_maskz_loadu_ps(first_of_16(n), x), _mm512_maskz_loadu_ps(first_of_16(n - 16), x + 16));
}

/* ---- Rows ---- */

/* Values of a row that are unpacked at a time: whole blocks of every type. */
enum { UNPACKED = 256 };

static void f32_to_bf16(uint16_t *out, const void *row, int n) {
    for (int i = 0; i < n; i += MATRIX_K) _mm512_storeu_si512(out + i, bf16_of_first((const float *)row + i, n - i));
}

static void copy_bf16(uint16_t *out, const void *row, int n) {
    const uint16_t *values = row;
    int i = 0;
    for (; i + MATRIX_K <= n; i += MATRIX_K) _mm512_storeu_si512(out + i, _mm512_loadu_si512(values + i));
    if (i < n) _mm512_storeu_si512(out + i, _mm512_maskz_loadu_epi16((1U << (n - i)) - 1, values + i));
}

static inline __m512 scale_of(const uint16_t *d) { return _mm512_cvtph_ps(_mm256_set1_epi16((int16_t)*d)); }

static void bf16_block_q8_0(uint16_t *out, const void *at) {
    const block_q8_0 *block = at;
    const __m512 scale = scale_of(&block->d);
    __m512 part[2];
    for (int p = 0; p < 2; p++) {
        __m128i q = _mm_loadu_si128((const void *)(block->q + 16 * p));
        part[p] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)) * scale;
    }
    _mm512_storeu_si512(out, bf16_of(part[0], part[1]));
}

/* The sixteen values that a block may have are computed once, and looked up. */
static void bf16_block_q4_0(uint16_t *out, const void *at) {
    const block_q4_0 *block = at;
    const __m512 levels = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
    __m256i table = (__m256i)_mm512_cvtneps_pbh(levels * scale_of(&block->d));
    bytes split;
    split_nibbles(&split, block->q);
    _mm512_storeu_si512(out,
                        _mm512_permutexvar_epi16(_mm512_cvtepu8_epi16((__m256i)split), _mm512_castsi256_si512(table)));
}

static void q8_0_to_bf16(uint16_t *out, const void *row, int n) {
    const block_q8_0 *block = row;
    for (int i = 0; i < n; i += MATRIX_K) bf16_block_q8_0(out + i, block++);
}

static void q4_0_to_bf16(uint16_t *out, const void *row, int n) {
    const block_q4_0 *block = row;
    for (int i = 0; i < n; i += MATRIX_K) bf16_block_q4_0(out + i, block++);
}

/* Through F32, a piece at a time: for the types that have no faster way. */
ALWAYS_INLINE void to_bf16_by_f32(to_f32_kernel *to_f32, int64_t bytes_of_piece, uint16_t *out, const void *row,
                                  int n) {
    float f32[UNPACKED];
    const char *piece = row;
    for (int i = 0; i < n; i += UNPACKED, piece += bytes_of_piece) {
        int m = min_int(n - i, UNPACKED);
        to_f32(f32, piece, m);
        f32_to_bf16(out + i, f32, m);
    }
}

typedef void bf16_row(uint16_t *out, const void *row, int n);

/* A row of each type as BF16, padded with zeros to a multiple of MATRIX_K. */
#define BF16_ROW(NAME, name, block, block_values)                                                      \
    static void bf16_row_##name(uint16_t *out, const void *row, int n) {                               \
        if (TYPE_##NAME == TYPE_F32) f32_to_bf16(out, row, n);                                         \
        else if (TYPE_##NAME == TYPE_BF16) copy_bf16(out, row, n);                                     \
        else if (TYPE_##NAME == TYPE_Q8_0) q8_0_to_bf16(out, row, n);                                  \
        else if (TYPE_##NAME == TYPE_Q4_0) q4_0_to_bf16(out, row, n);                                  \
        else to_bf16_by_f32(to_f32_##name, UNPACKED / block_values * (int)sizeof(block), out, row, n); \
    }
KERNEL_DTYPES(BF16_ROW)

#define BF16_ROW_ENTRY(NAME, name, block, block_values) [TYPE_##NAME] = bf16_row_##name,
static bf16_row *const bf16_rows[N_KERNEL_DTYPES] = {KERNEL_DTYPES(BF16_ROW_ENTRY)};

/* ---- Panels and tiles ---- */

static void bf16_panel(uint16_t *panel, const float *x, int64_t ldx, int n_tokens, int n_in) {
    for (int k = 0; k < n_in; k += MATRIX_K)
        for (int t = 0; t < MATRIX_LANES; t++, panel += MATRIX_K)
            _mm512_storeu_si512(panel,
                                t < n_tokens ? bf16_of_first(x + t * ldx + k, n_in - k) : _mm512_setzero_si512());
}

/* 2^x for x <= 0: x = n + f with |f| <= 1 / 2, and a polynomial for 2^f. */
static inline __m512 power_of_2(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-200), x); /* minus infinity would make f NaN; a NaN stays one */
    const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), f = x - n;
    __m512 power = f * 0.0095701003F + 0.0559178591F;
    power = power * f + 0.2402474433F;
    power = power * f + 0.6931217909F;
    power = power * f + 0.9999992847F;
    return _mm512_scalef_ps(power, n);
}

static inline __m512 scores_of(const float *x, __mmask16 mask) {
    return _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), mask, x);
}

ALWAYS_INLINE void keep_larger(__m512 *largest, const float *x, __mmask16 mask, __mmask16 other_mask) {
    largest[0] = _mm512_max_ps(scores_of(x, mask), largest[0]);
    largest[1] = _mm512_max_ps(scores_of(x + MATRIX_LANES, other_mask), largest[1]);
}

static inline float largest_of(const float *x, int n) {
    __m512 largest[2] = {_mm512_set1_ps(-INFINITY), _mm512_set1_ps(-INFINITY)};
    int i = 0;
    for (; i + MATRIX_K <= n; i += MATRIX_K) keep_larger(largest, x + i, 0xFFFF, 0xFFFF);
    if (i < n) keep_larger(largest, x + i, first_of_16(n - i), first_of_16(n - i - MATRIX_LANES));
    return _mm512_reduce_max_ps(_mm512_max_ps(largest[0], largest[1]));
}

/* Stores the exponentials 2^((x - max) * scale) of the scores that the masks select in a row of a tile; *sum += those.
 */
ALWAYS_INLINE void store_exp(uint16_t *row, __m512 *sum, const float *x, __m512 max, __m512 scale, __mmask16 mask,
                             __mmask16 other_mask) {
    const float *other = x + MATRIX_LANES;
    const __m512 exps = _mm512_maskz_mov_ps(mask, power_of_2((scores_of(x, mask) - max) * scale));
    const __m512 other_exps = _mm512_maskz_mov_ps(other_mask, power_of_2((scores_of(other, other_mask) - max) * scale));
    *sum += exps + other_exps;
    _mm512_storeu_si512(row, bf16_of(exps, other_exps));
}

/* A token's row of each tile of its panel; returns the sum. */
static float softmax_row(uint16_t *row, const float *x, int n_visible, int n, float scale) {
    const __m512 max = _mm512_set1_ps(largest_of(x, n_visible)), scales = _mm512_set1_ps(scale * 1.4426950409F);
    __m512 sum = _mm512_setzero_ps();
    int k = 0;
    for (; k + MATRIX_K <= n_visible; k += MATRIX_K, row += TILE_VALUES)
        store_exp(row, &sum, x + k, max, scales, 0xFFFF, 0xFFFF);
    for (; k < n; k += MATRIX_K, row += TILE_VALUES)
        store_exp(row, &sum, x + k, max, scales, first_of_16(n_visible - k), first_of_16(n_visible - k - MATRIX_LANES));
    return _mm512_reduce_add_ps(sum);
}

static void bf16_softmax_panel(uint16_t *panel, float *sums, f32_view x, int n_tokens, int n_visible, int n,
                               float scale) {
    for (int t = 0; t < n_tokens; t++)
        sums[t] = softmax_row(panel + t * MATRIX_K, x.at + t * x.ld, n_visible + t, n, scale);
    for (int t = n_tokens; t < MATRIX_LANES; t++)
        for (int k = 0; k < n; k += MATRIX_K)
            _mm512_storeu_si512(panel + t * MATRIX_K + k * MATRIX_LANES, _mm512_setzero_si512());
}

/* Four pairs of values of each of four rows, four rows apart. */
ALWAYS_INLINE __m512i pairs_of_four(const char *at, int64_t ld) {
    __m512i pairs = _mm512_castsi128_si512(_mm_loadu_si128((const void *)at));
    pairs = _mm512_mask_broadcast_i32x4(pairs, 0x00F0, _mm_loadu_si128((const void *)(at + 4 * ld)));
    pairs = _mm512_mask_broadcast_i32x4(pairs, 0x0F00, _mm_loadu_si128((const void *)(at + 8 * ld)));
    return _mm512_mask_broadcast_i32x4(pairs, 0xF000, _mm_loadu_si128((const void *)(at + 12 * ld)));
}

/* MATRIX_K values of sixteen rows, which are ld bytes apart: pair p of row r becomes pair r of row p.  Half of the
 * transposition is done by the loads, which gather the quarters of a register from four rows. */
ALWAYS_INLINE void transpose_tile(uint16_t *tile, const char *at, int64_t ld) {
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++, at += sizeof(__m128i)) {
        __m512i row[4];
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) row[r] = pairs_of_four(at + r * ld, ld);
        const __m512i low = _mm512_unpacklo_epi32(row[0], row[1]), high = _mm512_unpackhi_epi32(row[0], row[1]);
        const __m512i next_low = _mm512_unpacklo_epi32(row[2], row[3]);
        const __m512i next_high = _mm512_unpackhi_epi32(row[2], row[3]);
        uint16_t *to = tile + 4 * p * MATRIX_K;
        _mm512_storeu_si512(to, _mm512_unpacklo_epi64(low, next_low));
        _mm512_storeu_si512(to + MATRIX_K, _mm512_unpackhi_epi64(low, next_low));
        _mm512_storeu_si512(to + 2 * MATRIX_K, _mm512_unpacklo_epi64(high, next_high));
        _mm512_storeu_si512(to + 3 * MATRIX_K, _mm512_unpackhi_epi64(high, next_high));
    }
}

enum { TWO_TILES = 2 * TILE_VALUES }; /* contiguous: MATRIX_K values of 32 rows */

/* n <= UNPACKED values of n_rows <= 16 rows, as every second tile. */
static void unpack_tiles(uint16_t *tiles, const char *w, int64_t ldw, dtype type, int n_rows, int n) {
    _Alignas(64) uint16_t rows[MATRIX_LANES * UNPACKED];
    for (int r = 0; r < MATRIX_LANES; r++)
        if (r < n_rows) bf16_rows[type](rows + r * UNPACKED, w + r * ldw, n);
        else memset(rows + r * UNPACKED, 0, UNPACKED * sizeof *rows);
    for (int k = 0; k < n; k += MATRIX_K, tiles += TWO_TILES)
        transpose_tile(tiles, (const char *)(rows + k), UNPACKED * sizeof *rows);
}

/* BF16 weights that are whole tiles need no unpacking. */
static void transpose_tiles(uint16_t *tiles, const char *w, int64_t ldw, int n) {
    for (int k = 0; k < n; k += MATRIX_K, tiles += TWO_TILES)
        transpose_tile(tiles, w + k * (int64_t)sizeof *tiles, ldw);
}

static void bf16_tiles(uint16_t *tiles, const void *w, int64_t ldw, dtype type, int n_rows, int n) {
    const int64_t ld = round_up(n, MATRIX_K) * MATRIX_ROWS;
    for (int r = 0; r < round_up(n_rows, MATRIX_ROWS); r += MATRIX_LANES) {
        uint16_t *at = tiles + r / MATRIX_ROWS * ld + r % MATRIX_ROWS / MATRIX_LANES * TILE_VALUES;
        const char *rows = (const char *)w + r * ldw;
        if (type == TYPE_BF16 && n % MATRIX_K == 0 && n_rows - r >= MATRIX_LANES) transpose_tiles(at, rows, ldw, n);
        else
            for (int k = 0; k < n; k += UNPACKED)
                unpack_tiles(at + k * MATRIX_ROWS, rows + row_bytes(type, k), ldw, type, n_rows - r,
                             min_int(n - k, UNPACKED));
    }
}

/* Sixteen columns of two rows, as pairs. */
static inline __m512i pairs_of_rows(const float *x, int64_t ldx, int n_rows, __mmask16 columns) {
    static const uint16_t riffle[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    __m512 first = _mm512_maskz_loadu_ps(n_rows > 0 ? columns : 0, x);
    __m512 second = _mm512_maskz_loadu_ps(n_rows > 1 ? columns : 0, x + ldx);
    return _mm512_permutexvar_epi16(_mm512_loadu_si512(riffle), bf16_of(first, second));
}

static void bf16_columns(uint16_t *tiles, int64_t ld, const float *x, int64_t ldx, int n_rows, int n) {
    for (int j = 0; j < round_up(n, MATRIX_ROWS); j += MATRIX_LANES) {
        uint16_t *tile = tiles + j / MATRIX_ROWS * ld + j % MATRIX_ROWS / MATRIX_LANES * TILE_VALUES;
        for (int i = 0; i < n_rows; i += MATRIX_K, tile += TWO_TILES)
#pragma GCC unroll 16
            for (int p = 0; p < MATRIX_K; p += 2)
                _mm512_storeu_si512(tile + p * MATRIX_LANES,
                                    pairs_of_rows(x + (i + p) * ldx + j, ldx, n_rows - i - p, first_of_16(n - j)));
    }
}

/* ---- Products ---- */

/* Sums of a token of a block, TILE_SUMS apart: of the first sixteen rows, and of the others. */
static inline const float *sums_of(const pending_store *p, int t) {
    return p->sums + t / MATRIX_LANES * 2 * TILE_SUMS + t % MATRIX_LANES * MATRIX_LANES;
}

static inline __m512 bias_of_rows(const pending_store *p, int first, __mmask16 mask) {
    return p->to->bias ? _mm512_maskz_loadu_ps(mask, p->to->bias + p->r + first) : _mm512_setzero_ps();
}

static inline void store_floats(const pending_store *p, int first, int n) {
    const bf16_output *to = p->to;
    const __mmask16 mask = first_of_16(p->n_rows), other_mask = first_of_16(p->n_rows - MATRIX_LANES);
    const __m512 bias = bias_of_rows(p, 0, mask), other_bias = bias_of_rows(p, MATRIX_LANES, other_mask);
    float *out = to->out + (p->t + first) * to->ldo + p->r;
    for (int i = 0; i < n; i++, out += to->ldo) {
        __m512 start = bias, other_start = other_bias;
        if (to->add) start += _mm512_maskz_loadu_ps(mask, out);
        if (to->add) other_start += _mm512_maskz_loadu_ps(other_mask, out + MATRIX_LANES);
        const float *sums = sums_of(p, first + i);
        _mm512_mask_storeu_ps(out, mask, start + _mm512_loadu_ps(sums));
        _mm512_mask_storeu_ps(out + MATRIX_LANES, other_mask, other_start + _mm512_loadu_ps(sums + TILE_SUMS));
    }
}

/* Rows are a multiple of MATRIX_K, or padded with zeros, which every activation leaves zero. */
static inline void store_panels(const pending_store *p, int first, int n) {
    const bf16_output *to = p->to;
    const __mmask16 mask = first_of_16(p->n_rows), other_mask = first_of_16(p->n_rows - MATRIX_LANES);
    const __m512 bias = bias_of_rows(p, 0, mask), other_bias = bias_of_rows(p, MATRIX_LANES, other_mask);
    _Alignas(64) float x[MATRIX_TOKENS * MATRIX_ROWS];
    for (int i = 0; i < n; i++) {
        const float *sums = sums_of(p, first + i);
        _mm512_store_ps(x + i * MATRIX_ROWS, bias + _mm512_maskz_loadu_ps(mask, sums));
        _mm512_store_ps(x + i * MATRIX_ROWS + MATRIX_LANES,
                        other_bias + _mm512_maskz_loadu_ps(other_mask, sums + TILE_SUMS));
    }
    to->activation(x, n * MATRIX_ROWS);
    for (int i = 0, t = p->t + first; i < n; i++, t++)
        _mm512_storeu_si512(
            to->panels + t / MATRIX_LANES * to->ld_panels + p->r * MATRIX_LANES + t % MATRIX_LANES * MATRIX_K,
            bf16_of(_mm512_load_ps(x + i * MATRIX_ROWS), _mm512_load_ps(x + i * MATRIX_ROWS + MATRIX_LANES)));
}

static void store_rows(const pending_store *p, int first, int n) {
    if (p->to->activation) store_panels(p, first, n);
    else store_floats(p, first, n);
}

/* n_steps tiles of each of the next two panels, as far as there are tokens, in so many steps. */
static panel_prefetch prefetch_panels(bf16_view x, int n_tokens, int n_steps, int in_steps) {
    const int panel_lines = n_steps * MATRIX_LANES, n_lines = min_int(n_tiles(n_tokens, MATRIX_LANES), 2) * panel_lines;
    return (panel_prefetch){.panel = (const char *)x.at,
                            .ld = x.ld * (int64_t)sizeof *x.at,
                            .panel_lines = panel_lines,
                            .n_lines = n_lines,
                            .per_step = n_tiles(n_lines, in_steps)};
}

/* Block b of rows, and the tokens from t on. */
static pending_store pending_block(const bf16_output *to, const float *sums, int t, int b, gemm_size size) {
    return (pending_store){.to = to,
                           .sums = sums,
                           .t = t,
                           .r = b * MATRIX_ROWS,
                           .n_tokens = min_int(size.n_tokens - t, MATRIX_TOKENS),
                           .n_rows = min_int(size.n_rows - b * MATRIX_ROWS, MATRIX_ROWS),
                           .per_step = n_tiles(MATRIX_TOKENS, n_tiles(size.n_in, MATRIX_K))};
}

/* The values of a call are few enough for those of 32 tokens and of 32 rows to stay in L1, so that tokens need not be
 * read again for the next rows. */
static void bf16_gemm(const bf16_output *to, float *sums, bf16_view x, bf16_view tiles, gemm_size size, bool begins,
                      bool ends) {
    _Alignas(64) float two_blocks[2][BLOCK_SUMS];
    const int n_steps = n_tiles(size.n_in, MATRIX_K), n_blocks = n_tiles(size.n_rows, MATRIX_ROWS);
    overlapped_work work = {0};
    begin_products();
    for (int t = 0, i = 0; t < size.n_tokens; t += MATRIX_TOKENS, x.at += 2 * x.ld) {
        const bf16_view next_x = {x.at + 2 * x.ld, x.ld};
        const int n_next = (int)larger(size.n_tokens - t - MATRIX_TOKENS, 0);
        work.tokens = prefetch_panels(next_x, n_next, n_steps, n_steps * n_blocks);
        for (int b = 0; b < n_blocks; b++, i++) {
            float *block = begins && ends ? two_blocks[i % 2] : sums + i * (int64_t)BLOCK_SUMS;
            multiply_block(block, x, tiles.at + b * tiles.ld, size.n_tokens - t, n_steps * MATRIX_K, begins, &work);
            store_some(&work.block, MATRIX_TOKENS);
            if (ends) work.block = pending_block(to, block, t, b, size);
        }
    }
    store_some(&work.block, MATRIX_TOKENS);
    end_products();
}

#endif
