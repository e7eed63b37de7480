/* weigh.h - how likely candidates are. */
#ifndef FASTGPT_WEIGH_H
#define FASTGPT_WEIGH_H

#include "common/reproducible_math.h"
#include "sampler/sampler.h"

ALWAYS_INLINE void weigh_some(double *weights, const candidate *row, const int32_t n, double largest,
                              double temperature) {
    four_doubles x = {largest, largest, largest, largest};
    for (int32_t i = 0; i < n; i++) x[i] = (double)row[i].logit;
    x = (x - largest) / temperature;
    exp_reproducible(&x);
    memcpy(weights, &x, (size_t)n * sizeof *weights);
}

/* weights[i] = how likely row[i] is beside the largest logit, for i < n.  Vectors of any width give the same bits. */
ALWAYS_INLINE void weigh_row(double *weights, const candidate *row, int32_t n, double largest, double temperature) {
    int32_t i = 0;
    for (; i + 4 <= n; i += 4) weigh_some(weights + i, row + i, 4, largest, temperature);
    if (i < n) weigh_some(weights + i, row + i, n - i, largest, temperature);
}

void weigh_row_avx2(double *weights, const candidate *row, int32_t n, double largest, double temperature);

#endif
