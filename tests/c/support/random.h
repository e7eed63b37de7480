/* random.h - numbers that are the same in every run: SplitMix64 (Steele et al. 2014, doi 10.1145/2660193.2660195).
 * The state is any number at first. */
#ifndef FASTGPT_RANDOM_H
#define FASTGPT_RANDOM_H

#include <stdint.h>

static inline uint64_t random_u64(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

/* In [0, n). */
static inline uint64_t random_below(uint64_t *state, uint64_t n) { return random_u64(state) % n; }

/* In [-1, 1), a multiple of 2^-23. */
static inline float random_float(uint64_t *state) { return (float)(random_u64(state) >> 40) / 8388608.0f - 1.0f; }

static inline void random_fill(uint64_t *state, float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = random_float(state);
}

#endif
