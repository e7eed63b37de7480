/* linear.c - see linear.h.  Six ways to multiply:
 *
 *   dot     few tokens: the kernels stream the weights once, each row for all tokens.  Weights in blocks meet
 *           activations that were rounded to 8 bits.
 *   bytes   many tokens, weights of 8 or 4 bits, where the CPU multiplies bytes: the same integers in the same blocks
 *           as dot, so only the order of the sums in F32 differs.
 *   matrix  many tokens, weights of BF16 or in blocks, where the CPU multiplies BF16 numbers: weights and activations
 *           are rounded to BF16.
 *   stream  the same for few tokens, with weights where they lie: the same sums.
 *   floats  many tokens, all weights, where there is a kernel for it that is faster than BLAS: weights are widened to
 *           F32, a few rows at a time, and meet 8 or 16 tokens at once.
 *   sgemm   many tokens else: panels of weights are widened to F32, and go to BLAS.
 *
 * matrix and stream are in linear_bf16.c.
 *
 * In a deterministic step any number of tokens goes one way, in which each output is a sum of its own, in an order that
 * nothing else changes: stream and matrix, or floats, where they are fast for one token, and else dot.
 *
 * A unit is a tile of outputs and tokens.  The threads only decide who computes which tile; and, where each output is a
 * sum of its own (dot, stream and matrix), how large a tile is. */
#include "matmul/linear.h"

#include "common/arithmetic.h"
#include "matmul/blas.h"
#include "matmul/linear_job.h"
#include "matmul/packing.h"
#include "common/thread_pool.h"

enum {
    FEW_TOKENS = 48,      /* in a unit of dot */
    UNITS_PER_THREAD = 3, /* where their size may vary, about: a thread that is held up leaves some to the others */
    OUTPUTS_PER_SGEMM = 256,
    TOKENS_PER_SGEMM = 256,
    OUTPUTS_PER_FLOATS = FLOAT_ROWS,
    MOST_STREAMED = 2 * STREAMED_PANELS, /* panels, that widen weights of 16 bits on the way: some more than once */
    TOKENS_OF_FLOATS = 256, /* whose panels are in memory at once: no more of it than the other ways need */
    PANEL_K = 1024 /* columns of a widened panel: whole blocks of every type */
};

weight weight_rows(const weight *w, int32_t first, int32_t n_out) {
    weight rows = *w;
    rows.w = weight_row(w, first);
    rows.b = w->b ? w->b + first : NULL;
    rows.n_out = n_out;
    return rows;
}

static void start_with_bias(const linear_task *task, float *out, int first, int n_out, int n_tokens) {
    const float *b = bias_of(&task->w, first);
    for (int t = 0; t < n_tokens; t++, out += task->ld_out)
        for (int i = 0; i < n_out; i++) out[i] = (task->add ? out[i] : 0) + (b ? b[i] : 0);
}

/* ---- dot ---- */

enum { ROWS_PER_QUANTIZATION = 4 };

static void quantize_rows(const linear_job *job, int unit, int thread) {
    (void)thread;
    int end = min_int((unit + 1) * ROWS_PER_QUANTIZATION, job->n_tokens);
    for (int64_t t = (int64_t)unit * ROWS_PER_QUANTIZATION; t < end; t++)
        job->e->kernels->quantize_row((uint8_t *)job->activations + t * job->ld_activations, job->x + t * job->ldx,
                                      job->n_in);
}

static void dot_tile(const linear_job *job, const linear_task *task, int first_out, int n_out, int first_token,
                     int n_tokens, int thread) {
    const weight *w = &task->w;
    (void)thread;
    bool prepared = job->way->prepare != NULL;
    const uint8_t *x = prepared ? job->activations : (const void *)job->x;
    int64_t ldx = prepared ? job->ld_activations : job->ldx * (int64_t)sizeof(float);
    job->e->kernels->dot_rows[w->type](
        (out_view){output_of(job, task, first_out, first_token), task->ld_out}, (row_view){x + first_token * ldx, ldx},
        (row_view){weight_row(w, first_out), row_bytes(w->type, w->n_in)}, (gemm_size){n_tokens, n_out, w->n_in});
}

/* ---- bytes ---- */

static void prepare_bytes(const linear_job *job, int panel, int thread) {
    fill_bytes_panel(job->e->kernels, job->activations, panel, job->x, job->ldx, job->n_tokens, job->n_in,
                     scratch_of(job, thread));
}

