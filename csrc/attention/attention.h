/* attention.h - softmax(q k^T / sqrt(n_embd / n_head)) v for each head of each span (Vaswani et al. 2017, arXiv
 * 1706.03762). */
#ifndef FASTGPT_ATTENTION_H
#define FASTGPT_ATTENTION_H

#include "engine.h"

/* The new tokens of one sequence: causal attention over its cache, whose last n_tokens rows are theirs.  The first
 * n_prefix rows lie apart from the others, and may be those of several spans: where such spans stand side by side, and
 * their queries too, few queries read them together. */
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
    bool bf16; /* many queries may be multiplied as BF16 numbers */
} attention_span;

/* Bytes of a thread's panel that attention needs. */
int64_t attention_panel_bytes(int64_t n_ctx, int64_t head_width);

/* Floats of the scratch for scores. */
int64_t attention_n_scores(int64_t n_threads, int64_t n_head, int64_t n_ctx);

/* n_ctx >= every n_past + n_tokens */
void op_attention(const engine *e, const attention_span *spans, int n_spans, int n_head, int n_embd, float *scores,
                  int n_ctx);

/* The weights of the values in one head of a span's token: out [n_past + token + 1].  Runs in the calling thread. */
void attention_probabilities(const engine *e, const attention_span *s, int n_head, int n_embd, int head, int token,
                             float *out);

#endif
