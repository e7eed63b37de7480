/* attention.c - how fast decode attention reads KV caches, as JSON, one object a line.
 *
 *     attention N_THREADS      FASTGPT_ISA names the family of kernels
 *
 * For each type of cache and each batch: sequences whose caches together are far larger than the CPU's, one layer after
 * another, and one new token of each sequence.  Attention and a plain sum over the same bytes take turns; both are
 * medians.  bench/attention.py makes a table of it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/attention.h"
#include "common/os.h"
#include "common/thread_pool.h"

enum { N_LAYER = 12, N_HEAD = 12, N_EMBD = 768, MAX_SEQUENCES = 32, MAX_PAST = 1023, ROUNDS = 9, READ_UNIT = 1 << 18 };

#define ARENA_BYTES ((int64_t)320 << 20)

typedef struct batch {
    int n_sequences, n_past;
} batch;

static const batch batches[] = {{1, 32}, {1, 1000}, {8, 400}, {32, 30}, {32, 51}, {32, 64}, {32, 430}};

typedef struct bench {
    engine e;
    uint8_t *arena;
    float *q, *out, *scores;
    _Atomic uint64_t sink;
} bench;

/* ---- The two works ---- */

static int64_t part_bytes(dtype type, const batch *b) { return (b->n_past + 1) * row_bytes(type, N_EMBD); }
static int64_t layer_bytes(dtype type, const batch *b) { return 2 * b->n_sequences * part_bytes(type, b); }

static void attend_layer(bench *t, dtype type, const batch *b, int64_t layer) {
    attention_span spans[MAX_SEQUENCES];
    const uint8_t *at = t->arena + layer * layer_bytes(type, b);
    for (int i = 0; i < b->n_sequences; i++, at += 2 * part_bytes(type, b))
        spans[i] = (attention_span){.q = t->q + i * N_EMBD,
                                    .out = t->out + i * N_EMBD,
                                    .keys = at,
                                    .values = at + part_bytes(type, b),
                                    .type = type,
                                    .n_past = b->n_past,
                                    .n_tokens = 1};
    op_attention(&t->e, spans, b->n_sequences, N_HEAD, N_EMBD, t->scores, MAX_PAST + 1);
}

typedef uint64_t words __attribute__((vector_size(32), aligned(8)));

static void read_unit(void *arg, int unit, int thread) {
    bench *t = arg;
    const words *at = (const words *)(const void *)(t->arena + (int64_t)unit * READ_UNIT);
    words sum[4] = {{0}};
    (void)thread;
    for (size_t i = 0; i < READ_UNIT / sizeof *at; i += 4)
        for (size_t j = 0; j < 4; j++) sum[j] += at[i + j];
    sum[0] += sum[1] + sum[2] + sum[3];
    t->sink += sum[0][0] + sum[0][1] + sum[0][2] + sum[0][3];
}

/* ---- Draws ---- */

enum { N_VOCAB = 50257 };

typedef struct draw {
    const char *name;
    fastgpt_sampler_params params;
} draw;

static const draw draws[] = {
    {"greedy", {.struct_size = sizeof(fastgpt_sampler_params), .eos_token = -1}},
    {"temperature 0.8, top_p 0.95",
     {.struct_size = sizeof(fastgpt_sampler_params), .temperature = 0.8f, .top_p = 0.95f, .eos_token = -1}},
    {"temperature 0.8, top_k 40",
     {.struct_size = sizeof(fastgpt_sampler_params), .temperature = 0.8f, .top_k = 40, .eos_token = -1}},
    {"temperature 0.8, min_p 0.05",
     {.struct_size = sizeof(fastgpt_sampler_params), .temperature = 0.8f, .min_p = 0.05f, .eos_token = -1}},
};

/* As those of a trained model: they fall by 1.3 for each power of e of the rank, in another order in each row. */
static void fill_logits(float *logits) {
    for (int64_t row = 0; row < MAX_SEQUENCES; row++)
        for (int64_t rank = 0; rank < N_VOCAB; rank++) /* N_VOCAB = 29 * 1733, which divide no factor here */
            logits[row * N_VOCAB + (rank * (7919 + 29 * row) + row) % N_VOCAB] = -1.3f * logf(1 + (float)rank);
}

/* ---- Turns ---- */

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x) {
    qsort(x, ROUNDS, sizeof *x, by_size);
    return x[ROUNDS / 2];
}

