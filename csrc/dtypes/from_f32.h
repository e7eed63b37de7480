/* from_f32.h - rows of F32 as rows of each float type: plain loops that every file of kernels compiles for its
 * instruction set. */
#ifndef FASTGPT_FROM_F32_H
#define FASTGPT_FROM_F32_H

#include <string.h>

#include "dtypes/half.h"

static void from_f32_row_f32(void *out, const float *x, int n) { memcpy(out, x, (size_t)n * sizeof(float)); }

static void from_f32_row_f16(void *out, const float *x, int n) {
    uint16_t *h = out;
    for (int i = 0; i < n; i++) h[i] = f16_of_f32(x[i]);
}

static void from_f32_row_bf16(void *out, const float *x, int n) {
    uint16_t *h = out;
    for (int i = 0; i < n; i++) h[i] = bf16_of_f32(x[i]);
}

#endif
