/* kv_rows.h - rows as KV caches have them: made at random, and as F32.  Of Q8_0: integers [n], then scales [n / 32]. */
#ifndef FASTGPT_KV_ROWS_H
#define FASTGPT_KV_ROWS_H

#include "kernels/kernels.h"
#include "support/weights.h"

static inline void random_kv_row(uint64_t *state, dtype type, uint8_t *row, int64_t n) {
    if (is_float(type)) {
        random_row(state, type, row, n);
        return;
    }
    for (int64_t i = 0; i < n; i++) row[i] = (uint8_t)(int8_t)((int64_t)random_below(state, 255) - 127);
    for (int64_t i = 0; i < n / 32; i++) {
        const uint16_t scale = f16_of_f32(random_float(state) / 64);
        memcpy(row + n + 2 * i, &scale, sizeof scale);
    }
}

static inline void kv_row_as_f32(dtype type, float *out, const uint8_t *row, int n) {
    if (is_float(type)) {
        kernels_portable.to_f32[type](out, row, n);
        return;
    }
    for (int i = 0; i < n; i++) {
        uint16_t scale;
        memcpy(&scale, row + n + i / 32 * 2, sizeof scale);
        out[i] = f32_of_f16(scale) * (int8_t)row[i];
    }
}

#endif
