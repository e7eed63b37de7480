/* linear.c - see linear.h.  Seven matmul algorithms:
 *
 *   dot        few tokens: each row of weights is read once, for all tokens.  Weights in blocks are multiplied by
 *              activations that are quantized to 8 bits.
 *   gemm_q8    many tokens, weights of 8 or 4 bits, where the CPU multiplies bytes: the same integers in the same
 *              blocks as dot, so only the order of the F32 sums differs.
 *   gemm_bf16  many tokens, weights of BF16 or in blocks, where the CPU multiplies BF16 values: weights and
 *              activations are rounded to BF16.
 *   stream     the same sums for few tokens; weights are read in place.
 *   gemm_i8    tiles of I8, any number of tokens, in linear_i8.c: activations are quantized to 8 bits with one scale a
 *              token, and whole rows summed as integers.
 *   gemm_f32   many tokens, weights of any type, where there is a kernel for it that is faster than BLAS: weights are
 *              converted to F32, a few rows at a time, and multiplied by panels of 8 or 16 tokens.
 *   sgemm      many tokens otherwise: panels of weights are converted to F32 for BLAS.
 *
 * gemm_bf16 and stream are in linear_bf16.c.
 *
 * In a deterministic step every token count uses one algorithm, in which each output is an independent sum in a fixed
 * order: gemm_i8; stream and gemm_bf16, which sum alike, or gemm_f32, where they are fast for one token; dot otherwise.
 *
 * A unit is a tile of outputs and tokens.  The number of threads decides who computes which tile; and how large a tile
 * is, but only where each output is an independent sum (dot, gemm_i8, stream and gemm_bf16). */
#include "matmul/linear.h"

#include "common/arithmetic.h"
#include "common/thread_pool.h"
#include "matmul/blas.h"
#include "matmul/linear_job.h"
#include "matmul/packing.h"

enum {
    TOKENS_PER_DOT = 48,
    UNITS_PER_THREAD = 3, /* about, where their size may vary: other threads take over what a delayed one leaves */
    OUTPUTS_PER_SGEMM = 256,
    TOKENS_PER_SGEMM = 256,
    OUTPUTS_PER_GEMM_F32 = FLOAT_ROWS,
    MAX_STREAMED_PANELS = 2 * STREAMED_PANELS, /* gemm_f32 up to so many: weights are converted again for each pass */
    MAX_PACKED_F32_TOKENS = 256, /* at a time, so that gemm_f32 needs no more memory than the other algorithms */
    WEIGHT_PANEL_K = 1024        /* columns that are converted to F32 at a time: whole blocks of every type */
};

weight weight_rows(const weight *w, int32_t first, int32_t n_out) {
    weight rows = *w;
    rows.w = weight_row(w, first);
    rows.b = w->b ? w->b + first : NULL;
    rows.scales = w->scales ? w->scales + first : NULL;
    rows.n_out = n_out;
    return rows;
}

/* ---- dot ---- */

enum { ROWS_PER_QUANTIZATION = 4 };

static void quantize_rows(const linear_job *job, int unit, int thread) {
    const activation_view *x = &job->x;
    (void)thread;
    int end = min_int((unit + 1) * ROWS_PER_QUANTIZATION, x->n_tokens);
    for (int64_t t = (int64_t)unit * ROWS_PER_QUANTIZATION; t < end; t++)
        job->e->kernels->quantize_row((uint8_t *)job->prepared + t * job->ld_quantized, x->x + t * x->ldx, x->n_in);
}

static void dot_tile(const linear_job *job, const linear_tile *tile, int thread) {
    const weight *w = &tile->task->w;
    (void)thread;
    const bool quantized = job->algorithm->prepare != NULL;
    const uint8_t *x = quantized ? job->prepared : (const void *)job->x.x;
    const int64_t ldx = quantized ? job->ld_quantized : job->x.ldx * (int64_t)sizeof(float);
    job->e->kernels->dot_rows[w->type](output_of(job, tile), (row_view){x + tile->first_token * ldx, ldx},
                                       weights_of(tile, 0), (gemm_size){tile->n_tokens, tile->n_out, w->n_in});
}

