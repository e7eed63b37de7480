/* linear_i8.c - products with tiles of I8: the algorithm `gemm_i8` of linear.c. */
#include "common/arithmetic.h"
#include "matmul/linear_job.h"

enum { TOKENS_PER_QUANTIZATION = 4, MAX_OUTPUTS_PER_GEMM_I8 = 128 };

static int64_t ld_of_tokens(const linear_job *job) { return i8_activation_bytes(job->x.n_in); }

static void quantize_tokens(const linear_job *job, int unit, int thread) {
    const activation_view *x = &job->x;
    (void)thread;
    const int end = min_int((unit + 1) * TOKENS_PER_QUANTIZATION, x->n_tokens);
    for (int64_t t = (int64_t)unit * TOKENS_PER_QUANTIZATION; t < end; t++)
        job->e->kernels->quantize_token((void *)((uint8_t *)job->prepared + t * ld_of_tokens(job)), x->x + t * x->ldx,
                                        x->n_in);
}

static void gemm_i8_tile(const linear_job *job, const linear_tile *tile, int thread) {
    const weight *w = &tile->task->w;
    const int64_t ldx = ld_of_tokens(job);
    (void)thread;
    job->e->kernels->gemm_i8(&(gemm_i8_args){.out = output_of(job, tile),
                                             .x = {(const uint8_t *)job->prepared + tile->first_token * ldx, ldx},
                                             .tiles = weights_of(tile, 0).at,
                                             .scales = w->scales + tile->first_out,
                                             .bias = bias_of(tile),
                                             .add = tile->task->add,
                                             .size = {tile->n_tokens, tile->n_out, w->n_in}});
}

/* Bytes of the activations of n_tokens. */
int64_t linear_i8_bytes(int64_t n_tokens, int64_t n_in) { return n_tokens * i8_activation_bytes(n_in); }

const matmul_algorithm linear_gemm_i8 = {.compute_tile = gemm_i8_tile,
                                         .outputs_per_unit = OUTPUTS_PER_DOT,
                                         .max_outputs_per_unit = MAX_OUTPUTS_PER_GEMM_I8,
                                         .tokens_per_unit = ALL,
                                         .prepare = quantize_tokens,
                                         .tokens_per_preparation = TOKENS_PER_QUANTIZATION,
                                         .max_tokens_per_run = ALL,
                                         .writes_bias = true};
