/* generator.h - what the files of a generator share. */
#ifndef FASTGPT_GENERATOR_H
#define FASTGPT_GENERATOR_H

#include "fastgpt.h"
#include "generation/stop_strings.h"

struct fastgpt_generator {
    fastgpt_model *owned; /* NULL = the caller's */
    const fastgpt_model *model;
    fastgpt_pool *pool;
    fastgpt_context *ctx;
    fastgpt_kv_cache *kv;
    fastgpt_tokenizer *tokenizer;
    fastgpt_stream *stream;
    fastgpt_sampler *sampler;
    stop_finder stops;

    int32_t max_new_tokens, overflow, encode_flags, n_likeliest;
    bool log_probs;

    int32_t *tokens; /* [n_ctx] what was said, of which kv holds the first n_past */
    int32_t n_tokens;
    uint64_t *text_ends; /* [n_ctx] bytes of new text up to the end of each token of this call */
    int32_t *before;     /* [n_ctx] the tokens before this call, for a call that fails */
    int32_t n_before;
    text_buffer pending; /* text before a stop string that shares its last token with that: said, but no token yet */

    float *logits; /* [n_vocab] after the last token */
    int32_t *likeliest; /* [n_likeliest] */
    float *likeliest_log_probs;
    text_buffer shown;   /* this call's text, as the callback got it */
    uint64_t n_text;     /* bytes of all of it */
    int32_t n_generated;
    fastgpt_finish_reason finish_reason;
};

#endif