/* ---- gemm_q8 ---- */

static void pack_q8(const linear_job *job, int panel, int thread) {
    pack_q8_panel(job->e->kernels, job->prepared, panel, &job->x, scratch_of(job, thread));
}

/* MATRIX_ROWS rows of weights are unpacked at a time, for all tokens. */
static void gemm_q8_tile(const linear_job *job, const linear_tile *tile, int thread) {
    const kernels *k = job->e->kernels;
    const weight *w = &tile->task->w;
    const out_view out = output_of(job, tile);
    for (int r = 0; r < tile->n_out; r += MATRIX_ROWS) {
        int first = tile->first_out + r, n_rows = min_int(MATRIX_ROWS, tile->n_out - r);
        const uint8_t *rows = unpack_u8_rows(k, w, first, n_rows, scratch_of(job, thread));
        for (int t = 0; t < tile->n_tokens; t += MATRIX_TOKENS)
            k->gemm_q8((out_view){out.at + t * out.ld + r, out.ld}, q8_panel(job->prepared, t, w->n_in), rows,
                       u8_zero_point(w->type), weight_row(w, first + MATRIX_ROWS),
                       (gemm_size){min_int(MATRIX_TOKENS, tile->n_tokens - t), n_rows, w->n_in});
    }
}

/* ---- gemm_f32 ---- */

static void pack_f32(const linear_job *job, int unit, int thread) {
    (void)thread;
    pack_f32_panels(job->e->kernels, job->prepared, unit * MAX_FLOAT_LANES, &job->x);
}

/* A power of two. */
static int values_per_cache_line(dtype type) {
    enum { LINE_BYTES = 64 };
    int n = 16;
    while (2 * n * row_bytes(type, 256) <= LINE_BYTES * 256) n *= 2;
    return n;
}

/* Where the next columns of the same rows begin, or after the last ones the next rows. */
static read_ahead read_ahead_of(const weight_tile *tile) {
    const weight *w = tile->w;
    const int next_k = tile->first_k + tile->n_k, line_values = values_per_cache_line(w->type);
    return (read_ahead){.at = next_k < w->n_in ? weight_at(w, tile->first_out, next_k)
                                               : weight_row(w, tile->first_out + OUTPUTS_PER_GEMM_F32),
                        .ld = row_bytes(w->type, w->n_in),
                        .line_bytes = row_bytes(w->type, 256) * line_values / 256,
                        .line_values = line_values};
}

/* out += x rows^T for all tokens, with the rows in place. */
static void add_streamed(const linear_job *job, out_view out, f32_view x, const weight_tile *rows) {
    const weight *w = rows->w;
    const float_kernels *f = job->e->kernels->floats;
    const row_view in_place = {weight_at(w, rows->first_out, rows->first_k), row_bytes(w->type, w->n_in)};
    const int tokens_per_pass = STREAMED_PANELS * f->lanes;
    for (int t = 0; t < job->x.n_tokens; t += tokens_per_pass)
        f->stream[w->type]((out_view){out.at + t * out.ld, out.ld}, (f32_view){x.at + (int64_t)t * w->n_in, x.ld},
                           in_place,
                           (gemm_size){min_int(tokens_per_pass, job->x.n_tokens - t), rows->n_out, rows->n_k});
}

/* The same with rows that are converted first. */
static void add_converted(const linear_job *job, out_view out, f32_view x, const weight_tile *rows, float *scratch) {
    const f32_view converted = weights_as_f32(job->e->kernels, rows, scratch);
    job->e->kernels->floats->gemm(out, x, converted, read_ahead_of(rows),
                                  (gemm_size){job->x.n_tokens, rows->n_out, rows->n_k});
}

