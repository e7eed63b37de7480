/* scan_avx2.c - scan.h, compiled for AVX2. */
#include "sampler/scan.h"

scan_result scan_logits_avx2(const float *x, int32_t n) { return scan_logits(x, n); }

int32_t split_logits_avx2(candidate *row, double *rest, const float *x, int32_t n, float largest, float least,
                          float temperature) {
    return split_logits(row, rest, x, n, largest, least, temperature);
}
