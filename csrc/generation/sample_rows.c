/* sample_rows.c - logits -> tokens, timed in the profile of a context: one row, or those of a batch, which the threads
 * of the pool share. */
#include "common/os.h"
#include "common/thread_pool.h"
#include "transformer/context.h"

/* samplers, tokens [n_rows]   logits [n_rows][n_vocab] */
typedef struct sample_job {
    fastgpt_sampler *const *samplers;
    int32_t n_rows, n_vocab;
    const float *logits;
    int32_t *tokens;
} sample_job;

/* Rows without a sampler are left out. */
static void sample_row(void *arg, int row, int thread) {
    const sample_job *job = arg;
    fastgpt_sampler *sampler = job->samplers[row];
    int32_t *token = &job->tokens[row];
    (void)thread;
    if (!sampler) return;
    if (fastgpt_sampler_sample(sampler, job->logits + (int64_t)row * job->n_vocab, token) ||
        fastgpt_sampler_accept(sampler, token, 1))
        *token = -1;
}

static fastgpt_status check_job(const sample_job *job) {
    if (!job->samplers || !job->logits || !job->tokens || job->n_rows < 0) return FASTGPT_ERR_ARGUMENT;
    for (int32_t i = 0; i < job->n_rows; i++)
        if (job->samplers[i] && fastgpt_sampler_n_vocab(job->samplers[i]) != job->n_vocab) return FASTGPT_ERR_ARGUMENT;
    return FASTGPT_OK;
}

static int32_t n_sampled(const sample_job *job) {
    int32_t n = 0;
    for (int32_t i = 0; i < job->n_rows; i++) n += job->samplers[i] != NULL;
    return n;
}

/* p is the profile of a context with that pool. */
static fastgpt_status sample_rows(fastgpt_pool *pool, profile *p, sample_job *job) {
    fastgpt_status status = check_job(job);
    if (!status) status = pool_enter(pool);
    if (status) return status;
    profile_begin_sampling(p);
    pool_run(pool, sample_row, job, job->n_rows);
    profile_end_sampling(p, n_sampled(job));
    pool_leave(pool);
    return FASTGPT_OK;
}

fastgpt_status fastgpt_sample_rows(fastgpt_pool *pool, fastgpt_sampler *const *samplers, int32_t n_rows,
                                   int32_t n_vocab, const float *logits, int32_t *tokens) {
    sample_job job = {.samplers = samplers, .n_rows = n_rows, .n_vocab = n_vocab, .logits = logits, .tokens = tokens};
    return sample_rows(pool, &(profile){.on = false}, &job);
}

fastgpt_status fastgpt_profile_sample_rows(fastgpt_context *ctx, fastgpt_sampler *const *samplers, int32_t n_rows,
                                           const float *logits, int32_t *tokens) {
    if (!ctx) return FASTGPT_ERR_ARGUMENT;
    sample_job job = {
        .samplers = samplers, .n_rows = n_rows, .n_vocab = ctx->model->n_vocab, .logits = logits, .tokens = tokens};
    return sample_rows(ctx->engine.pool, &ctx->profile, &job);
}

fastgpt_status fastgpt_profile_sample(fastgpt_context *ctx, fastgpt_sampler *sampler, const float *logits,
                                      int32_t *token) {
    if (!ctx) return FASTGPT_ERR_ARGUMENT;
    profile *p = &ctx->profile;
    if (!p->on) return fastgpt_sampler_sample(sampler, logits, token);
    int64_t start = os_nanoseconds();
    fastgpt_status status = fastgpt_sampler_sample(sampler, logits, token);
    profile_add_sample(p, start, os_nanoseconds());
    return status;
}