/* A tile has all tokens. */
static void gemm_f32_tile(const linear_job *job, const linear_tile *tile, int thread) {
    const weight *w = &tile->task->w;
    const int lanes = job->e->kernels->floats->lanes;
    const bool streamed = is_float(w->type) && job->x.n_tokens <= MAX_STREAMED_PANELS * lanes;
    const out_view out = output_of(job, tile);
    for (int k = 0; k < w->n_in; k += WEIGHT_PANEL_K) {
        const weight_tile rows = {.w = w,
                                  .first_out = tile->first_out,
                                  .n_out = tile->n_out,
                                  .first_k = k,
                                  .n_k = min_int(WEIGHT_PANEL_K, w->n_in - k)};
        const f32_view x = {(const float *)job->prepared + (int64_t)k * lanes, (int64_t)w->n_in * lanes};
        if (streamed) add_streamed(job, out, x, &rows);
        else add_converted(job, out, x, &rows, scratch_of(job, thread));
    }
}

/* ---- sgemm ---- */

static void sgemm_tile(const linear_job *job, const linear_tile *tile, int thread) {
    const weight *w = &tile->task->w;
    const float *x = job->x.x + tile->first_token * job->x.ldx;
    const out_view out = output_of(job, tile);
    const int k_step = w->type == TYPE_F32 ? w->n_in : WEIGHT_PANEL_K;
    for (int k = 0; k < w->n_in; k += k_step) {
        const weight_tile panel = {.w = w,
                                   .first_out = tile->first_out,
                                   .n_out = tile->n_out,
                                   .first_k = k,
                                   .n_k = min_int(k_step, w->n_in - k)};
        const f32_view rows = weights_as_f32(job->e->kernels, &panel, scratch_of(job, thread));
        blas_gemm(&(gemm_args){.m = tile->n_tokens,
                               .n = tile->n_out,
                               .k = panel.n_k,
                               .a = x + k,
                               .lda = job->x.ldx,
                               .b = rows.at,
                               .ldb = rows.ld,
                               .transpose_b = true,
                               .c = out.at,
                               .ldc = out.ld,
                               .accumulate = true});
    }
}

/* ---- Algorithms ---- */

static const matmul_algorithm dot_f32 = {.compute_tile = dot_tile,
                                         .outputs_per_unit = OUTPUTS_PER_DOT,
                                         .max_outputs_per_unit = MAX_OUTPUTS_PER_DOT,
                                         .tokens_per_unit = TOKENS_PER_DOT,
                                         .max_tokens_per_run = ALL};
static const matmul_algorithm dot_quantized = {.compute_tile = dot_tile,
                                               .outputs_per_unit = OUTPUTS_PER_DOT,
                                               .max_outputs_per_unit = MAX_OUTPUTS_PER_DOT,
                                               .tokens_per_unit = TOKENS_PER_DOT,
                                               .prepare = quantize_rows,
                                               .tokens_per_preparation = ROWS_PER_QUANTIZATION,
                                               .max_tokens_per_run = ALL};
static const matmul_algorithm gemm_q8 = {.compute_tile = gemm_q8_tile,
                                         .outputs_per_unit = OUTPUTS_PER_GEMM,
                                         .tokens_per_unit = ALL,
                                         .prepare = pack_q8,
                                         .tokens_per_preparation = MATRIX_LANES,
                                         .max_tokens_per_run = ALL};
static const matmul_algorithm gemm_f32 = {.compute_tile = gemm_f32_tile,
                                          .outputs_per_unit = OUTPUTS_PER_GEMM_F32,
                                          .tokens_per_unit = ALL,
                                          .prepare = pack_f32,
                                          .tokens_per_preparation = MAX_FLOAT_LANES,
                                          .max_tokens_per_run = MAX_PACKED_F32_TOKENS};
static const matmul_algorithm sgemm = {.compute_tile = sgemm_tile,
                                       .outputs_per_unit = OUTPUTS_PER_SGEMM,
                                       .tokens_per_unit = TOKENS_PER_SGEMM,
                                       .max_tokens_per_run = ALL};

static bool can_gemm_q8(const kernels *k, dtype type) { return k->gemm_q8 && k->unpack_u8[type]; }

bool linear_uses_bf16(const kernels *k, dtype type) { return k->bf16 && type != TYPE_F32 && type != TYPE_F16; }

