/* matrix.h - what the matrix kernels on x86 share: adding a finished tile to the output. */
#ifndef FASTGPT_MATRIX_H
#define FASTGPT_MATRIX_H

#include <immintrin.h>

#include "kernels.h"

/* out[t][r] += c[r][t]; c [MATRIX_ROWS][MATRIX_TOKENS]; n_tokens and n_rows of it count.  Blocks of 4 by 4 are turned
 * over in registers. */
static inline void add_transposed(float *out, int64_t ldo, const float *c, int n_tokens, int n_rows) {
    int t = 0;
    for (; t + 4 <= n_tokens; t += 4) {
        int r = 0;
        for (; r + 4 <= n_rows; r += 4) {
            const float *from = c + r * MATRIX_TOKENS + t;
            float *to = out + t * ldo + r;
            __m128 row[4];
            for (int i = 0; i < 4; i++) row[i] = _mm_loadu_ps(from + i * MATRIX_TOKENS);
            _MM_TRANSPOSE4_PS(row[0], row[1], row[2], row[3]);
            for (int i = 0; i < 4; i++) _mm_storeu_ps(to + i * ldo, _mm_add_ps(_mm_loadu_ps(to + i * ldo), row[i]));
        }
        for (; r < n_rows; r++)
            for (int i = 0; i < 4; i++) out[(t + i) * ldo + r] += c[r * MATRIX_TOKENS + t + i];
    }
    for (; t < n_tokens; t++)
        for (int r = 0; r < n_rows; r++) out[t * ldo + r] += c[r * MATRIX_TOKENS + t];
}

#endif
