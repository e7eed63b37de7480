/* sample_rows.c - logits -> tokens, counted in the profile of a context: one, or those of a batch, whose rows are units
 * of work of the pool. */
#include "common/os.h"
#include "transformer/context.h"
#include "common/thread_pool.h"

typedef struct draws {
    fastgpt_sampler *const *samplers;
    int32_t n_rows, n_vocab;
    const float *logits;
    int32_t *tokens;
} draws;

static void draw_row(void *arg, int row, int thread) {
    const draws *d = arg;
    fastgpt_sampler *sampler = d->samplers[row];
    int32_t *token = &d->tokens[row];
    (void)thread;
    if (!sampler) return;
    if (fastgpt_sampler_sample(sampler, d->logits + (int64_t)row * d->n_vocab, token) ||
        fastgpt_sampler_accept(sampler, token, 1))
        *token = -1;
}

static fastgpt_status check(const draws *d) {
    if (!d->samplers || !d->logits || !d->tokens || d->n_rows < 0) return FASTGPT_ERR_ARGUMENT;
    for (int32_t i = 0; i < d->n_rows; i++)
        if (d->samplers[i] && fastgpt_sampler_n_vocab(d->samplers[i]) != d->n_vocab) return FASTGPT_ERR_ARGUMENT;
    return FASTGPT_OK;
}

static int32_t n_drawn(const draws *d) {
    int32_t n = 0;
    for (int32_t i = 0; i < d->n_rows; i++) n += d->samplers[i] != NULL;
    return n;
}

/* p is the profile of a context with that pool. */
static fastgpt_status draw(fastgpt_pool *pool, profile *p, draws *d) {
    fastgpt_status status = check(d);
    if (!status) status = pool_enter(pool);
    if (status) return status;
    profile_begin_draw(p);
    pool_run(pool, draw_row, d, d->n_rows);
    profile_end_draw(p, n_drawn(d));
    pool_leave(pool);
    return FASTGPT_OK;
}

fastgpt_status fastgpt_sample_rows(fastgpt_pool *pool, fastgpt_sampler *const *samplers, int32_t n_rows,
                                   int32_t n_vocab, const float *logits, int32_t *tokens) {
    draws d = {.samplers = samplers, .n_rows = n_rows, .n_vocab = n_vocab, .logits = logits, .tokens = tokens};
    return draw(pool, &(profile){.on = false}, &d);
}

fastgpt_status fastgpt_profile_sample_rows(fastgpt_context *ctx, fastgpt_sampler *const *samplers, int32_t n_rows,
                                           const float *logits, int32_t *tokens) {
    if (!ctx) return FASTGPT_ERR_ARGUMENT;
    draws d = {
        .samplers = samplers, .n_rows = n_rows, .n_vocab = ctx->model->n_vocab, .logits = logits, .tokens = tokens};
    return draw(ctx->engine.pool, &ctx->profile, &d);
}

fastgpt_status fastgpt_profile_sample(fastgpt_context *ctx, fastgpt_sampler *sampler, const float *logits,
                                      int32_t *token) {
    if (!ctx) return FASTGPT_ERR_ARGUMENT;
    profile *p = &ctx->profile;
    if (!p->on) return fastgpt_sampler_sample(sampler, logits, token);
    int64_t start = os_nanoseconds();
    fastgpt_status status = fastgpt_sampler_sample(sampler, logits, token);
    profile_add_draw(p, start, os_nanoseconds());
    return status;
}
