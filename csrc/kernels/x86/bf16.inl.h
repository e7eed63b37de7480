/* bf16.inl.h - bf16_kernels in AVX-512 BF16, but for the one loop that multiplies.  A file that includes this has
 *
 *     void begin_products(void), end_products(void)
 *     void multiply_block(float *sums, const uint16_t *x, const uint16_t *second_x, const uint16_t *w,
 *                         int n_tokens, int n, bool begins, meanwhile *m)
 *         sums = or, unless it begins, += the products of n numbers of the tokens of two panels and of 32 rows,
 *         a block of overlap.h.  It calls do_some(m) for every MATRIX_K numbers.
 *
 * The instruction that rounds takes denormal numbers for zero. */
#ifndef FASTGPT_BF16_INL_H
#define FASTGPT_BF16_INL_H

#include <math.h>
#include <string.h>

#include "common/always_inline.h"
#include "kernels/kernels.h"
#include "common/arithmetic.h"
#include "kernels/x86/matrix.h"
#include "kernels/x86/overlap.h"

_Static_assert(MATRIX_K == 32 && MATRIX_LANES == 16, "a register of BF16 numbers has 32 of them, in 16 pairs");

static inline __m512i bf16_of(__m512 first, __m512 second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }

/* The first n of 32 floats as BF16 numbers, then zeros. */
static inline __m512i bf16_of_first(const float *x, int n) {
    return bf16_of(_mm512_maskz_loadu_ps(first_of_16(n), x), _mm512_maskz_loadu_ps(first_of_16(n - 16), x + 16));
}

/* ---- Rows ---- */

/* Numbers of a row that are unpacked at a time: whole blocks of every type. */
enum { UNPACKED = 256 };

static void bf16_row_f32(uint16_t *out, const void *row, int n) {
    for (int i = 0; i < n; i += MATRIX_K) _mm512_storeu_si512(out + i, bf16_of_first((const float *)row + i, n - i));
}

/* Through F32, a piece at a time. */
ALWAYS_INLINE void bf16_row_of(to_f32_kernel *to_f32, int64_t bytes_of_piece, uint16_t *out, const void *row, int n) {
    float wide[UNPACKED];
    const char *piece = row;
    for (int i = 0; i < n; i += UNPACKED, piece += bytes_of_piece) {
        int m = min_int(n - i, UNPACKED);
        to_f32(wide, piece, m);
        bf16_row_f32(out + i, wide, m);
    }
}

static void bf16_row_f16(uint16_t *out, const void *row, int n) {
    bf16_row_of(to_f32_f16, UNPACKED * sizeof(uint16_t), out, row, n);
}

static void bf16_row_q6_k(uint16_t *out, const void *row, int n) {
    bf16_row_of(to_f32_q6_k, sizeof(block_q6_k), out, row, n);
}

