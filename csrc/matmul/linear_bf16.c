/* linear_bf16.c - products of BF16 numbers: the ways `matrix` and `stream` of linear.c. */
#include "common/arithmetic.h"
#include "matmul/linear_job.h"
#include "matmul/packing.h"

enum {
    MOST_OUTPUTS_PER_MATRIX = 192,
    TOKENS_PER_MATRIX = 512,
    PIECE = 384 /* numbers of a row that meet all tokens before the next ones do */
};

static void prepare_bf16(const linear_job *job, int panel, int thread) {
    (void)thread;
    fill_bf16_panel(job->e->kernels->bf16->panel, job->activations, panel, job->x, job->ldx, job->n_tokens, job->n_in);
}

static void prepare_stream(const linear_job *job, int panel, int thread) {
    (void)thread;
    fill_bf16_panel(job->e->kernels->bf16->stream_panel, job->activations, panel, job->x, job->ldx, job->n_tokens,
                    job->n_in);
}

static bf16_output bf16_output_of(const linear_job *job, const linear_task *task, int first_out, int first_token) {
    const weight *w = &task->w;
    if (!task->packed)
        return (bf16_output){.out = output_of(job, task, first_out, first_token),
                             .ldo = task->ld_out,
                             .bias = bias_of(w, first_out),
                             .add = task->add};
    return (bf16_output){.bias = bias_of(w, first_out),
                         .activation = job->e->kernels->activation[task->activation],
                         .panels = bf16_panel(task->packed, first_token, w->n_out) + first_out * MATRIX_LANES,
                         .ld_panels = panel_k(w->n_out) * MATRIX_LANES};
}

static void stream_tile(const linear_job *job, const linear_task *task, int first_out, int n_out, int first_token,
                        int n_tokens, int thread) {
    const weight *w = &task->w;
    const bf16_output to = bf16_output_of(job, task, first_out, first_token);
    (void)thread;
    job->e->kernels->bf16->stream(&to, bf16_panel(job->activations, first_token, job->n_in),
                                  (row_view){weight_row(w, first_out), row_bytes(w->type, w->n_in)}, w->type,
                                  (gemm_size){n_tokens, n_out, w->n_in});
}

/* Of n numbers. */
static int whole_blocks(dtype type, int n) {
    return n / dtype_infos[type].block_values * dtype_infos[type].block_values;
}

/* In a thread's scratch. */
typedef struct matrix_scratch {
    uint16_t tiles[MOST_OUTPUTS_PER_MATRIX * PIECE];
    float sums[TOKENS_PER_MATRIX * MOST_OUTPUTS_PER_MATRIX];
} matrix_scratch;

static void matrix_tile(const linear_job *job, const linear_task *task, int first_out, int n_out, int first_token,
                        int n_tokens, int thread) {
    const weight *w = &task->w;
    const bf16_kernels *k = job->e->kernels->bf16;
    const uint16_t *x = bf16_panel(job->activations, first_token, job->n_in);
    const bf16_output to = bf16_output_of(job, task, first_out, first_token);
    matrix_scratch *scratch = scratch_of(job, thread);
    for (int i = 0, n; i < w->n_in; i += n) {
        n = min_int(whole_blocks(w->type, PIECE), w->n_in - i);
        k->tiles(scratch->tiles, weight_at(w, first_out, i), row_bytes(w->type, w->n_in), w->type, n_out, n);
        k->gemm(&to, scratch->sums, (bf16_view){x + i * MATRIX_LANES, panel_k(w->n_in) * MATRIX_LANES},
                (bf16_view){scratch->tiles, panel_k(n) * MATRIX_ROWS}, (gemm_size){n_tokens, n_out, n}, i == 0,
                i + n == w->n_in);
    }
}

const int64_t linear_matrix_bytes = sizeof(matrix_scratch);

const way linear_stream = {.tile = stream_tile,
                           .outputs_per_unit = OUTPUTS_PER_DOT,
                           .most_outputs = MOST_OUTPUTS_PER_DOT,
                           .tokens_per_unit = STREAM_TOKENS,
                           .prepare = prepare_stream,
                           .tokens_per_preparation = MATRIX_LANES,
                           .tokens_at_once = ALL,
                           .starts = true};
const way linear_matrix = {.tile = matrix_tile,
                           .outputs_per_unit = OUTPUTS_PER_MATRIX,
                           .most_outputs = MOST_OUTPUTS_PER_MATRIX,
                           .tokens_per_unit = TOKENS_PER_MATRIX,
                           .prepare = prepare_bf16,
                           .tokens_per_preparation = MATRIX_LANES,
                           .tokens_at_once = ALL,
                           .starts = true};
