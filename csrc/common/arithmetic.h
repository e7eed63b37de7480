/* arithmetic.h - sizes, units and tiles. */
#ifndef FASTGPT_ARITHMETIC_H
#define FASTGPT_ARITHMETIC_H

#include <stdint.h>

static inline int min_int(int a, int b) { return a < b ? a : b; }

static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Tiles that cover n. */
static inline int n_tiles(int64_t n, int64_t tile) { return (int)((n + tile - 1) / tile); }

/* The next multiple of unit. */
static inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

/* Floats between rows of n: an odd number of cache lines, so that a column is spread over the sets of L1 and L2. */
static inline int64_t conflict_free_stride(int64_t n) {
    enum { CACHE_LINE = 64 / sizeof(float) };
    return (n_tiles(n, CACHE_LINE) | 1) * (int64_t)CACHE_LINE;
}

#endif
