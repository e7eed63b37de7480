/* attention.h - softmax(q k^T / sqrt(n_embd / n_head)) v for each head of each span (Vaswani et al. 2017, arXiv
 * 1706.03762). */
#ifndef FASTGPT_ATTENTION_H
#define FASTGPT_ATTENTION_H

#include "engine.h"

/* The new tokens of one sequence: causal attention over its cache, whose last n_tokens rows are theirs.  Its first
 * n_prefix rows are a prefix, apart from the others, that spans may share.  Neighbouring spans with few queries each
 * read a shared prefix once, if their queries and outputs are contiguous, too. */
typedef struct attention_span {
    float *out;          /* [n_tokens][n_embd], heads side by side */
    const float *q;      /* [n_tokens][n_embd] */
    const uint8_t *keys;   /* [n_past + n_tokens - n_prefix][n_embd] of the type */
    const uint8_t *values; /* [n_past + n_tokens - n_prefix][n_embd] */
    const uint8_t *prefix_keys;   /* [n_prefix][n_embd] */
    const uint8_t *prefix_values; /* [n_prefix][n_embd] */
    int32_t n_prefix;
    dtype type;
    int32_t n_past;
    int32_t n_tokens;
    bool bf16; /* many queries may be multiplied as BF16 values */
} attention_span;

/* Bytes of a thread's scratch that attention needs. */
int64_t attention_scratch_bytes(int64_t n_ctx, int64_t n_head, int64_t head_width);

/* Floats of the scratch that the threads share. */
int64_t attention_n_scores(int64_t n_threads, int64_t n_ctx, int64_t n_head, int64_t head_width);

/* scores: attention_n_scores; n_ctx >= every n_past + n_tokens */
void op_attention(const engine *e, const attention_span *spans, int n_spans, int n_head, int n_embd, float *scores,
                  int n_ctx);

#endif