/* MATRIX_ROWS rows of weights at a time meet all tokens. */
static void bytes_tile(const linear_job *job, const linear_task *task, int first_out, int n_out, int first_token,
                       int n_tokens, int thread) {
    const kernels *k = job->e->kernels;
    (void)first_token;
    for (int r = 0; r < n_out; r += MATRIX_ROWS) {
        int n_rows = min_int(MATRIX_ROWS, n_out - r);
        const uint8_t *w = byte_rows(k, &task->w, first_out + r, n_rows, scratch_of(job, thread));
        for (int t = 0; t < n_tokens; t += MATRIX_TOKENS)
            k->gemm_q8((out_view){output_of(job, task, first_out + r, t), task->ld_out},
                       bytes_panel(job->activations, t, job->n_in), w, u8_zero_point(task->w.type),
                       weight_row(&task->w, first_out + r + MATRIX_ROWS),
                       (gemm_size){min_int(MATRIX_TOKENS, n_tokens - t), n_rows, job->n_in});
    }
}

/* ---- floats ---- */

static void prepare_floats(const linear_job *job, int unit, int thread) {
    (void)thread;
    fill_float_panels(job->e->kernels, job->activations, unit * MAX_FLOAT_LANES, job->x, job->ldx, job->n_tokens,
                      job->n_in);
}

/* A power of two, as many as a line of the cache holds. */
static int numbers_of_line(dtype type) {
    enum { LINE = 64 };
    int n = 16;
    while (2 * n * row_bytes(type, 256) <= LINE * 256) n *= 2;
    return n;
}

/* Where the next columns of the same rows begin, or after the last ones the next rows. */
static read_ahead ahead_of(const weight *w, int first_out, int next_column) {
    bool next_rows = next_column >= w->n_in;
    int line_numbers = numbers_of_line(w->type);
    return (read_ahead){
        .at = next_rows ? weight_row(w, first_out + OUTPUTS_PER_FLOATS) : weight_at(w, first_out, next_column),
        .ld = row_bytes(w->type, w->n_in),
        .line_bytes = row_bytes(w->type, 256) * line_numbers / 256,
        .line_values = line_numbers};
}

/* Columns [k, k + n) of the weights and of all tokens. */
static void add_floats(const linear_job *job, float *out, int64_t ld_out, const weight *w, int first_out, int n_out,
                       int n_tokens, int k, int n, int thread) {
    const kernels *set = job->e->kernels;
    const float_kernels *f = set->floats;
    const float *panels = (const float *)job->activations + (int64_t)k * f->lanes;
    const int64_t ldx = (int64_t)job->n_in * f->lanes;
    if (is_float(w->type) && n_tokens <= MOST_STREAMED * f->lanes) {
        const uint8_t *rows = weight_at(w, first_out, k);
        const int at_once = STREAMED_PANELS * f->lanes;
        for (int64_t t = 0; t < n_tokens; t += at_once)
            f->stream[w->type]((out_view){out + t * ld_out, ld_out}, (f32_view){panels + t * job->n_in, ldx},
                               (row_view){rows, row_bytes(w->type, w->n_in)},
                               (gemm_size){min_int(at_once, n_tokens - (int)t), n_out, n});
    } else {
        int64_t ldw;
        const float *rows = float_rows(set, w, first_out, n_out, k, n, &ldw, scratch_of(job, thread));
        f->gemm((out_view){out, ld_out}, (f32_view){panels, ldx}, (f32_view){rows, ldw}, ahead_of(w, first_out, k + n),
                (gemm_size){n_tokens, n_out, n});
    }
}

static void floats_tile(const linear_job *job, const linear_task *task, int first_out, int n_out, int first_token,
                        int n_tokens, int thread) {
    const weight *w = &task->w;
    (void)first_token; /* 0: a tile has all tokens */
    for (int k = 0; k < w->n_in; k += PANEL_K)
        add_floats(job, output_of(job, task, first_out, 0), task->ld_out, w, first_out, n_out, n_tokens, k,
                   min_int(PANEL_K, w->n_in - k), thread);
}

/* ---- sgemm ---- */

/* out += x w^T for columns [first, first + n) of both. */
static void sgemm_columns(const linear_job *job, float *out, int64_t ld_out, const float *x, const weight *w,
                          int first_out, int n_out, int n_tokens, int first, int n, int thread) {
    int64_t ldw;
    const float *rows = float_rows(job->e->kernels, w, first_out, n_out, first, n, &ldw, scratch_of(job, thread));
    blas_gemm_nt(n_tokens, n_out, n, 1, x + first, job->ldx, rows, ldw, 1, out, ld_out);
}

