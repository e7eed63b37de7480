/* dtype.c - see dtype.h. */
#include "dtypes/dtype.h"

#include "fastgpt.h"

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
