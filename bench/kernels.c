/* kernels.c - how fast each kernel of an instruction set is alone, as JSON, one object a line.
 *
 *     kernels N_THREADS      FASTGPT_ISA names the family of kernels
 *
 * First the ceilings of the machine (fastgpt_measure_roofline), then each kernel: weights from an array that is larger
 * than the caches, as in the decode of a model, and from one that stays in the cache of each core, where arithmetic is
 * the limit. bench/kernels.py makes a table of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "common/os.h"
#include "common/thread_pool.h"

enum {
    N_IN = 768,
    ROWS_PER_UNIT = 64,
    CACHED_UNITS_PER_THREAD = 64, /* units that read the same rows again and again */
    MAX_TOKENS = 32,
    N_FUNCTION = 3072, /* values of a row of gelu, softmax ... */
    ROUNDS = 5,
    OUT_FLOATS = MAX_TOKENS * N_FUNCTION + ROWS_PER_UNIT * N_IN / 2, /* and tiles of BF16 values */
};

#define MEMORY_BYTES ((int64_t)256 << 20)

/* As bits of every type an ordinary value: 0.01 in F32 and BF16, 1.06 in F16 and as the scale of a block. */
enum { FILLER = 0x3C };

typedef struct job {
    const kernels *k;
    dtype type;
    int n_tokens;
    bool cached;
    int64_t ldw; /* bytes of a row of weights */
    const uint8_t *weights;
    const uint8_t *x; /* activations of any kind */
    float *out;       /* [n_threads][OUT_FLOATS] */
} job;

static float *out_of(const job *j, int thread) { return j->out + (int64_t)thread * OUT_FLOATS; }

/* The first row of a unit: its own, from memory; or, from the cache, that of all units of a thread. */
static const uint8_t *rows_of(const job *j, int unit, int thread) {
    return j->weights + (int64_t)(j->cached ? thread : unit) * ROWS_PER_UNIT * j->ldw;
}

static out_view unit_out(const job *j, int thread) { return (out_view){out_of(j, thread), ROWS_PER_UNIT}; }

static row_view unit_weights(const job *j, int unit, int thread) {
    return (row_view){rows_of(j, unit, thread), j->ldw};
}

static gemm_size unit_size(const job *j) { return (gemm_size){j->n_tokens, ROWS_PER_UNIT, N_IN}; }

/* ---- Units of work ---- */

static void dot_unit(void *arg, int unit, int thread) {
    const job *j = arg;
    int64_t ldx = takes_quantized(j->type) ? quantized_row_bytes(N_IN) : N_IN * (int64_t)sizeof(float);
    j->k->dot_rows[j->type](unit_out(j, thread), (row_view){j->x, ldx}, unit_weights(j, unit, thread), unit_size(j));
}

static uint16_t *tiles_of(const job *j, int thread) {
    return (uint16_t *)(void *)(out_of(j, thread) + MAX_TOKENS * N_FUNCTION);
}

static void gemm_bf16_unit(void *arg, int unit, int thread) {
    const job *j = arg;
    const bf16_output to = {.out = out_of(j, thread), .ldo = ROWS_PER_UNIT, .add = true};
    const uint16_t *x = (const uint16_t *)(const void *)j->x;
    j->k->bf16->tiles(tiles_of(j, thread), rows_of(j, unit, thread), j->ldw, j->type, ROWS_PER_UNIT, N_IN);
    j->k->bf16->gemm(&to, NULL, (bf16_view){x, N_IN * MATRIX_LANES},
                     (bf16_view){tiles_of(j, thread), N_IN * MATRIX_ROWS}, unit_size(j), true, true);
}

static void stream_unit(void *arg, int unit, int thread) {
    const job *j = arg;
    const bf16_output to = {.out = out_of(j, thread), .ldo = ROWS_PER_UNIT, .add = true};
    j->k->bf16->stream(&to, (const uint16_t *)(const void *)j->x, unit_weights(j, unit, thread), j->type, unit_size(j));
}

static void gemm_q8_unit(void *arg, int unit, int thread) {
    const job *j = arg;
    const uint8_t *w = rows_of(j, unit, thread);
    for (int r = 0; r < ROWS_PER_UNIT; r += MATRIX_ROWS)
        j->k->gemm_q8((out_view){out_of(j, thread), MATRIX_ROWS}, (const matrix_block *)(const void *)j->x,
                      w + r * j->ldw, 128, w + (r + MATRIX_ROWS) * j->ldw, (gemm_size){j->n_tokens, MATRIX_ROWS, N_IN});
}

