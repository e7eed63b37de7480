/* heads.inl.h - one query's attention to rows of keys and values, all heads of a row one after the other, so that rows
 * are read in memory order. */
#ifndef FASTGPT_HEADS_INL_H
#define FASTGPT_HEADS_INL_H

#include "kernels/generic/blocks.inl.h"
#include "kernels/generic/dot.inl.h"
#include "kernels/kernels.h"

enum { SCORED_ROWS = 4, SUMMED_ROWS = 8, ROWS_AHEAD = 8 }; /* side by side; that are prefetched */

/* ---- Floats: the bits of dot_rows and weighted_sum ---- */

ALWAYS_INLINE row_view head_of(const dtype type, const head_rows *rows, int row, int64_t head) {
    const int64_t at = row * rows->ld + head * rows->head_width * value_bytes(type);
    return (row_view){(const char *)rows->at + at, rows->ld};
}

/* n_rows is a constant wherever this is inlined. */
ALWAYS_INLINE void score_some(const dtype type, out_view out, const float *q, const head_rows *k, int first,
                              const int n_rows) {
    const tile c = {1, n_rows, 1, false};
    for (int h = 0; h < k->n_heads; h++, q += k->head_width)
        dot_tile(type, out_from(out, h, first), (row_view){q, 0}, head_of(type, k, first, k->first_head + h), c,
                 k->head_width, ROWS_AHEAD);
}

ALWAYS_INLINE void score_heads(const dtype type, out_view out, const float *q, const head_rows *k) {
    int r = 0;
    q += k->first_head * k->head_width;
    for (; r + SCORED_ROWS <= k->n_rows; r += SCORED_ROWS) score_some(type, out, q, k, r, SCORED_ROWS);
    for (; r < k->n_rows; r++) score_some(type, out, q, k, r, 1);
}

ALWAYS_INLINE void sum_heads(const dtype type, float *out, f32_view p, const head_rows *v) {
    for (int r = 0; r < v->n_rows; r += SUMMED_ROWS) {
        const int n_rows = v->n_rows - r < SUMMED_ROWS ? v->n_rows - r : SUMMED_ROWS;
        for (int64_t h = 0; h < v->n_heads; h++)
            weighted_sum(type, out + h * v->head_width, p.at + h * p.ld + r, head_of(type, v, r, v->first_head + h),
                         n_rows, v->head_width);
    }
}

#define HEAD_KERNELS(NAME, name, block, block_values)                                 \
    static void score_heads_##name(out_view out, const void *q, const head_rows *k) { \
        score_heads(TYPE_##NAME, out, q, k);                                          \
    }                                                                                 \
    static void sum_heads_##name(float *out, f32_view p, const head_rows *v) { sum_heads(TYPE_##NAME, out, p, v); }

FLOAT_DTYPES(HEAD_KERNELS)

/* ---- Q8_0 ---- */

enum { BLOCKS_AT_ONCE = 8, MAX_RUN = 64 }; /* whose sums are reduced together; of some heads */

/* The heads of a row whose blocks are computed together. */
typedef struct head_run {
    int head, n_heads; /* from first_head on */
    int n_blocks;
    int64_t first_block; /* of the row */
} head_run;

static inline head_run next_run(const head_rows *rows, int head) {
    const int per_head = rows->head_width / GROUP, most = per_head > MAX_RUN ? 1 : MAX_RUN / per_head;
    const int n = rows->n_heads - head < most ? rows->n_heads - head : most;
    return (head_run){head, n, n * per_head, (int64_t)(rows->first_head + head) * per_head};
}

static inline const int8_t *integers_of(const head_rows *rows, int64_t row, int64_t block) {
    return (const int8_t *)rows->at + row * rows->ld + block * GROUP;
}

static inline const uint16_t *scales_of(const head_rows *rows, int64_t row, int64_t block) {
    return (const uint16_t *)(const void *)((const char *)rows->at + row * rows->ld + rows->n_row) + block;
}

ALWAYS_INLINE void prefetch_run(const head_rows *rows, int64_t row, const head_run *run) {
    const int8_t *at = integers_of(rows, row, run->first_block);
    for (int i = 0; i < run->n_blocks * GROUP; i += LINE) __builtin_prefetch(at + i, 0, PREFETCH_LEVEL);
    __builtin_prefetch(scales_of(rows, row, run->first_block), 0, PREFETCH_LEVEL);
}