static void sgemm_tile(const linear_job *job, const linear_task *task, int first_out, int n_out, int first_token,
                       int n_tokens, int thread) {
    const weight *w = &task->w;
    float *out = output_of(job, task, first_out, first_token);
    const float *x = job->x + first_token * job->ldx;
    int n = w->type == TYPE_F32 ? w->n_in : PANEL_K;
    for (int k = 0; k < w->n_in; k += n)
        sgemm_columns(job, out, task->ld_out, x, w, first_out, n_out, n_tokens, k, min_int(n, w->n_in - k), thread);
}

/* ---- Choice and units ---- */

static const way dot_floats = {.tile = dot_tile,
                               .outputs_per_unit = OUTPUTS_PER_DOT,
                               .most_outputs = MOST_OUTPUTS_PER_DOT,
                               .tokens_per_unit = FEW_TOKENS,
                               .tokens_at_once = ALL};
static const way dot_quantized = {.tile = dot_tile,
                                  .outputs_per_unit = OUTPUTS_PER_DOT,
                                  .most_outputs = MOST_OUTPUTS_PER_DOT,
                                  .tokens_per_unit = FEW_TOKENS,
                                  .prepare = quantize_rows,
                                  .tokens_per_preparation = ROWS_PER_QUANTIZATION,
                                  .tokens_at_once = ALL};
static const way bytes = {.tile = bytes_tile,
                          .outputs_per_unit = OUTPUTS_PER_MATRIX,
                          .tokens_per_unit = ALL,
                          .prepare = prepare_bytes,
                          .tokens_per_preparation = MATRIX_LANES,
                          .tokens_at_once = ALL};
static const way floats = {.tile = floats_tile,
                           .outputs_per_unit = OUTPUTS_PER_FLOATS,
                           .tokens_per_unit = ALL,
                           .prepare = prepare_floats,
                           .tokens_per_preparation = MAX_FLOAT_LANES,
                           .tokens_at_once = TOKENS_OF_FLOATS};
static const way sgemm = {.tile = sgemm_tile,
                          .outputs_per_unit = OUTPUTS_PER_SGEMM,
                          .tokens_per_unit = TOKENS_PER_SGEMM,
                          .tokens_at_once = ALL};

static bool multiplies_bytes(const kernels *k, dtype type) { return k->gemm_q8 && k->unpack_u8[type]; }

bool linear_uses_bf16(const kernels *k, dtype type) { return k->bf16 && type != TYPE_F32 && type != TYPE_F16; }

static bool streams(const kernels *k, dtype type) { return k->bf16 && k->bf16->streams[type]; }

/* Whether floats take hardly longer for one token than reading the weights: those of 16 bits come twice as fast. */
static bool streams_floats(const kernels *k, dtype type) {
    return k->floats && is_float(type) && (type == TYPE_F32 || k->floats->lanes == MAX_FLOAT_LANES);
}

/* Figures with the 124M shape of Zen 4; where there are kernels for floats, of Zen 2 and, for panels of
 * MAX_FLOAT_LANES, of Sapphire Rapids. */
int gemv_max_tokens(const kernels *k, dtype type) {
    if (streams(k, type)) return 1;
    if (multiplies_bytes(k, type) || linear_uses_bf16(k, type)) return 4;
    if (k->floats && k->floats->lanes == MAX_FLOAT_LANES && is_float(type)) return type == TYPE_F32 ? 2 : 6;
    if (k->floats) return type == TYPE_F32 ? 6 : 12;
    return type == TYPE_F32 ? 12 : FEW_TOKENS;
}

static const way *dot(dtype type) { return takes_quantized(type) ? &dot_quantized : &dot_floats; }

static const way *bf16_way(const kernels *k, dtype type, int n_tokens) {
    return streams(k, type) && n_tokens <= STREAM_TOKENS ? &linear_stream : &linear_matrix;
}

/* Whose sums are the same for any number of tokens. */
static const way *choose_one(const kernels *k, dtype type, int n_tokens) {
    if (streams(k, type)) return bf16_way(k, type, n_tokens);
    return streams_floats(k, type) ? &floats : dot(type);
}

static const way *choose(const engine *e, dtype type, int n_tokens) {
    const kernels *k = e->kernels;
    if (e->deterministic) return choose_one(k, type, n_tokens);
    if (n_tokens <= gemv_max_tokens(k, type)) return dot(type);
    if (multiplies_bytes(k, type)) return &bytes;
    if (linear_uses_bf16(k, type)) return bf16_way(k, type, n_tokens);
    return k->floats ? &floats : &sgemm;
}

