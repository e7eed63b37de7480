/* rows.h - rows of floats as F32 and back: plain loops that every file of kernels compiles for its instruction set. */
#include <string.h>

#include "half.h"
#include "kernels.h"

static void widen_row_f32(float *out, const void *row, int n) { memcpy(out, row, (size_t)n * sizeof(float)); }

static void widen_row_f16(float *out, const void *row, int n) {
    const uint16_t *h = row;
    for (int i = 0; i < n; i++) out[i] = f32_of_f16(h[i]);
}

static void widen_row_bf16(float *out, const void *row, int n) {
    const uint16_t *h = row;
    for (int i = 0; i < n; i++) out[i] = f32_of_bf16(h[i]);
}

static void narrow_row_f32(void *out, const float *x, int n) { memcpy(out, x, (size_t)n * sizeof(float)); }

static void narrow_row_f16(void *out, const float *x, int n) {
    uint16_t *h = out;
    for (int i = 0; i < n; i++) h[i] = f16_of_f32(x[i]);
}

static void narrow_row_bf16(void *out, const float *x, int n) {
    uint16_t *h = out;
    for (int i = 0; i < n; i++) h[i] = bf16_of_f32(x[i]);
}
