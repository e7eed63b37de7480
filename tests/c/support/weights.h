/* weights.h - random rows of every number type. */
#ifndef FASTGPT_WEIGHTS_H
#define FASTGPT_WEIGHTS_H

#include <stddef.h>
#include <string.h>

#include "dtypes/dtype.h"
#include "dtypes/half.h"
#include "support/random.h"

/* Where the F16 scale of a block stands. */
static inline int64_t scale_offset(dtype type) { return type == TYPE_Q6_K ? offsetof(block_q6_k, d) : 0; }

/* Whether another, of the minimum, follows it. */
static inline bool has_minimum(dtype type) {
    return type == TYPE_Q4_1 || type == TYPE_Q5_1 || type == TYPE_Q4_K || type == TYPE_Q5_K;
}

/* Row of n numbers: about in [-1, 1) for floats, any bits with finite scales for blocks. */
static inline void random_row(uint64_t *state, dtype type, uint8_t *row, int64_t n) {
    const dtype_info *format = &dtype_infos[type];
    for (int64_t i = 0; i < row_bytes(type, n); i++) row[i] = (uint8_t)random_u64(state);
    for (int64_t b = 0; b < n / format->block_values && !has_row_scales(type); b++) {
        float number = random_float(state);
        uint16_t half = type == TYPE_BF16 ? bf16_of_f32(number) : f16_of_f32(number);
        if (type == TYPE_F32) memcpy(row + 4 * b, &number, sizeof number);
        else memcpy(row + b * format->block_bytes + scale_offset(type), &half, sizeof half);
        if (has_minimum(type)) memcpy(row + b * format->block_bytes + sizeof half, &half, sizeof half);
    }
}

#endif