int64_t linear_activation_bytes(int64_t n_batch, int64_t n_in) {
    int64_t rows = n_batch * round_up(quantized_row_bytes(round_up(n_in, 32)), 64);
    int64_t panels = float_panels_bytes(n_batch < TOKENS_OF_FLOATS ? n_batch : TOKENS_OF_FLOATS, n_in);
    return larger(rows, larger(panels_bytes(n_batch, n_in), panels));
}

int64_t linear_panel_bytes(int64_t n_in) {
    int64_t widened = OUTPUTS_PER_SGEMM * (n_in < PANEL_K ? n_in : PANEL_K) * (int64_t)sizeof(float);
    return round_up(larger(larger(panel_scratch_bytes(n_in), widened), linear_matrix_bytes), 64);
}

static void prepare_unit(void *arg, int unit, int thread) {
    const linear_job *job = arg;
    job->way->prepare(job, unit, thread);
}

/* Fewer threads may have longer units. */
static int outputs_per_unit(const linear_job *job, const linear_task *task) {
    int even = task->w.n_out / (UNITS_PER_THREAD * pool_n_threads(job->e->pool)) / MATRIX_ROWS * MATRIX_ROWS;
    return (int)larger(job->way->outputs_per_unit, min_int(even, job->way->most_outputs));
}

static int n_units_of(const linear_job *job, const linear_task *task) {
    return n_tiles(task->w.n_out, outputs_per_unit(job, task)) * n_tiles(job->n_tokens, job->way->tokens_per_unit);
}

/* Threads take turns, so each gets every n-th unit: these shall lie behind each other, as memory is read fastest. */
static int unit_of_turn(const linear_job *job, int turn) {
    int n = pool_n_threads(job->e->pool), part = turn % n, whole = job->n_units / n, left = job->n_units % n;
    return part * whole + min_int(part, left) + turn / n;
}

static void linear_unit(void *arg, int turn, int thread) {
    const linear_job *job = arg;
    const linear_task *task = job->tasks;
    int unit = unit_of_turn(job, turn);
    for (; unit >= n_units_of(job, task); task++) unit -= n_units_of(job, task);
    int n_outputs = outputs_per_unit(job, task), n_across = n_tiles(task->w.n_out, n_outputs);
    int first_out = unit % n_across * n_outputs;
    int first_token = unit / n_across * job->way->tokens_per_unit;
    int n_out = min_int(n_outputs, task->w.n_out - first_out);
    int n_tokens = min_int(job->way->tokens_per_unit, job->n_tokens - first_token);
    if (!job->way->starts)
        start_with_bias(task, output_of(job, task, first_out, first_token), first_out, n_out, n_tokens);
    job->way->tile(job, task, first_out, n_out, first_token, n_tokens, thread);
}

static void prepare(linear_job *job) {
    if (job->way->prepare)
        pool_run(job->e->pool, prepare_unit, job, n_tiles(job->n_tokens, job->way->tokens_per_preparation));
}

static void run(linear_job *job, int n_tasks) {
    job->n_units = 0;
    for (int i = 0; i < n_tasks; i++) job->n_units += n_units_of(job, &job->tasks[i]);
    pool_run(job->e->pool, linear_unit, job, job->n_units);
}

void linear(const engine *e, const float *x, int64_t ldx, const linear_task *tasks, int n_tasks, int n_tokens) {
    linear_job job = {.e = e,
                      .activations = e->activations,
                      .tasks = tasks,
                      .way = choose(e, tasks->w.type, n_tokens),
                      .ldx = ldx,
                      .n_in = tasks->w.n_in,
                      .ld_activations = round_up(quantized_row_bytes(tasks->w.n_in), 64)};
    for (int left = n_tokens; left > 0; left -= job.n_tokens) {
        job.first_token = n_tokens - left;
        job.x = x + job.first_token * ldx;
        job.n_tokens = min_int(left, job.way->tokens_at_once);
        prepare(&job);
        run(&job, n_tasks);
    }
}

bool linear_can_fuse_activation(const engine *e, const weight *first, const weight *second, int n_tokens) {
    return choose(e, first->type, n_tokens) == &linear_matrix && choose(e, second->type, n_tokens) == &linear_matrix;
}

void linear_packed(const engine *e, void *packed, const linear_task *task, int n_tokens) {
    linear_job job = {.e = e,
                      .activations = packed,
                      .tasks = task,
                      .way = &linear_matrix,
                      .n_tokens = n_tokens,
                      .n_in = task->w.n_in};
    run(&job, 1);
}
