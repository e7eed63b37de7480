/* end_tokens.h - whether a token ends a text. */
#ifndef FASTGPT_END_TOKENS_H
#define FASTGPT_END_TOKENS_H

#include <stdbool.h>

#include "fastgpt.h"

static inline bool ends_text(const fastgpt_model *model, int32_t token) {
    const int32_t *eos_tokens = fastgpt_model_eos_tokens(model);
    for (int32_t i = 0; i < fastgpt_model_n_eos_tokens(model); i++)
        if (token == eos_tokens[i]) return true;
    return false;
}

#endif
