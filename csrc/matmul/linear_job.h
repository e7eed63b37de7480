/* linear_job.h - what the matmul algorithms of linear.c and linear_bf16.c share. */
#ifndef FASTGPT_LINEAR_JOB_H
#define FASTGPT_LINEAR_JOB_H

#include "matmul/linear.h"
#include "matmul/packing.h"

enum {
    OUTPUTS_PER_DOT = 64, /* in a unit that reads each row of weights once, at least */
    MAX_OUTPUTS_PER_DOT = 128,
    OUTPUTS_PER_GEMM = 64, /* a multiple of MATRIX_ROWS */
    ALL = INT32_MAX
};

typedef struct linear_job linear_job;

/* What a unit computes: outputs [first_out, first_out + n_out) of tokens [first_token, first_token + n_tokens). */
typedef struct linear_tile {
    const linear_task *task;
    int first_out, n_out;
    int first_token, n_tokens; /* counted from the job's first token */
} linear_tile;

typedef struct matmul_algorithm {
    void (*compute_tile)(const linear_job *job, const linear_tile *tile, int thread);
    int outputs_per_unit;
    int max_outputs_per_unit; /* if larger: units may grow up to it, since each output is an independent sum; else 0 */
    int tokens_per_unit;
    void (*prepare)(const linear_job *job, int unit, int thread); /* packs or quantizes x; NULL: x is used as it is */
    int tokens_per_preparation;
    int max_tokens_per_run; /* of the pool */
    bool writes_bias; /* else compute_tile adds to outputs that hold the bias already */
} matmul_algorithm;

struct linear_job {
    const engine *e;
    const matmul_algorithm *algorithm;
    activation_view x;
    void *prepared; /* what `prepare` makes of x */
    int64_t ld_quantized; /* bytes between its rows, where it is quantized rows */
    const linear_task *tasks;
    int64_t first_token; /* of the tasks' tokens, the first in x */
    int n_units;
};

static inline const float *bias_of(const linear_tile *tile) {
    const float *b = tile->task->w.b;
    return b ? b + tile->first_out : NULL;
}

static inline out_view output_of(const linear_job *job, const linear_tile *tile) {
    const linear_task *task = tile->task;
    return (out_view){.at = task->out + (job->first_token + tile->first_token) * task->ld_out + tile->first_out,
                      .ld = task->ld_out};
}

/* Rows of weights of a tile, from column k on. */
static inline row_view weights_of(const linear_tile *tile, int k) {
    const weight *w = &tile->task->w;
    return (row_view){.at = weight_at(w, tile->first_out, k), .ld = row_bytes(w->type, w->n_in)};
}

static inline void *scratch_of(const linear_job *job, int thread) { return engine_scratch(job->e, thread); }

/* Products with tiles of I8: linear_i8.c, and the bytes of what it prepares. */
extern const matmul_algorithm linear_gemm_i8;
int64_t linear_i8_bytes(int64_t n_tokens, int64_t n_in);

/* Products of BF16 values, for many tokens and for few: see linear.c. */
extern const matmul_algorithm linear_gemm_bf16, linear_stream;

/* The part of a thread's scratch that linear_gemm_bf16 uses. */
extern const int64_t linear_gemm_bf16_bytes;

#endif
