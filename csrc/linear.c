/* linear.c - see linear.h.  Few tokens are bound by reading the weights, so the kernels stream them once; many
 * tokens are bound by arithmetic and go to BLAS.  A unit is a tile of outputs and tokens whose size depends
 * on the shape alone, so that the threads only decide who computes which tile. */
#include "linear.h"

#include "blas.h"
#include "pool.h"

enum {
    FEW_TOKENS = 16,       /* up to here the kernels, from here on BLAS */
    OUTPUTS_PER_STREAM = 64, /* rows of weights in a unit of the kernels */
    OUTPUTS_PER_GEMM = 256,
    TOKENS_PER_GEMM = 256
};

typedef struct linear_job {
    const engine *e;
    const linear_task *tasks;
    int n_tokens;
    int outputs_per_unit, tokens_per_unit;
} linear_job;

weight weight_rows(const weight *w, int32_t first, int32_t n_out) {
    return (weight){
        .w = w->w + (int64_t)first * w->n_in, .b = w->b ? w->b + first : NULL, .n_out = n_out, .n_in = w->n_in};
}

static int n_tiles(int n, int tile) { return (n + tile - 1) / tile; }

static int n_units_of(const linear_job *job, const linear_task *task) {
    return n_tiles(task->w.n_out, job->outputs_per_unit) * n_tiles(job->n_tokens, job->tokens_per_unit);
}

static void start_with_bias(const linear_task *task, float *out, int first, int n_out, int n_tokens) {
    const float *b = task->w.b ? task->w.b + first : NULL;
    for (int t = 0; t < n_tokens; t++, out += task->ld_out)
        for (int i = 0; i < n_out; i++) out[i] = (task->add ? out[i] : 0) + (b ? b[i] : 0);
}

static void tile(const linear_job *job, const linear_task *task, int first_out, int first_token) {
    int n_out = task->w.n_out - first_out, n_tokens = job->n_tokens - first_token;
    if (n_out > job->outputs_per_unit) n_out = job->outputs_per_unit;
    if (n_tokens > job->tokens_per_unit) n_tokens = job->tokens_per_unit;
    int64_t n_in = task->w.n_in;
    const float *w = task->w.w + first_out * n_in, *x = task->x + first_token * n_in;
    float *out = task->out + first_token * task->ld_out + first_out;
    start_with_bias(task, out, first_out, n_out, n_tokens);
    if (job->n_tokens <= FEW_TOKENS)
        job->e->kernels->dot_rows(out, task->ld_out, x, n_in, w, n_in, n_tokens, n_out, (int)n_in);
    else blas_gemm_nt(n_tokens, n_out, n_in, 1, x, n_in, w, n_in, 1, out, task->ld_out);
}

static void linear_unit(void *arg, int unit, int thread) {
    const linear_job *job = arg;
    const linear_task *task = job->tasks;
    (void)thread;
    for (; unit >= n_units_of(job, task); task++) unit -= n_units_of(job, task);
    int n_across = n_tiles(task->w.n_out, job->outputs_per_unit);
    tile(job, task, unit % n_across * job->outputs_per_unit, unit / n_across * job->tokens_per_unit);
}

void linear(const engine *e, const linear_task *tasks, int n_tasks, int n_tokens) {
    bool few = n_tokens <= FEW_TOKENS;
    linear_job job = {.e = e,
                      .tasks = tasks,
                      .n_tokens = n_tokens,
                      .outputs_per_unit = few ? OUTPUTS_PER_STREAM : OUTPUTS_PER_GEMM,
                      .tokens_per_unit = few ? FEW_TOKENS : TOKENS_PER_GEMM};
    int n_units = 0;
    for (int i = 0; i < n_tasks; i++) n_units += n_units_of(&job, &tasks[i]);
    pool_run(e->pool, linear_unit, &job, n_units);
}
