/* dtype.c - see dtype.h. */
#include "dtypes/dtype.h"

#include <assert.h>

#include "fastgpt.h"

static_assert(sizeof(block_q8_0) == 34 && sizeof(block_q4_0) == 18 && sizeof(block_q6_k) == 210,
              "files have no padding");
static_assert(sizeof(block_q4_1) == 20 && sizeof(block_q5_0) == 22 && sizeof(block_q5_1) == 24,
              "files have no padding");
static_assert(sizeof(block_q4_k) == 144 && sizeof(block_q5_k) == 176, "files have no padding");

#define INFO(NAME, name, block, block_values) [TYPE_##NAME] = {#NAME, FASTGPT_TYPE_##NAME, block_values, sizeof(block)},
const dtype_info dtype_infos[N_DTYPES] = {ALL_DTYPES(INFO)};

bool dtype_of_gguf(uint32_t gguf_type, dtype *out) {
    for (dtype type = 0; type < N_DTYPES; type++)
        if (dtype_infos[type].gguf_type == gguf_type) {
            *out = type;
            return true;
        }
    return false;
}