/* Block i of one row by that of the other, one sum in each lane. */
ALWAYS_INLINE ivec dot_block(const int8_t *k, const int8_t *q, int i) {
    ivec sum = {0};
#pragma GCC unroll 2
    for (int p = 0; p < PARTS; p++)
        sum = dot_bytes(sum, load_part((const char *)k, i, p), load_part((const char *)q, i, p));
    return sum;
}

/* out[i] = the sum of the lanes of dots[i], exactly, times d_k[i] d_q[i] */
#if WIDTH == 8 && defined(__AVX2__)
ALWAYS_INLINE void scale_dots(float *out, const ivec *dots, const uint16_t *d_k, const float *d_q) {
    __m256i half[2];
    for (int i = 0; i < 2; i++)
        half[i] = _mm256_hadd_epi32(_mm256_hadd_epi32((__m256i)dots[4 * i], (__m256i)dots[4 * i + 1]),
                                    _mm256_hadd_epi32((__m256i)dots[4 * i + 2], (__m256i)dots[4 * i + 3]));
    const __m256i low = _mm256_permute2x128_si256(half[0], half[1], 0x20);
    const __m256i high = _mm256_permute2x128_si256(half[0], half[1], 0x31);
    const ivec sums = (ivec)_mm256_add_epi32(low, high);
    store(out, __builtin_convertvector(sums, vec) * (f16_to_f32(load_halves(d_k)) * load(d_q)));
}
#else
ALWAYS_INLINE void scale_dots(float *out, const ivec *dots, const uint16_t *d_k, const float *d_q) {
    for (int i = 0; i < BLOCKS_AT_ONCE; i++) {
        int32_t sum = 0;
        for (int lane = 0; lane < WIDTH; lane++) sum += dots[i][lane];
        out[i] = (float)sum;
    }
    for (int i = 0; i < BLOCKS_AT_ONCE; i += WIDTH)
        store(out + i, load(out + i) * (f16_to_f32(load_halves(d_k + i)) * load(d_q + i)));
}
#endif

/* out[i] = the integers of block i by those of q, times both scales, for i < BLOCKS_AT_ONCE */
ALWAYS_INLINE void score_blocks(float *out, const int8_t *k, const uint16_t *d_k, const int8_t *q, const float *d_q) {
    ivec dots[BLOCKS_AT_ONCE];
#pragma GCC unroll 8
    for (int i = 0; i < BLOCKS_AT_ONCE; i++) dots[i] = dot_block(k, q, i);
    scale_dots(out, dots, d_k, d_q);
}

/* The same for n < BLOCKS_AT_ONCE. */
ALWAYS_INLINE void score_last_blocks(float *out, const int8_t *k, const uint16_t *d_k, const int8_t *q,
                                     const float *d_q, int n) {
    ivec dots[BLOCKS_AT_ONCE] = {{0}};
    uint16_t scales[BLOCKS_AT_ONCE] = {0};
    float factors[BLOCKS_AT_ONCE] = {0}, products[BLOCKS_AT_ONCE];
    for (int i = 0; i < n; i++) dots[i] = dot_block(k, q, i), scales[i] = d_k[i], factors[i] = d_q[i];
    scale_dots(products, dots, scales, factors);
    memcpy(out, products, (size_t)n * sizeof *out);
}

/* out[i] for the blocks of a run in one row. */
ALWAYS_INLINE void score_run(float *out, const int8_t *k, const uint16_t *d_k, const int8_t *q, const float *d_q,
                             int n_blocks) {
    int b = 0;
    for (; b + BLOCKS_AT_ONCE <= n_blocks; b += BLOCKS_AT_ONCE)
        score_blocks(out + b, k + b * GROUP, d_k + b, q + b * GROUP, d_q + b);
    if (b < n_blocks) score_last_blocks(out + b, k + b * GROUP, d_k + b, q + b * GROUP, d_q + b, n_blocks - b);
}

/* to[h] = the sum of the blocks of head h */
ALWAYS_INLINE void add_blocks(float *to, int64_t ldo, const float *blocks, int n_heads, const int per_head) {
    for (int64_t h = 0; h < n_heads; h++) {
        float sum = 0;
        for (int i = 0; i < per_head; i++) sum += *blocks++;
        to[h * ldo] = sum;
    }
}

