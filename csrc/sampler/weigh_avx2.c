/* weigh_avx2.c - weigh_row, compiled for AVX2. */
#include "sampler/weigh.h"

void weigh_row_avx2(double *weights, const candidate *row, int32_t n, double largest, double temperature) {
    weigh_row(weights, row, n, largest, temperature);
}
