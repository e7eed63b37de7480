/* peak_simd.inl.h - the loops of peak.h for vectors of WIDTH floats.  An instruction set's file defines
 *
 *     WIDTH         floats in a register
 *     ACCUMULATORS  independent sums: enough to hide the latency, few enough to stay in registers
 *
 * and includes this; -ffp-contract=fast makes one instruction of a multiplication and an addition. */
#ifndef FASTGPT_PEAK_SIMD_INL_H
#define FASTGPT_PEAK_SIMD_INL_H

#include "roofline/peak.h"

typedef float peak_vec __attribute__((vector_size(WIDTH * 4)));
typedef uint64_t peak_words __attribute__((vector_size(WIDTH * 4), aligned(8)));

enum { WORDS = WIDTH / 2, STREAMS = 4, LINE = 64, LINES = STREAMS * WIDTH * 4 / LINE, AHEAD = 4096 };

/* The hardware prefetches within a page; prefetching the lines of the next one gained a tenth on Zen 4. */
static uint64_t read_words(const uint64_t *x, size_t n_bytes) {
    peak_words sum[STREAMS] = {{0}};
    for (size_t i = 0; i < n_bytes / sizeof *x; i += STREAMS * WORDS) {
        const char *later = (const char *)(x + i) + AHEAD;
#pragma GCC unroll 4
        for (int line = 0; line < LINES; line++) __builtin_prefetch(later + line * LINE, 0, 2);
#pragma GCC unroll 4
        for (int s = 0; s < STREAMS; s++) sum[s] += *(const peak_words *)(x + i + s * WORDS);
    }
    uint64_t total = 0;
    for (int s = 0; s < STREAMS; s++)
        for (int w = 0; w < WORDS; w++) total += sum[s][w];
    return total;
}

/* Values stay between 0 and 2, so that no operand becomes denormal or infinite, which may be slower. */
static float multiply_add(int n_rounds) {
    peak_vec sum[ACCUMULATORS];
    for (int i = 0; i < ACCUMULATORS; i++) sum[i] = (peak_vec){0} + (float)i / ACCUMULATORS;
    for (int round = 0; round < n_rounds; round++)
#pragma GCC unroll 16
        for (int i = 0; i < ACCUMULATORS; i++) sum[i] = sum[i] * 0.5f + 1.0f;
    float total = 0;
    for (int i = 0; i < ACCUMULATORS; i++) total += sum[i][0];
    return total;
}

#define PEAK_F32 {multiply_add, 2 * WIDTH * ACCUMULATORS, 0}

#endif