static void score_heads_q8_0(out_view out, const void *q, const head_rows *k) {
    const int8_t *q_row = q;
    const float *d_q = (const float *)(const void *)(q_row + k->n_row);
    const int per_head = k->head_width / GROUP;
    float blocks[MAX_RUN];
    for (int r = 0; r < k->n_rows; r++)
        for (int head = 0; head < k->n_heads;) {
            const head_run run = next_run(k, head);
            const int8_t *at = integers_of(k, r, run.first_block);
            prefetch_run(k, r + ROWS_AHEAD, &run);
            score_run(blocks, at, scales_of(k, r, run.first_block), q_row + run.first_block * GROUP,
                      d_q + run.first_block, run.n_blocks);
            float *to = out.at + head * out.ld + r;
            if (per_head == 2) add_blocks(to, out.ld, blocks, run.n_heads, 2);
            else add_blocks(to, out.ld, blocks, run.n_heads, per_head);
            head += run.n_heads;
        }
}

/* weights[i] = p[h][0] times the scale of block i, which is of head h */
ALWAYS_INLINE void weigh_blocks(float *weights, f32_view p, const uint16_t *d, int n_heads, const int per_head) {
    float scales[MAX_RUN];
    int i = 0;
    for (; i + WIDTH <= n_heads * per_head; i += WIDTH) store(scales + i, f16_to_f32(load_halves(d + i)));
    for (; i < n_heads * per_head; i++) scales[i] = splat_f16(d + i)[0];
    for (int h = 0; h < n_heads; h++) {
        const float weight = p.at[h * p.ld];
        for (int j = 0; j < per_head; j++) weights[h * per_head + j] = weight * scales[h * per_head + j];
    }
}

ALWAYS_INLINE void weigh_rows(float (*weights)[MAX_RUN], f32_view p, const head_rows *v, const head_run *run, int first,
                              int n_rows) {
    const int per_head = v->head_width / GROUP;
    for (int r = 0; r < n_rows; r++) {
        const f32_view of_row = {p.at + run->head * p.ld + first + r, p.ld};
        const uint16_t *d = scales_of(v, first + r, run->first_block);
        prefetch_run(v, first + r + SUMMED_ROWS, run);
        if (per_head == 2) weigh_blocks(weights[r], of_row, d, run->n_heads, 2);
        else weigh_blocks(weights[r], of_row, d, run->n_heads, per_head);
    }
}

/* out += the block of each row, times its weight; n_rows is a constant where it is SUMMED_ROWS. */
ALWAYS_INLINE void sum_block(float *out, float (*weights)[MAX_RUN], const int8_t *v, int64_t ld, const int n_rows) {
    enum { REGISTERS = GROUP / WIDTH };
    vec sum[REGISTERS];
    for (int c = 0; c < REGISTERS; c++) sum[c] = load(out + c * WIDTH);
#pragma GCC unroll 8
    for (int r = 0; r < n_rows; r++) {
        const vec weight = splat(weights[r][0]);
#pragma GCC unroll 8
        for (int c = 0; c < REGISTERS; c++) sum[c] += weight * i8_to_f32(v + r * ld + c * WIDTH);
    }
    for (int c = 0; c < REGISTERS; c++) store(out + c * WIDTH, sum[c]);
}

static void sum_heads_q8_0(float *out, f32_view p, const head_rows *v) {
    float weights[SUMMED_ROWS][MAX_RUN];
    for (int r = 0; r < v->n_rows; r += SUMMED_ROWS) {
        const int n_rows = v->n_rows - r < SUMMED_ROWS ? v->n_rows - r : SUMMED_ROWS;
        for (int head = 0; head < v->n_heads;) {
            const head_run run = next_run(v, head);
            weigh_rows(weights, p, v, &run, r, n_rows);
            float *to = out + (int64_t)head * v->head_width;
            for (int i = 0; i < run.n_blocks; i++) {
                const int8_t *at = integers_of(v, r, run.first_block + i);
                float (*column)[MAX_RUN] = (float (*)[MAX_RUN])(void *)&weights[0][i];
                if (n_rows == SUMMED_ROWS) sum_block(to + i * GROUP, column, at, v->ld, SUMMED_ROWS);
                else sum_block(to + i * GROUP, column, at, v->ld, n_rows);
            }
            head += run.n_heads;
        }
    }
}

static void from_f32_row_q8_0(void *out, const float *x, int n) {
    int8_t *q = out;
    uint16_t *scales = (uint16_t *)(void *)(q + n);
    for (int i = 0; i < n; i += GROUP) {
        float d;
        quantize_group(q + i, &d, x + i);
        scales[i / GROUP] = f16_of_f32(d);
    }
}

#endif
