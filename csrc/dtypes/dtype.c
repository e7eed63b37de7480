/* dtype.c - see dtype.h. */
#include "dtypes/dtype.h"

#include <assert.h>

#include "fastgpt.h"

static_assert(sizeof(block_q8_0) == 34 && sizeof(block_q4_0) == 18 && sizeof(block_q6_k) == 210, "no padding in files");
static_assert(sizeof(block_q4_1) == 20 && sizeof(block_q5_0) == 22 && sizeof(block_q5_1) == 24, "nor here");
static_assert(sizeof(block_q4_k) == 144 && sizeof(block_q5_k) == 176, "nor here");

const number_format number_formats[N_FILE_TYPES] = {
    [TYPE_F32] = {"F32", FASTGPT_TYPE_F32, 1, 4},
    [TYPE_F16] = {"F16", FASTGPT_TYPE_F16, 1, 2},
    [TYPE_BF16] = {"BF16", FASTGPT_TYPE_BF16, 1, 2},
    [TYPE_Q8_0] = {"Q8_0", FASTGPT_TYPE_Q8_0, 32, sizeof(block_q8_0)},
    [TYPE_Q4_0] = {"Q4_0", FASTGPT_TYPE_Q4_0, 32, sizeof(block_q4_0)},
    [TYPE_Q6_K] = {"Q6_K", FASTGPT_TYPE_Q6_K, 256, sizeof(block_q6_k)},
    [TYPE_Q4_1] = {"Q4_1", FASTGPT_TYPE_Q4_1, 32, sizeof(block_q4_1)},
    [TYPE_Q5_0] = {"Q5_0", FASTGPT_TYPE_Q5_0, 32, sizeof(block_q5_0)},
    [TYPE_Q5_1] = {"Q5_1", FASTGPT_TYPE_Q5_1, 32, sizeof(block_q5_1)},
    [TYPE_Q4_K] = {"Q4_K", FASTGPT_TYPE_Q4_K, 256, sizeof(block_q4_k)},
    [TYPE_Q5_K] = {"Q5_K", FASTGPT_TYPE_Q5_K, 256, sizeof(block_q5_k)},
};

bool number_type_of(uint32_t gguf_type, number_type *out) {
    for (int type = 0; type < N_FILE_TYPES; type++)
        if (number_formats[type].gguf_type == gguf_type) {
            *out = (number_type)type;
            return true;
        }
    return false;
}