/* Seconds of N_LAYER layers, and of a plain read of their bytes. */
static void run_batch(bench *t, dtype type, const batch *b) {
    int64_t n_layers = ARENA_BYTES / layer_bytes(type, b), n_units = n_layers * layer_bytes(type, b) / READ_UNIT;
    double attention[ROUNDS], read[ROUNDS];
    double bytes = (double)N_LAYER * (double)layer_bytes(type, b);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t begin = os_nanoseconds();
        for (int64_t l = 0; l < n_layers; l++) attend_layer(t, type, b, l);
        int64_t middle = os_nanoseconds();
        pool_run(t->e.pool, read_unit, t, (int)n_units);
        int64_t end = os_nanoseconds();
        attention[round] = 1e-9 * (double)(middle - begin) * N_LAYER / (double)n_layers;
        read[round] = 1e-9 * (double)(end - middle) * bytes / (double)(n_units * READ_UNIT);
    }
    double seconds = median(attention), read_seconds = median(read);
    printf(
        "{\"kernels\": \"%s\", \"n_threads\": %d, \"type\": \"%s\", \"n_sequences\": %d, \"n_past\": %d, "
        "\"bytes\": %.0f, \"seconds\": %.7f, \"read_seconds\": %.7f}\n",
        t->e.kernels->name, pool_n_threads(t->e.pool), dtype_infos[type].name, b->n_sequences, b->n_past, bytes,
        seconds, read_seconds);
    fflush(stdout);
}

static void run_draw(const bench *t, const draw *d, const float *logits) {
    fastgpt_sampler *samplers[MAX_SEQUENCES];
    int32_t tokens[MAX_SEQUENCES];
    double seconds[ROUNDS];
    for (int i = 0; i < MAX_SEQUENCES; i++)
        if (fastgpt_sampler_create(N_VOCAB, &d->params, &samplers[i])) abort();
    for (int round = -1; round < ROUNDS; round++) {
        int64_t begin = os_nanoseconds();
        if (fastgpt_sample_rows(t->e.pool, samplers, MAX_SEQUENCES, N_VOCAB, logits, tokens)) abort();
        if (round >= 0) seconds[round] = 1e-9 * (double)(os_nanoseconds() - begin);
    }
    for (int i = 0; i < MAX_SEQUENCES; i++) fastgpt_sampler_free(samplers[i]);
    printf("{\"kernels\": \"%s\", \"n_threads\": %d, \"draw\": \"%s\", \"n_rows\": %d, \"seconds\": %.7f}\n",
           t->e.kernels->name, pool_n_threads(t->e.pool), d->name, MAX_SEQUENCES, median(seconds));
}

static void fill(bench *t) {
    uint32_t *words32 = (uint32_t *)(void *)t->arena, state = 1;
    for (int64_t i = 0; i < ARENA_BYTES / 4; i++) {
        state = state * 1664525 + 1013904223;
        words32[i] = (state >> 8 & 0x00FF00FF) | 0x3C003C00; /* between 1 and 2 as F16, small as F32 and BF16 */
    }
    for (int i = 0; i < MAX_SEQUENCES * N_EMBD; i++) t->q[i] = (float)(i % 17 - 8) / 8;
}

int main(int argc, char **argv) {
    fastgpt_pool *pool;
    int n_threads = argc == 2 ? atoi(argv[1]) : 0;
    if (n_threads < 1 || !kernels_chosen() || fastgpt_pool_create(n_threads, &pool)) {
        fprintf(stderr, "usage: [FASTGPT_ISA=FAMILY] attention N_THREADS\n");
        return 2;
    }
    bench t = {.e = {.pool = pool, .kernels = kernels_chosen()}};
    t.e.scratch_bytes = attention_scratch_bytes(MAX_PAST + 1, N_HEAD, N_EMBD / N_HEAD);
    t.e.scratch = os_alloc((size_t)(n_threads * t.e.scratch_bytes));
    t.arena = os_alloc((size_t)ARENA_BYTES);
    t.q = os_alloc(MAX_SEQUENCES * N_EMBD * sizeof(float));
    t.out = os_alloc(MAX_SEQUENCES * N_EMBD * sizeof(float));
    t.scores = os_alloc((size_t)attention_n_scores(n_threads, MAX_PAST + 1, N_HEAD, N_EMBD / N_HEAD) * sizeof(float));
    if (!t.e.scratch || !t.arena || !t.q || !t.out || !t.scores || pool_enter(pool)) {
        fprintf(stderr, "no memory or no threads\n");
        return 1;
    }
    fill(&t);
    for (dtype type = 0; type < N_KERNEL_DTYPES; type++)
        for (size_t i = 0; is_kv_type(type) && i < sizeof batches / sizeof *batches; i++)
            run_batch(&t, type, &batches[i]);
    pool_leave(pool);
    float *logits = (float *)(void *)t.arena; /* which is far larger */
    fill_logits(logits);
    for (size_t i = 0; i < sizeof draws / sizeof *draws; i++) run_draw(&t, &draws[i], logits);
    fastgpt_pool_free(pool);
    os_free(t.e.scratch);
    os_free(t.arena);
    os_free(t.q);
    os_free(t.out);
    os_free(t.scores);
    return 0;
}
