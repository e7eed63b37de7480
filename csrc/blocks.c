/* blocks.c - see blocks.h. */
#include "blocks.h"

#include <assert.h>

static_assert(sizeof(block_q8_0) == 34 && sizeof(block_q4_0) == 18 && sizeof(block_q6_k) == 210, "no padding in files");

const number_format number_formats[N_NUMBER_TYPES] = {
    [TYPE_F32] = {"F32", 0, 1, 4},
    [TYPE_F16] = {"F16", 1, 1, 2},
    [TYPE_BF16] = {"BF16", 30, 1, 2},
    [TYPE_Q8_0] = {"Q8_0", 8, 32, sizeof(block_q8_0)},
    [TYPE_Q4_0] = {"Q4_0", 2, 32, sizeof(block_q4_0)},
    [TYPE_Q6_K] = {"Q6_K", 14, 256, sizeof(block_q6_k)},
};