static void bf16_row_bf16(uint16_t *out, const void *row, int n) {
    const uint16_t *numbers = row;
    int i = 0;
    for (; i + MATRIX_K <= n; i += MATRIX_K) _mm512_storeu_si512(out + i, _mm512_loadu_si512(numbers + i));
    if (i < n) _mm512_storeu_si512(out + i, _mm512_maskz_loadu_epi16((1U << (n - i)) - 1, numbers + i));
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

/* The sixteen numbers that a block may have are made once, and looked up. */
static void bf16_block_q4_0(uint16_t *out, const void *at) {
    const block_q4_0 *block = at;
    const __m512 levels = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
    __m256i table = (__m256i)_mm512_cvtneps_pbh(levels * scale_of(&block->d));
    bytes split;
    split_nibbles(&split, block->q);
    _mm512_storeu_si512(out,
                        _mm512_permutexvar_epi16(_mm512_cvtepu8_epi16((__m256i)split), _mm512_castsi256_si512(table)));
}

static void bf16_row_q8_0(uint16_t *out, const void *row, int n) {
    const block_q8_0 *block = row;
    for (int i = 0; i < n; i += MATRIX_K) bf16_block_q8_0(out + i, block++);
}

static void bf16_row_q4_0(uint16_t *out, const void *row, int n) {
    const block_q4_0 *block = row;
    for (int i = 0; i < n; i += MATRIX_K) bf16_block_q4_0(out + i, block++);
}

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

/* 2^((x - max) * scale) of the scores that the masks tell, into a row of a tile; *sum += those. */
ALWAYS_INLINE void put_powers(uint16_t *row, __m512 *sum, const float *x, __m512 max, __m512 scale, __mmask16 mask,
                              __mmask16 other_mask) {
    const float *other = x + MATRIX_LANES;
    const __m512 powers = _mm512_maskz_mov_ps(mask, power_of_2((scores_of(x, mask) - max) * scale));
    const __m512 others = _mm512_maskz_mov_ps(other_mask, power_of_2((scores_of(other, other_mask) - max) * scale));
    *sum += powers + others;
    _mm512_storeu_si512(row, bf16_of(powers, others));
}

/* A token's row of each tile of its panel; returns the sum. */
static float softmax_row(uint16_t *row, const float *x, int n_seen, int n, float scale) {
    const __m512 max = _mm512_set1_ps(largest_of(x, n_seen)), scales = _mm512_set1_ps(scale * 1.4426950409F);
    __m512 sum = _mm512_setzero_ps();
    int k = 0;
    for (; k + MATRIX_K <= n_seen; k += MATRIX_K, row += TILE_NUMBERS)
        put_powers(row, &sum, x + k, max, scales, 0xFFFF, 0xFFFF);
    for (; k < n; k += MATRIX_K, row += TILE_NUMBERS)
        put_powers(row, &sum, x + k, max, scales, first_of_16(n_seen - k), first_of_16(n_seen - k - MATRIX_LANES));
    return _mm512_reduce_add_ps(sum);
}

static void bf16_softmax_panel(uint16_t *panel, float *sums, const float *x, int64_t ldx, int n_tokens, int n_seen,
                               int n, float scale) {
    for (int t = 0; t < n_tokens; t++) sums[t] = softmax_row(panel + t * MATRIX_K, x + t * ldx, n_seen + t, n, scale);
    for (int t = n_tokens; t < MATRIX_LANES; t++)
        for (int k = 0; k < n; k += MATRIX_K)
            _mm512_storeu_si512(panel + t * MATRIX_K + k * MATRIX_LANES, _mm512_setzero_si512());
}

/* Four pairs of numbers of each of four rows, four rows apart. */
ALWAYS_INLINE __m512i pairs_of_four(const char *at, int64_t ld) {
    __m512i pairs = _mm512_castsi128_si512(_mm_loadu_si128((const void *)at));
    pairs = _mm512_mask_broadcast_i32x4(pairs, 0x00F0, _mm_loadu_si128((const void *)(at + 4 * ld)));
    pairs = _mm512_mask_broadcast_i32x4(pairs, 0x0F00, _mm_loadu_si128((const void *)(at + 8 * ld)));
    return _mm512_mask_broadcast_i32x4(pairs, 0xF000, _mm_loadu_si128((const void *)(at + 12 * ld)));
}

/* MATRIX_K numbers of sixteen rows, which are ld bytes apart: pair p of row r becomes pair r of row p.  Much of the way
 * is done by where quarters of a register are loaded from. */
ALWAYS_INLINE void turn_tile(uint16_t *tile, const char *at, int64_t ld) {
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

enum { TWO_TILES = 2 * TILE_NUMBERS }; /* behind each other: MATRIX_K numbers of 32 rows */

typedef void bf16_row(uint16_t *out, const void *row, int n);

#define BF16_ROW_ENTRY(NAME, name, block, block_values) [TYPE_##NAME] = bf16_row_##name,
static bf16_row *const bf16_rows[N_KERNEL_DTYPES] = {KERNEL_DTYPES(BF16_ROW_ENTRY)};

/* n <= UNPACKED numbers of n_rows <= 16 rows, as every second tile. */
static void unpack_tiles(uint16_t *tiles, const char *w, int64_t ldw, dtype type, int n_rows, int n) {
    _Alignas(64) uint16_t rows[MATRIX_LANES * UNPACKED];
    for (int r = 0; r < MATRIX_LANES; r++)
        if (r < n_rows) bf16_rows[type](rows + r * UNPACKED, w + r * ldw, n);
        else memset(rows + r * UNPACKED, 0, UNPACKED * sizeof *rows);
    for (int k = 0; k < n; k += MATRIX_K, tiles += TWO_TILES)
        turn_tile(tiles, (const char *)(rows + k), UNPACKED * sizeof *rows);
}

/* BF16 numbers need no unpacking where they are whole tiles. */
static void turn_tiles(uint16_t *tiles, const char *w, int64_t ldw, int n) {
    for (int k = 0; k < n; k += MATRIX_K, tiles += TWO_TILES) turn_tile(tiles, w + k * (int64_t)sizeof *tiles, ldw);
}

static void bf16_tiles(uint16_t *tiles, const void *w, int64_t ldw, dtype type, int n_rows, int n) {
    const int64_t ld = round_up(n, MATRIX_K) * MATRIX_ROWS;
    for (int r = 0; r < round_up(n_rows, MATRIX_ROWS); r += MATRIX_LANES) {
        uint16_t *at = tiles + r / MATRIX_ROWS * ld + r % MATRIX_ROWS / MATRIX_LANES * TILE_NUMBERS;
        const char *rows = (const char *)w + r * ldw;
        if (type == TYPE_BF16 && n % MATRIX_K == 0 && n_rows - r >= MATRIX_LANES) turn_tiles(at, rows, ldw, n);
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
        uint16_t *tile = tiles + j / MATRIX_ROWS * ld + j % MATRIX_ROWS / MATRIX_LANES * TILE_NUMBERS;
        for (int i = 0; i < n_rows; i += MATRIX_K, tile += TWO_TILES)
#pragma GCC unroll 16
            for (int p = 0; p < MATRIX_K; p += 2)
                _mm512_storeu_si512(tile + p * MATRIX_LANES,
                                    pairs_of_rows(x + (i + p) * ldx + j, ldx, n_rows - i - p, first_of_16(n - j)));
    }
}

/* ---- Products ---- */

/* Sums of a token of a block, TILE_SUMS apart: of the first sixteen rows, and of the others. */
static inline const float *sums_of(const finished *f, int t) {
    return f->sums + t / MATRIX_LANES * 2 * TILE_SUMS + t % MATRIX_LANES * MATRIX_LANES;
}

static inline __m512 bias_of_rows(const finished *f, int first, __mmask16 mask) {
    return f->to->bias ? _mm512_maskz_loadu_ps(mask, f->to->bias + f->r + first) : _mm512_setzero_ps();
}

static inline void put_floats(const finished *f, int first, int n) {
    const bf16_output *to = f->to;
    const __mmask16 mask = first_of_16(f->n_rows), other_mask = first_of_16(f->n_rows - MATRIX_LANES);
    const __m512 bias = bias_of_rows(f, 0, mask), other_bias = bias_of_rows(f, MATRIX_LANES, other_mask);
    float *out = to->out + (f->t + first) * to->ldo + f->r;
    for (int i = 0; i < n; i++, out += to->ldo) {
        __m512 start = bias, other_start = other_bias;
        if (to->add) start += _mm512_maskz_loadu_ps(mask, out);
        if (to->add) other_start += _mm512_maskz_loadu_ps(other_mask, out + MATRIX_LANES);
        const float *sums = sums_of(f, first + i);
        _mm512_mask_storeu_ps(out, mask, start + _mm512_loadu_ps(sums));
        _mm512_mask_storeu_ps(out + MATRIX_LANES, other_mask, other_start + _mm512_loadu_ps(sums + TILE_SUMS));
    }
}

/* Rows are a multiple of MATRIX_K, or the rest is filled up with zeros: no activation makes anything else of them. */
static inline void put_panels(const finished *f, int first, int n) {
    const bf16_output *to = f->to;
    const __mmask16 mask = first_of_16(f->n_rows), other_mask = first_of_16(f->n_rows - MATRIX_LANES);
    const __m512 bias = bias_of_rows(f, 0, mask), other_bias = bias_of_rows(f, MATRIX_LANES, other_mask);
    _Alignas(64) float x[MATRIX_TOKENS * MATRIX_ROWS];
    for (int i = 0; i < n; i++) {
        const float *sums = sums_of(f, first + i);
        _mm512_store_ps(x + i * MATRIX_ROWS, bias + _mm512_maskz_loadu_ps(mask, sums));
        _mm512_store_ps(x + i * MATRIX_ROWS + MATRIX_LANES,
                        other_bias + _mm512_maskz_loadu_ps(other_mask, sums + TILE_SUMS));
    }
    to->activation(x, n * MATRIX_ROWS);
    for (int i = 0, t = f->t + first; i < n; i++, t++)
        _mm512_storeu_si512(
            to->panels + t / MATRIX_LANES * to->ld_panels + f->r * MATRIX_LANES + t % MATRIX_LANES * MATRIX_K,
            bf16_of(_mm512_load_ps(x + i * MATRIX_ROWS), _mm512_load_ps(x + i * MATRIX_ROWS + MATRIX_LANES)));
}

static void put_rows(const finished *f, int first, int n) {
    if (f->to->activation) put_panels(f, first, n);
    else put_floats(f, first, n);
}

/* n_steps tiles of each panel, where there are tokens, in so many steps. */
static fetching fetch_panels(const uint16_t *x, int64_t ldx, int n_tokens, int n_steps, int in_steps) {
    const int panel_lines = n_steps * MATRIX_LANES, n_lines = min_int(n_tiles(n_tokens, MATRIX_LANES), 2) * panel_lines;
    return (fetching){.panel = (const char *)x,
                      .ld = ldx * (int64_t)sizeof *x,
                      .panel_lines = panel_lines,
                      .n_lines = n_lines,
                      .per_step = n_tiles(n_lines, in_steps)};
}

/* So many of the numbers of 32 tokens and of 32 rows at a time stay in the first cache that the tokens need not be read
 * again for the next rows. */
static void bf16_product(const bf16_output *to, float *sums, const uint16_t *x, int64_t ldx, const uint16_t *tiles,
                         int64_t ld_tiles, int n_tokens, int n_rows, int n, bool begins, bool ends) {
    _Alignas(64) float two_blocks[2][BLOCK_SUMS];
    const int n_steps = n_tiles(n, MATRIX_K), n_blocks = n_tiles(n_rows, MATRIX_ROWS);
    meanwhile m = {0};
    begin_products();
    for (int t = 0, i = 0; t < n_tokens; t += MATRIX_TOKENS, x += 2 * ldx) {
        const int n_behind = (int)larger(n_tokens - t - MATRIX_TOKENS, 0);
        m.tokens = fetch_panels(x + 2 * ldx, ldx, n_behind, n_steps, n_steps * n_blocks);
        for (int b = 0; b < n_blocks; b++, i++) {
            float *block = begins && ends ? two_blocks[i % 2] : sums + i * (int64_t)BLOCK_SUMS;
            multiply_block(block, x, x + ldx, tiles + b * ld_tiles, n_tokens - t, n_steps * MATRIX_K, begins, &m);
            put_some(&m.block, MATRIX_TOKENS);
            if (!ends) continue;
            m.block = (finished){.to = to,
                                 .sums = block,
                                 .t = t,
                                 .r = b * MATRIX_ROWS,
                                 .n_tokens = min_int(n_tokens - t, MATRIX_TOKENS),
                                 .n_rows = min_int(n_rows - b * MATRIX_ROWS, MATRIX_ROWS),
                                 .per_step = n_tiles(MATRIX_TOKENS, n_steps)};
        }
    }
    put_some(&m.block, MATRIX_TOKENS);
    end_products();
}

#endif
