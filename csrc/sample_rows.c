/* sample_rows.c - logits -> tokens for a batch: a row is a unit of work of the pool. */
#include "pool.h"

typedef struct draws {
    fastgpt_sampler *const *samplers;
    const float *logits;
    int32_t *tokens;
    int64_t n_vocab;
} draws;

static void draw_row(void *arg, int row, int thread) {
    const draws *d = arg;
    fastgpt_sampler *sampler = d->samplers[row];
    int32_t *token = &d->tokens[row];
    (void)thread;
    if (!sampler) return;
    if (fastgpt_sampler_sample(sampler, d->logits + row * d->n_vocab, token) ||
        fastgpt_sampler_accept(sampler, token, 1))
        *token = -1;
}

fastgpt_status fastgpt_sample_rows(fastgpt_pool *pool, fastgpt_sampler *const *samplers, int32_t n_rows,
                                   int32_t n_vocab, const float *logits, int32_t *tokens) {
    if (!samplers || !logits || !tokens || n_rows < 0) return FASTGPT_ERR_ARGUMENT;
    for (int32_t i = 0; i < n_rows; i++)
        if (samplers[i] && fastgpt_sampler_n_vocab(samplers[i]) != n_vocab) return FASTGPT_ERR_ARGUMENT;
    fastgpt_status status = pool_enter(pool);
    if (status) return status;
    draws d = {.samplers = samplers, .logits = logits, .tokens = tokens, .n_vocab = n_vocab};
    pool_run(pool, draw_row, &d, n_rows);
    pool_leave(pool);
    return FASTGPT_OK;
}
