/* linear_bf16.c - products of BF16 values: the algorithms `gemm_bf16` and `stream` of linear.c. */
#include "common/arithmetic.h"
#include "matmul/linear_job.h"
#include "matmul/packing.h"

enum {
    MAX_OUTPUTS_PER_GEMM = 192,
    TOKENS_PER_GEMM = 512,
    K_BLOCK = 384 /* values of each weight row that are packed, and meet all tokens, before the next ones */
};

static void pack_for_gemm(const linear_job *job, int panel, int thread) {
    (void)thread;
    pack_bf16_panel(job->e->kernels->bf16->panel, job->prepared, panel, &job->x);
}

static void pack_for_stream(const linear_job *job, int panel, int thread) {
    (void)thread;
    pack_bf16_panel(job->e->kernels->bf16->stream_panel, job->prepared, panel, &job->x);
}

static bf16_output bf16_output_of(const linear_job *job, const linear_tile *tile) {
    const linear_task *task = tile->task;
    const int n_out = task->w.n_out;
    if (!task->packed)
        return (bf16_output){
            .out = output_of(job, tile).at, .ldo = task->ld_out, .bias = bias_of(tile), .add = task->add};
    return (bf16_output){.bias = bias_of(tile),
                         .activation = job->e->kernels->activation[task->activation],
                         .panels = bf16_panel(task->packed, tile->first_token, n_out) + tile->first_out * MATRIX_LANES,
                         .ld_panels = panel_k(n_out) * MATRIX_LANES};
}

static void stream_tile(const linear_job *job, const linear_tile *tile, int thread) {
    const weight *w = &tile->task->w;
    const bf16_output to = bf16_output_of(job, tile);
    (void)thread;
    job->e->kernels->bf16->stream(&to, bf16_panel(job->prepared, tile->first_token, w->n_in), weights_of(tile, 0),
                                  w->type, (gemm_size){tile->n_tokens, tile->n_out, w->n_in});
}

/* The most whole blocks that n values hold, in values. */
static int whole_blocks(dtype type, int n) {
    return n / dtype_infos[type].block_values * dtype_infos[type].block_values;
}

/* In a thread's scratch. */
typedef struct gemm_scratch {
    uint16_t tiles[MAX_OUTPUTS_PER_GEMM * K_BLOCK];
    float sums[TOKENS_PER_GEMM * MAX_OUTPUTS_PER_GEMM];
} gemm_scratch;

static void gemm_bf16_tile(const linear_job *job, const linear_tile *tile, int thread) {
    const weight *w = &tile->task->w;
    const bf16_kernels *k = job->e->kernels->bf16;
    const uint16_t *x = bf16_panel(job->prepared, tile->first_token, w->n_in);
    const bf16_output to = bf16_output_of(job, tile);
    gemm_scratch *scratch = scratch_of(job, thread);
    for (int i = 0, n; i < w->n_in; i += n) {
        n = min_int(whole_blocks(w->type, K_BLOCK), w->n_in - i);
        const row_view rows = weights_of(tile, i);
        k->tiles(scratch->tiles, rows.at, rows.ld, w->type, tile->n_out, n);
        k->gemm(&to, scratch->sums, (bf16_view){x + i * MATRIX_LANES, panel_k(w->n_in) * MATRIX_LANES},
                (bf16_view){scratch->tiles, panel_k(n) * MATRIX_ROWS}, (gemm_size){tile->n_tokens, tile->n_out, n},
                i == 0, i + n == w->n_in);
    }
}

const int64_t linear_gemm_bf16_bytes = sizeof(gemm_scratch);

const matmul_algorithm linear_stream = {.compute_tile = stream_tile,
                                        .outputs_per_unit = OUTPUTS_PER_DOT,
                                        .max_outputs_per_unit = MAX_OUTPUTS_PER_DOT,
                                        .tokens_per_unit = STREAM_TOKENS,
                                        .prepare = pack_for_stream,
                                        .tokens_per_preparation = MATRIX_LANES,
                                        .max_tokens_per_run = ALL,
                                        .writes_bias = true};
const matmul_algorithm linear_gemm_bf16 = {.compute_tile = gemm_bf16_tile,
                                           .outputs_per_unit = OUTPUTS_PER_GEMM,
                                           .max_outputs_per_unit = MAX_OUTPUTS_PER_GEMM,
                                           .tokens_per_unit = TOKENS_PER_GEMM,
                                           .prepare = pack_for_gemm,
                                           .tokens_per_preparation = MATRIX_LANES,
                                           .max_tokens_per_run = ALL,
                                           .writes_bias = true};