static void gemm_f32_unit(void *arg, int unit, int thread) {
    const job *j = arg;
    const float *w = (const float *)(const void *)rows_of(j, unit, thread);
    for (int r = 0, n; r < ROWS_PER_UNIT; r += n, w += n * N_IN) {
        n = ROWS_PER_UNIT - r < FLOAT_ROWS ? ROWS_PER_UNIT - r : FLOAT_ROWS;
        read_ahead next = {(const uint8_t *)(w + n * N_IN), j->ldw, 64, 16};
        j->k->floats->gemm((out_view){out_of(j, thread), FLOAT_ROWS},
                           (f32_view){(const float *)(const void *)j->x, j->k->floats->lanes * N_IN},
                           (f32_view){w, N_IN}, next, (gemm_size){j->n_tokens, n, N_IN});
    }
}

static void sum_unit(void *arg, int unit, int thread) {
    const job *j = arg;
    j->k->weighted_sum[j->type](out_of(j, thread), (const float *)(const void *)j->x, rows_of(j, unit, thread), j->ldw,
                                ROWS_PER_UNIT, N_IN);
}

static void to_f32_unit(void *arg, int unit, int thread) {
    const job *j = arg;
    const uint8_t *row = rows_of(j, unit, thread);
    for (int r = 0; r < ROWS_PER_UNIT; r++, row += j->ldw) j->k->to_f32[j->type](out_of(j, thread), row, N_IN);
}

static void gelu_unit(void *arg, int unit, int thread) {
    (void)unit;
    ((const job *)arg)->k->activation[GELU_TANH](out_of(arg, thread), N_FUNCTION);
}

static void softmax_unit(void *arg, int unit, int thread) {
    (void)unit;
    ((const job *)arg)->k->softmax(out_of(arg, thread), N_FUNCTION, 1);
}

static void layer_norm_unit(void *arg, int unit, int thread) {
    const job *j = arg;
    const float *x = (const float *)(const void *)j->x;
    (void)unit;
    j->k->layer_norm(out_of(j, thread), x, x, x, N_FUNCTION, 1e-5F);
}

static void quantize_unit(void *arg, int unit, int thread) {
    const job *j = arg;
    (void)unit;
    j->k->quantize_row(out_of(j, thread), (const float *)(const void *)j->x, N_FUNCTION);
}

/* ---- Timing ---- */

static double best_seconds(fastgpt_pool *pool, pool_job function, job *j, int n_units) {
    int64_t best = INT64_MAX;
    for (int i = 0; i < ROUNDS; i++) {
        int64_t begin = os_nanoseconds();
        pool_run(pool, function, j, n_units);
        int64_t elapsed = os_nanoseconds() - begin;
        best = elapsed < best ? elapsed : best;
    }
    return 1e-9 * (double)best;
}

static void print_row(const job *j, const char *kernel, const char *type, double n_bytes, double n_operations,
                      double seconds) {
    printf(
        "{\"kernels\": \"%s\", \"kernel\": \"%s\", \"type\": \"%s\", \"n_tokens\": %d, \"cached\": %s, "
        "\"bytes_per_second\": %.6g, \"operations_per_second\": %.6g}\n",
        j->k->name, kernel, type, j->n_tokens, j->cached ? "true" : "false", n_bytes / seconds, n_operations / seconds);
}

/* A kernel over rows of weights of ldw bytes; per_value: operations for each value of a row. */
static void run_rows(fastgpt_pool *pool, job *j, const char *kernel, pool_job function, const char *type, int64_t ldw,
                     int per_value) {
    j->ldw = ldw;
    for (int cached = 0; cached < 2; cached++) {
        j->cached = cached;
        int n_units =
            cached ? CACHED_UNITS_PER_THREAD * pool_n_threads(pool) : (int)(MEMORY_BYTES / ldw / ROWS_PER_UNIT);
        double seconds = best_seconds(pool, function, j, n_units);
        double n_rows = (double)n_units * ROWS_PER_UNIT;
        print_row(j, kernel, type, n_rows * (double)ldw, per_value * n_rows * N_IN, seconds);
    }
}

static void run_type(fastgpt_pool *pool, job *j, const char *kernel, pool_job function, int per_value) {
    run_rows(pool, j, kernel, function, dtype_infos[j->type].name, row_bytes(j->type, N_IN), per_value);
}

/* A function of values that stay in the cache. */
static void run_function(fastgpt_pool *pool, job *j, const char *kernel, pool_job function) {
    j->cached = true;
    int n_units = CACHED_UNITS_PER_THREAD * pool_n_threads(pool);
    double seconds = best_seconds(pool, function, j, n_units);
    print_row(j, kernel, "F32", (double)n_units * N_FUNCTION * sizeof(float), 0, seconds);
}

/* ---- Operands ---- */

static void fill_floats(uint8_t *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        memcpy(x + i * (int64_t)sizeof(float), &(float){0.01F * (float)(i % 99)}, sizeof(float));
}

