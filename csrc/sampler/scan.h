/* scan.h - one pass over the logits of a row. */
#ifndef FASTGPT_SCAN_H
#define FASTGPT_SCAN_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "common/always_inline.h"
#include "sampler/sampler.h"

typedef float eight_floats __attribute__((vector_size(32)));
typedef int32_t eight_ints __attribute__((vector_size(32)));
typedef int64_t four_words __attribute__((vector_size(32)));

enum { SCAN_BLOCK = 512 };

/* Of logits [n]: the largest, its first index, and whether none is NaN or infinity. */
typedef struct scan_result {
    float largest; /* -infinity where there is none other, and no index */
    int32_t first;
    bool possible;
} scan_result;

/* *best = the largest of x [n], n <= SCAN_BLOCK. */
ALWAYS_INLINE void scan_block(const float *x, int32_t n, float *best, bool *possible) {
    eight_floats m = {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
    eight_ints finite = {-1, -1, -1, -1, -1, -1, -1, -1};
    int32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        eight_floats v;
        memcpy(&v, x + i, sizeof v);
        const eight_ints above = v > m;
        finite &= v < INFINITY; /* NaN compares false, too */
        m = (eight_floats)(((eight_ints)v & above) | ((eight_ints)m & ~above));
    }
    for (int lane = 0; lane < 8; lane++) {
        *best = m[lane] > *best ? m[lane] : *best;
        *possible &= finite[lane] != 0;
    }
    for (; i < n; i++) {
        *best = x[i] > *best ? x[i] : *best;
        *possible &= x[i] < INFINITY;
    }
}

ALWAYS_INLINE scan_result scan_logits(const float *x, int32_t n) {
    scan_result r = {-INFINITY, 0, true};
    int32_t first = 0;
    for (int32_t i = 0; i < n; i += SCAN_BLOCK) {
        float best = -INFINITY;
        scan_block(x + i, n - i < SCAN_BLOCK ? n - i : SCAN_BLOCK, &best, &r.possible);
        if (best > r.largest) r.largest = best, first = i;
    }
    if (r.possible && r.largest > -INFINITY)
        for (r.first = first; x[r.first] != r.largest;) r.first++;
    return r;
}

/* *x = exp(*x) for *x <= 0, -87 at least, to 3e-7 of itself and of what *x is rounded by: 2^n e^r, |r| <= ln 2 / 2. */
ALWAYS_INLINE void exp_nearly(eight_floats *x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    const eight_floats lowest = {-87, -87, -87, -87, -87, -87, -87, -87};
    const eight_ints counts = *x > lowest; /* not of -infinity */
    *x = (eight_floats)(((eight_ints)*x & counts) | ((eight_ints)lowest & ~counts));
    const eight_floats shifted = *x * 1.44269504f + magic, n = shifted - magic;
    const eight_floats r = *x - n * 0.693359375f + n * 2.12194440e-4f;
    eight_floats sum = r * 1.3888889e-3f + 8.3333333e-3f;
    sum = sum * r + 4.1666667e-2f;
    sum = sum * r + 1.6666667e-1f;
    sum = sum * r + 0.5f;
    sum = sum * r * r + r + 1.0f;
    *x = sum * (eight_floats)(((eight_ints)shifted - 0x4B400000 + 127) << 23);
}

/* The candidates among eight logits that are above `least`; returns how many there are now. */
ALWAYS_INLINE int32_t keep_above(candidate *row, int32_t n_row, const eight_floats *v, const eight_ints *above,
                                 int32_t first, int32_t n) {
    const four_words any = (four_words)*above;
    if (!(any[0] | any[1] | any[2] | any[3])) return n_row;
    for (int32_t j = 0; j < 8 && j < n; j++) {
        row[n_row] = (candidate){(*v)[j], first + j};
        n_row += (*above)[j] != 0;
    }
    return n_row;
}

/* What logits are compared with. */
typedef struct split_at {
    float largest, least, inverse; /* of the temperature */
} split_at;

/* What split_logits does with eight logits from token `first` on, the first n of them. */
ALWAYS_INLINE int32_t split_eight(candidate *row, int32_t n_row, eight_floats *sums, const eight_floats *logits,
                                  int32_t first, int32_t n, const split_at *at) {
    const eight_ints above = *logits > at->least;
    n_row = keep_above(row, n_row, logits, &above, first, n);
    eight_floats v = (*logits - at->largest) * at->inverse;
    exp_nearly(&v);
    *sums += (eight_floats)((eight_ints)v & ~above);
    return n_row;
}

ALWAYS_INLINE void add_sums(double *rest, eight_floats *sums) {
    for (int lane = 0; lane < 8; lane++) *rest += (double)(*sums)[lane];
    *sums -= *sums;
}

/* The candidates above `least` in order of tokens, into row [n]; returns how many there are.
 *   rest  about the sum of exp((x - largest) / temperature) over the others: see REST_ERROR */
ALWAYS_INLINE int32_t split_logits(candidate *row, double *rest, const float *x, int32_t n, float largest, float least,
                                   float temperature) {
    const split_at at = {largest, least, 1 / temperature};
    eight_floats sums = {0}, v;
    int32_t n_row = 0, i = 0;
    *rest = 0;
    while (i + 8 <= n) {
        for (int32_t end = i + SCAN_BLOCK < n ? i + SCAN_BLOCK : n; i + 8 <= end; i += 8) {
            memcpy(&v, x + i, sizeof v);
            n_row = split_eight(row, n_row, &sums, &v, i, 8, &at);
        }
        add_sums(rest, &sums);
    }
    v = (eight_floats){-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
    memcpy(&v, x + i, (size_t)(n - i) * sizeof *x);
    n_row = split_eight(row, n_row, &sums, &v, i, n - i, &at);
    add_sums(rest, &sums);
    return n_row;
}

scan_result scan_logits_avx2(const float *x, int32_t n);
int32_t split_logits_avx2(candidate *row, double *rest, const float *x, int32_t n, float largest, float least,
                          float temperature);

#endif
