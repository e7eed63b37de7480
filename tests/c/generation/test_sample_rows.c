/* test_sample_rows.c - sampling a batch is sampling row by row, with any number of threads. */
#include "fastgpt.h"

#include <math.h>
#include <string.h>

#include "support/check.h"
#include "support/random.h"

enum { N_VOCAB = 300, N_ROWS = 37, N_STEPS = 20 };

static float logits[N_ROWS * N_VOCAB];

/* Row i: greedy, plain or filtered sampling, all with a penalty, so that accepted tokens change what follows. */
static fastgpt_sampler *new_sampler(int i) {
    fastgpt_sampler_params p = {.struct_size = sizeof p,
                                .temperature = (float)(i % 3) / 2,
                                .top_k = i % 7,
                                .repetition_penalty = 1.8f,
                                .seed = (uint64_t)i};
    fastgpt_sampler *s = NULL;
    CHECK(fastgpt_sampler_create(N_VOCAB, &p, &s) == FASTGPT_OK && s);
    return s;
}

static bool is_left_out(int i) { return i % 5 == 4; }
static bool is_spoiled(int i) { return i == 11; }

static void sample_one(fastgpt_sampler *s, int row, int32_t *token) {
    if (is_left_out(row)) return;
    if (fastgpt_sampler_sample(s, logits + row * N_VOCAB, token)) *token = -1;
    else CHECK(fastgpt_sampler_accept(s, token, 1) == FASTGPT_OK);
}

/* One call for all rows equals sample and accept row by row, step after step; rows without a sampler stay unchanged. */
static void test_equals_one_by_one(int32_t n_threads) {
    fastgpt_sampler *rows[N_ROWS], *given[N_ROWS], *alone[N_ROWS];
    fastgpt_pool *pool = NULL;
    if (n_threads > 0) CHECK(fastgpt_pool_create(n_threads, &pool) == FASTGPT_OK);
    for (int i = 0; i < N_ROWS; i++) {
        rows[i] = new_sampler(i), alone[i] = new_sampler(i);
        given[i] = is_left_out(i) ? NULL : rows[i];
    }
    int32_t tokens[N_ROWS], expected[N_ROWS];
    memset(tokens, 0x55, sizeof tokens), memset(expected, 0x55, sizeof expected);
    for (int step = 0; step < N_STEPS; step++) {
        CHECK(fastgpt_sample_rows(pool, given, N_ROWS, N_VOCAB, logits, tokens) == FASTGPT_OK);
        for (int i = 0; i < N_ROWS; i++) sample_one(alone[i], i, &expected[i]);
        CHECK_FOR(memcmp(tokens, expected, sizeof tokens) == 0, "%d threads, step %d", n_threads, step);
        CHECK(tokens[11] == -1 && tokens[4] == 0x55555555);
    }
    for (int i = 0; i < N_ROWS; i++) fastgpt_sampler_free(rows[i]), fastgpt_sampler_free(alone[i]);
    fastgpt_pool_free(pool);
}

static void test_arguments(void) {
    fastgpt_sampler *s = new_sampler(1);
    int32_t token = 77;
    CHECK(fastgpt_sample_rows(NULL, NULL, 1, N_VOCAB, logits, &token) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sample_rows(NULL, &s, 1, N_VOCAB, NULL, &token) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sample_rows(NULL, &s, 1, N_VOCAB, logits, NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sample_rows(NULL, &s, -1, N_VOCAB, logits, &token) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sample_rows(NULL, &s, 1, N_VOCAB + 1, logits, &token) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sample_rows(NULL, &s, 0, N_VOCAB, logits, &token) == FASTGPT_OK && token == 77);
    fastgpt_sampler_free(s);
}

int main(void) {
    uint64_t seed = 5;
    random_fill(&seed, logits, N_ROWS * N_VOCAB);
    for (int i = 0; i < N_ROWS; i++)
        if (is_spoiled(i)) logits[i * N_VOCAB + 5] = NAN;
    for (int32_t n_threads = 0; n_threads <= 4; n_threads++) test_equals_one_by_one(n_threads);
    test_arguments();
    return check_report();
}