static void fill_quantized(const kernels *k, uint8_t *x) {
    float row[N_IN];
    fill_floats((uint8_t *)row, N_IN);
    for (int t = 0; t < MAX_TOKENS; t++) k->quantize_row(x + t * quantized_row_bytes(N_IN), row, N_IN);
}

/* ---- All kernels of a set ---- */

static void run_products(fastgpt_pool *pool, job *j, uint8_t *x) {
    static const int n_tokens[] = {1, 4, 16};
    for (int type = 0; type < N_KERNEL_DTYPES; type++) {
        j->type = (dtype)type;
        if (takes_quantized(j->type)) fill_quantized(j->k, x);
        else fill_floats(x, MAX_TOKENS * N_IN);
        for (size_t i = 0; i < sizeof n_tokens / sizeof *n_tokens; i++) {
            j->n_tokens = n_tokens[i];
            run_type(pool, j, "dot_rows", dot_unit, 2 * j->n_tokens);
        }
    }
}

static void run_matrices(fastgpt_pool *pool, job *j, uint8_t *x) {
    memset(x, FILLER, MAX_TOKENS * N_FUNCTION * sizeof(float));
    j->n_tokens = MATRIX_TOKENS;
    int per_value = 2 * j->n_tokens;
    for (int type = 0; j->k->bf16 && type < N_KERNEL_DTYPES; type++) {
        if (type == TYPE_F32 || type == TYPE_F16) continue; /* never rounded to BF16 */
        j->type = (dtype)type;
        run_type(pool, j, "gemm_bf16", gemm_bf16_unit, per_value);
        if (j->k->bf16->streams[type]) run_type(pool, j, "stream_bf16", stream_unit, per_value);
    }
    if (j->k->gemm_q8) run_rows(pool, j, "gemm_q8", gemm_q8_unit, "bytes", quantized_row_bytes(N_IN), per_value);
    if (j->k->floats) run_rows(pool, j, "gemm_f32", gemm_f32_unit, "F32", row_bytes(TYPE_F32, N_IN), per_value);
}

static void run_conversions(fastgpt_pool *pool, job *j, uint8_t *x) {
    fill_floats(x, MAX_TOKENS * N_IN);
    j->n_tokens = 1;
    for (int type = 0; type < N_KERNEL_DTYPES; type++) {
        j->type = (dtype)type;
        if (is_float(type)) run_type(pool, j, "weighted_sum", sum_unit, 2);
        if (j->k->to_f32[type]) run_type(pool, j, "to_f32", to_f32_unit, 0);
    }
    run_function(pool, j, "gelu", gelu_unit);
    run_function(pool, j, "softmax", softmax_unit);
    run_function(pool, j, "layer_norm", layer_norm_unit);
    run_function(pool, j, "quantize_row", quantize_unit);
}

static void print_roofline(fastgpt_pool *pool) {
    fastgpt_roofline r;
    if (fastgpt_measure_roofline(pool, &r)) return;
    printf("{\"family\": \"%s\", \"n_threads\": %d, \"read\": %.6g, \"f32\": %.6g, \"bf16\": %.6g, \"int8\": %.6g}\n",
           kernels_chosen()->family, r.n_threads, r.read_bytes_per_second, r.f32_operations_per_second,
           r.bf16_operations_per_second, r.int8_operations_per_second);
}

static void run_family(fastgpt_pool *pool, job *j, uint8_t *x) {
    int n;
    const kernels *const *all = kernels_all(&n);
    for (int i = 0; i < n; i++) {
        if (strcmp(all[i]->family, kernels_chosen()->family) != 0) continue;
        j->k = all[i];
        run_products(pool, j, x);
        run_matrices(pool, j, x);
        run_conversions(pool, j, x);
    }
}

int main(int argc, char **argv) {
    fastgpt_pool *pool;
    int n_threads = argc == 2 ? atoi(argv[1]) : 0;
    if (n_threads < 1 || !kernels_chosen() || fastgpt_pool_create(n_threads, &pool)) {
        fprintf(stderr, "usage: [FASTGPT_ISA=FAMILY] kernels N_THREADS\n");
        return 2;
    }
    print_roofline(pool);
    uint8_t *weights = os_alloc((size_t)MEMORY_BYTES), *x = os_alloc(MAX_TOKENS * N_FUNCTION * sizeof(float));
    size_t out_bytes = (size_t)n_threads * OUT_FLOATS * sizeof(float);
    float *out = os_alloc(out_bytes);
    if (!weights || !x || !out || pool_enter(pool)) {
        fprintf(stderr, "no memory or no threads\n");
        return 1;
    }
    memset(weights, FILLER, (size_t)MEMORY_BYTES);
    memset(out, 0, out_bytes);
    job j = {.weights = weights, .x = x, .out = out};
    run_family(pool, &j, x);
    pool_leave(pool);
    fastgpt_pool_free(pool);
    os_free(weights);
    os_free(x);
    os_free(out);
    return 0;
}
