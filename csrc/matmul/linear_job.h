/* linear_job.h - what the ways of linear.c and linear_bf16.c share. */
#ifndef FASTGPT_LINEAR_JOB_H
#define FASTGPT_LINEAR_JOB_H

#include "matmul/linear.h"

enum {
    OUTPUTS_PER_DOT = 64, /* rows of weights in a unit that reads them once, at least */
    MOST_OUTPUTS_PER_DOT = 128,
    OUTPUTS_PER_MATRIX = 64, /* a multiple of MATRIX_ROWS */
    ALL = INT32_MAX
};

typedef struct linear_job linear_job;

/* One way: how a tile is computed, its size, and how activations are prepared. */
typedef struct way {
    void (*tile)(const linear_job *job, const linear_task *task, int first_out, int n_out, int first_token,
                 int n_tokens, int thread);
    int outputs_per_unit;
    int most_outputs; /* more than that, for ways whose outputs do not depend on others of their unit; else 0 */
    int tokens_per_unit;
    void (*prepare)(const linear_job *job, int unit, int thread); /* NULL: x is used as it is */
    int tokens_per_preparation;
    int tokens_at_once; /* in one run of the pool */
    bool starts; /* outputs with the bias itself; else tile adds to what is there */
} way;

struct linear_job {
    const engine *e;
    const float *x;
    void *activations; /* what `prepare` makes of x */
    const linear_task *tasks;
    const way *way;
    int64_t first_token; /* of the tasks, where x begins */
    int64_t ldx;
    int n_tokens, n_in;
    int n_units;
    int64_t ld_activations; /* bytes between prepared rows */
};

static inline const float *bias_of(const weight *w, int first) { return w->b ? w->b + first : NULL; }

static inline float *output_of(const linear_job *job, const linear_task *task, int first_out, int first_token) {
    return task->out + (job->first_token + first_token) * task->ld_out + first_out;
}

static inline void *scratch_of(const linear_job *job, int thread) { return engine_panel(job->e, thread); }

/* Many tokens, or few, and weights as BF16 numbers: see linear.c. */
extern const way linear_matrix, linear_stream;

/* Of a thread's scratch that linear_matrix takes. */
extern const int64_t linear_matrix_bytes;

#endif
