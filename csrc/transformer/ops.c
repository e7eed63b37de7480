/* ops.c - see ops.h. */
#include "transformer/ops.h"

#include "common/arithmetic.h"
#include "common/thread_pool.h"
#include "matmul/packing.h"

void op_embed(const engine *e, float *out, const fastgpt_model *model, const int32_t *tokens, int32_t n_tokens,
              int32_t position) {
    const weight *wte = &model->wte, *wpe = &model->wpe;
    float *wpe_row = engine_scratch(e, 0);
    for (int32_t t = 0; t < n_tokens; t++, out += model->n_embd) {
        weight_row_as_f32(e->kernels, wte, tokens[t], out);
        weight_row_as_f32(e->kernels, wpe, position + t, wpe_row);
        for (int32_t i = 0; i < model->n_embd; i++) out[i] += wpe_row[i];
    }
}

/* ---- Rows: layer_norm and activation ---- */

enum { ROWS_PER_UNIT = 8 };

typedef struct rows_job {
    const engine *e;
    float *out;
    int64_t ld_out;
    const float *x;
    const norm *norm;
    float epsilon;
    activation activation;
    int n_rows, n;
} rows_job;

static void layer_norm_unit(void *arg, int unit, int thread) {
    const rows_job *job = arg;
    (void)thread;
    int end = min_int((unit + 1) * ROWS_PER_UNIT, job->n_rows);
    for (int64_t r = (int64_t)unit * ROWS_PER_UNIT; r < end; r++)
        job->e->kernels->layer_norm(job->out + r * job->ld_out, job->x + r * job->n, job->norm->w, job->norm->b, job->n,
                                    job->epsilon);
}

void op_layer_norm(const engine *e, float *out, const float *x, const norm *norm, float epsilon, int n_rows, int n) {
    rows_job job = {
        .e = e, .out = out, .ld_out = n, .x = x, .norm = norm, .epsilon = epsilon, .n_rows = n_rows, .n = n};
    pool_run(e->pool, layer_norm_unit, &job, n_tiles(n_rows, ROWS_PER_UNIT));
}

static void activation_unit(void *arg, int unit, int thread) {
    const rows_job *job = arg;
    (void)thread;
    int end = min_int((unit + 1) * ROWS_PER_UNIT, job->n_rows);
    for (int64_t r = (int64_t)unit * ROWS_PER_UNIT; r < end; r++)
        job->e->kernels->activation[job->activation](job->out + r * job->ld_out, job->n);
}

void op_activation(const engine *e, activation activation, float *x, int64_t ldx, int n_rows, int n) {
    rows_job job = {.e = e, .out = x, .ld_out = ldx, .activation = activation, .n_rows = n_rows, .n = n};
    pool_run(e->pool, activation_unit, &job, n_tiles(n_rows, ROWS_PER_UNIT));
}
