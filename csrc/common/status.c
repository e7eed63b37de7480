/* status.c - what a status code means, and the text of an error. */
#include "common/status.h"

#include <stdarg.h>
#include <stdio.h>

const char *fastgpt_status_text(fastgpt_status status) {
    switch (status) {
    case FASTGPT_OK:                 return "no error";
    case FASTGPT_ERR_ARGUMENT:       return "an argument is missing or outside its range";
    case FASTGPT_ERR_MEMORY:         return "not enough memory";
    case FASTGPT_ERR_IO:             return "the file cannot be read or written";
    case FASTGPT_ERR_FORMAT:         return "the file is damaged or not a GGUF file";
    case FASTGPT_ERR_UNSUPPORTED:    return "the file asks for something that is not implemented";
    case FASTGPT_ERR_N_TOKENS:       return "a span needs at least one token";
    case FASTGPT_ERR_TOKEN_RANGE:    return "a token is outside [0, n_vocab)";
    case FASTGPT_ERR_CONTEXT_FULL:   return "the tokens do not fit into the n_ctx positions of the KV cache";
    case FASTGPT_ERR_CACHE_MISMATCH: return "the KV cache was made for another model";
    case FASTGPT_ERR_CACHE_TWICE:    return "two spans of a step share one KV cache";
    case FASTGPT_ERR_CANCELLED:      return "the step was cancelled";
    case FASTGPT_ERR_LOGITS:         return "the logits hold NaN or +infinity, or every token is banned";
    case FASTGPT_ERR_THREADS:        return "the system refused to start a thread; one thread alone needs none started";
    case FASTGPT_ERR_CAPACITY:       return "an array of the caller is too small";
    case FASTGPT_ERR_NO_TOKEN:       return "the vocabulary lacks the token of a byte of the text";
    case FASTGPT_ERR_NUMBERS:        return "a number is NaN or infinite, or too large for the type";
    }
    return "unknown status";
}

fastgpt_status fail(fastgpt_error *error, fastgpt_status status, const char *format, ...) {
    if (error) {
        va_list args;
        va_start(args, format);
        vsnprintf(error->text, sizeof error->text, format, args);
        va_end(args);
    }
    return status;
}