static bool can_stream(const kernels *k, dtype type) { return k->bf16 && k->bf16->streams[type]; }

/* Whether gemm_f32 for one token takes hardly longer than reading the weights.  Those of 16 bits are read twice as
 * fast, so they need the wider kernels. */
static bool gemm_f32_suits_one_token(const kernels *k, dtype type) {
    return k->floats && is_float(type) && (type == TYPE_F32 || k->floats->lanes == MAX_FLOAT_LANES);
}

/* Measured with the 124M shape: on Zen 4; with kernels for floats on Zen 2 and, for panels of MAX_FLOAT_LANES, on
 * Sapphire Rapids. */
int gemv_max_tokens(const kernels *k, dtype type) {
    if (can_stream(k, type)) return 1;
    if (can_gemm_q8(k, type) || linear_uses_bf16(k, type)) return 4;
    if (k->floats && k->floats->lanes == MAX_FLOAT_LANES && is_float(type)) return type == TYPE_F32 ? 2 : 6;
    if (k->floats) return type == TYPE_F32 ? 6 : 12;
    return type == TYPE_F32 ? 12 : TOKENS_PER_DOT;
}

static const matmul_algorithm *select_dot(dtype type) { return takes_quantized(type) ? &dot_quantized : &dot_f32; }

static const matmul_algorithm *select_bf16(const kernels *k, dtype type, int n_tokens) {
    return can_stream(k, type) && n_tokens <= STREAM_TOKENS ? &linear_stream : &linear_gemm_bf16;
}

/* The one whose sums are the same for any number of tokens. */
static const matmul_algorithm *select_deterministic(const kernels *k, dtype type, int n_tokens) {
    if (can_stream(k, type)) return select_bf16(k, type, n_tokens);
    return gemm_f32_suits_one_token(k, type) ? &gemm_f32 : select_dot(type);
}

static const matmul_algorithm *select_algorithm(const engine *e, dtype type, int n_tokens) {
    const kernels *k = e->kernels;
    if (has_row_scales(type)) return &linear_gemm_i8;
    if (e->deterministic) return select_deterministic(k, type, n_tokens);
    if (n_tokens <= gemv_max_tokens(k, type)) return select_dot(type);
    if (can_gemm_q8(k, type)) return &gemm_q8;
    if (linear_uses_bf16(k, type)) return select_bf16(k, type, n_tokens);
    return k->floats ? &gemm_f32 : &sgemm;
}

int64_t linear_activation_bytes(int64_t n_batch, int64_t n_in) {
    int64_t quantized = n_batch * round_up(quantized_row_bytes(round_up(n_in, 32)), 64);
    int64_t f32 = f32_panels_bytes(n_batch < MAX_PACKED_F32_TOKENS ? n_batch : MAX_PACKED_F32_TOKENS, n_in);
    return larger(larger(quantized, linear_i8_bytes(n_batch, n_in)), larger(panels_bytes(n_batch, n_in), f32));
}

int64_t linear_scratch_bytes(int64_t n_in) {
    int64_t f32_weights = OUTPUTS_PER_SGEMM * (n_in < WEIGHT_PANEL_K ? n_in : WEIGHT_PANEL_K) * (int64_t)sizeof(float);
    return round_up(larger(larger(packing_scratch_bytes(n_in), f32_weights), linear_gemm_bf16_bytes), 64);
}

/* ---- Units ---- */

static void prepare_unit(void *arg, int unit, int thread) {
    const linear_job *job = arg;
    job->algorithm->prepare(job, unit, thread);
}

/* With fewer threads, larger units. */
static int outputs_per_unit(const linear_job *job, const linear_task *task) {
    int even = task->w.n_out / (UNITS_PER_THREAD * pool_n_threads(job->e->pool)) / MATRIX_ROWS * MATRIX_ROWS;
    return (int)larger(job->algorithm->outputs_per_unit, min_int(even, job->algorithm->max_outputs_per_unit));
}

static int n_units_of(const linear_job *job, const linear_task *task) {
    return n_tiles(task->w.n_out, outputs_per_unit(job, task)) *
           n_tiles(job->x.n_tokens, job->algorithm->tokens_per_unit);
}

/* Units are claimed round-robin; claims are mapped so that a thread's units are contiguous in memory, which is read
 * fastest so. */
static int unit_of_claim(const linear_job *job, int claim) {
    int n = pool_n_threads(job->e->pool), thread = claim % n, whole = job->n_units / n, left = job->n_units % n;
    return thread * whole + min_int(thread, left) + claim / n;
}

static linear_tile tile_of_unit(const linear_job *job, int unit) {
    const linear_task *task = job->tasks;
    for (; unit >= n_units_of(job, task); task++) unit -= n_units_of(job, task);
    int n_outputs = outputs_per_unit(job, task), n_across = n_tiles(task->w.n_out, n_outputs);
    int first_out = unit % n_across * n_outputs;
    int first_token = unit / n_across * job->algorithm->tokens_per_unit;
    return (linear_tile){.task = task,
                         .first_out = first_out,
                         .n_out = min_int(n_outputs, task->w.n_out - first_out),
                         .first_token = first_token,
                         .n_tokens = min_int(job->algorithm->tokens_per_unit, job->x.n_tokens - first_token)};
}

/* out = b, or out += b with `add`; 0 without a bias. */
static void write_bias(const linear_job *job, const linear_tile *tile) {
    const float *b = bias_of(tile);
    const bool add = tile->task->add;
    out_view out = output_of(job, tile);
    for (int t = 0; t < tile->n_tokens; t++, out.at += out.ld)
        for (int i = 0; i < tile->n_out; i++) out.at[i] = (add ? out.at[i] : 0) + (b ? b[i] : 0);
}

static void compute_unit(void *arg, int claim, int thread) {
    const linear_job *job = arg;
    const linear_tile tile = tile_of_unit(job, unit_of_claim(job, claim));
    if (!job->algorithm->writes_bias) write_bias(job, &tile);
    job->algorithm->compute_tile(job, &tile, thread);
}

static void prepare_activations(linear_job *job) {
    if (job->algorithm->prepare)
        pool_run(job->e->pool, prepare_unit, job, n_tiles(job->x.n_tokens, job->algorithm->tokens_per_preparation));
}

static void compute_tasks(linear_job *job, int n_tasks) {
    job->n_units = 0;
    for (int i = 0; i < n_tasks; i++) job->n_units += n_units_of(job, &job->tasks[i]);
    pool_run(job->e->pool, compute_unit, job, job->n_units);
}

void linear(const engine *e, const float *x, int64_t ldx, const linear_task *tasks, int n_tasks, int n_tokens) {
    linear_job job = {.e = e,
                      .algorithm = select_algorithm(e, tasks->w.type, n_tokens),
                      .x = {.ldx = ldx, .n_in = tasks->w.n_in},
                      .prepared = e->activations,
                      .ld_quantized = round_up(quantized_row_bytes(tasks->w.n_in), 64),
                      .tasks = tasks};
    for (; job.first_token < n_tokens; job.first_token += job.x.n_tokens) {
        job.x.x = x + job.first_token * ldx;
        job.x.n_tokens = min_int(n_tokens - (int)job.first_token, job.algorithm->max_tokens_per_run);
        prepare_activations(&job);
        compute_tasks(&job, n_tasks);
    }
}

/* ---- A fused epilogue: activation and packing ---- */

bool linear_can_fuse_activation(const engine *e, const weight *first, const weight *second, int n_tokens) {
    return select_algorithm(e, first->type, n_tokens) == &linear_gemm_bf16 &&
           select_algorithm(e, second->type, n_tokens) == &linear_gemm_bf16;
}

void linear_packed(const engine *e, void *packed, const linear_task *task, int n_tokens) {
    linear_job job = {.e = e,
                      .algorithm = &linear_gemm_bf16,
                      .x = {.n_tokens = n_tokens, .n_in = task->w.n_in},
                      .prepared = packed,
                      .tasks = task};
    compute_tasks(&job, 1);
}
