/* test_step.c - the laws of a step: the split of tokens into calls, slices, batches and threads makes no difference. */
#include "support/session.h"

enum { N_TOKENS = 70 };

static uint64_t seed = 3;
static fastgpt_model *model;
static int32_t tokens[N_TOKENS];
static int64_t n_vocab;
static float *expected; /* [N_TOKENS][n_vocab] logits after each of the tokens, by one context of default size */

/* Of logits between different splits; equal splits give equal bits. */
static const double TOLERANCE = 1e-5;

static fastgpt_status run_span(fastgpt_context *ctx, fastgpt_kv_cache *kv, int32_t first, int32_t n, bool all,
                               float *logits) {
    fastgpt_step_options options = {.struct_size = sizeof options, .all_logits = all};
    fastgpt_span span = {.kv = kv, .tokens = tokens + first, .n_tokens = n};
    return fastgpt_step(ctx, &span, 1, &options, logits);
}

/* [N_TOKENS][n_vocab]: all tokens in one step. */
static float *all_logits(const fastgpt_model *m, fastgpt_pool *pool, int32_t n_batch) {
    fastgpt_context *ctx = new_context(m, pool, n_batch);
    fastgpt_kv_cache *kv = new_cache(m, 0);
    float *logits = new_floats(N_TOKENS * n_vocab);
    CHECK(run_span(ctx, kv, 0, N_TOKENS, true, logits) == FASTGPT_OK && fastgpt_kv_cache_n_past(kv) == N_TOKENS);
    fastgpt_kv_cache_free(kv);
    fastgpt_context_free(ctx);
    return logits;
}

/* Logits depend on tokens and their order, or the laws below would say nothing. */
static void test_logits_differ(void) {
    for (int t = 1; t < N_TOKENS; t++) {
        double difference = largest_difference(expected + t * n_vocab, expected + (t - 1) * n_vocab, n_vocab);
        CHECK_FOR(difference > 0.01, "tokens %d and %d: %g", t - 1, t, difference);
    }
}

static void test_threads_do_not_matter(void) {
    static const int32_t n_batches[] = {0, 1, 16, 33};
    for (int b = 0; b < 4; b++) {
        float *alone = all_logits(model, NULL, n_batches[b]);
        for (int32_t n_threads = 1; n_threads <= 4; n_threads++) {
            fastgpt_pool *pool = new_pool(n_threads);
            float *logits = all_logits(model, pool, n_batches[b]);
            CHECK_FOR(same_floats(logits, alone, N_TOKENS * n_vocab), "%d threads, n_batch %d", n_threads,
                      n_batches[b]);
            free(logits);
            fastgpt_pool_free(pool);
        }
        free(alone);
    }
}

static void test_slices_do_not_matter(void) {
    static const int32_t n_batches[] = {1, 2, 3, 16, 17, 32, 69, 70, 71};
    for (int b = 0; b < 9; b++) {
        float *logits = all_logits(model, NULL, n_batches[b]);
        double difference = largest_difference(logits, expected, N_TOKENS * n_vocab);
        CHECK_FOR(difference < TOLERANCE, "n_batch %d: %g", n_batches[b], difference);
        free(logits);
    }
}

static void check_last(const float *logits, int32_t n_past, const char *what) {
    double difference = largest_difference(logits, expected + (n_past - 1) * n_vocab, n_vocab);
    CHECK_FOR(difference < TOLERANCE, "%s, n_past %d: %g", what, n_past, difference);
}

/* Prefill of the first n tokens, then decode of the rest; then the same after a truncation to half, in one prefill. */
static void test_prefill_decode_truncate(void) {
    fastgpt_context *ctx = new_context(model, NULL, 0);
    fastgpt_kv_cache *kv = new_cache(model, N_TOKENS);
    float *logits = new_floats(n_vocab), *again = new_floats(n_vocab);
    for (int32_t n = 1; n < N_TOKENS; n += 6) {
        CHECK(fastgpt_kv_cache_truncate(kv, 0) == FASTGPT_OK);
        CHECK(fastgpt_prefill(ctx, kv, tokens, n, logits) == FASTGPT_OK);
        check_last(logits, n, "prefill");
        for (int32_t t = n; t < N_TOKENS; t++) {
            CHECK(fastgpt_decode(ctx, kv, tokens[t], logits) == FASTGPT_OK);
            check_last(logits, t + 1, "decode");
        }
        CHECK(fastgpt_kv_cache_truncate(kv, N_TOKENS - 1) == FASTGPT_OK);
        CHECK(fastgpt_decode(ctx, kv, tokens[N_TOKENS - 1], again) == FASTGPT_OK);
        CHECK_FOR(same_floats(logits, again, n_vocab), "the last token again, n %d", n);
        CHECK(fastgpt_kv_cache_truncate(kv, n / 2) == FASTGPT_OK && fastgpt_kv_cache_n_past(kv) == n / 2);
        CHECK(fastgpt_prefill(ctx, kv, tokens + n / 2, N_TOKENS - n / 2, logits) == FASTGPT_OK);
        check_last(logits, N_TOKENS, "truncated");
    }
    free(logits);
    free(again);
    fastgpt_kv_cache_free(kv);
    fastgpt_context_free(ctx);
}

/* Without logits the caches are filled the same. */
static void test_without_logits(void) {
    fastgpt_context *ctx = new_context(model, NULL, 16);
    fastgpt_kv_cache *with = new_cache(model, 0), *without = new_cache(model, 0);
    float *logits = new_floats(n_vocab);
    CHECK(fastgpt_prefill(ctx, with, tokens, N_TOKENS, logits) == FASTGPT_OK);
    CHECK(fastgpt_prefill(ctx, without, tokens, N_TOKENS, NULL) == FASTGPT_OK);
    int64_t n = N_TOKENS * (int64_t)fastgpt_model_n_embd(model);
    for (int32_t l = 0; l < fastgpt_model_n_layer(model); l++) {
        CHECK(same_floats(fastgpt_kv_cache_keys(with, l), fastgpt_kv_cache_keys(without, l), n));
        CHECK(same_floats(fastgpt_kv_cache_values(with, l), fastgpt_kv_cache_values(without, l), n));
    }
    free(logits);
    fastgpt_kv_cache_free(with);
    fastgpt_kv_cache_free(without);
    fastgpt_context_free(ctx);
}

/* ---- Ragged batches ---- */

enum { N_SPANS = 4 };

/* Sequence i, which begins at token i of the list, holds n_past[i] tokens and gets counts[i] more.
 * Returns logits [sum of counts or N_SPANS][n_vocab]. */
static float *ragged_step(fastgpt_pool *pool, int32_t n_batch, const int32_t *n_past, const int32_t *counts, bool all,
                          bool together) {
    fastgpt_context *ctx = new_context(model, pool, n_batch);
    fastgpt_step_options options = {.struct_size = sizeof options, .all_logits = all};
    fastgpt_span spans[N_SPANS];
    int64_t n_rows = 0;
    for (int i = 0; i < N_SPANS; i++) {
        spans[i] = (fastgpt_span){.kv = new_cache(model, 0), .tokens = tokens + i + n_past[i], .n_tokens = counts[i]};
        if (n_past[i]) CHECK(fastgpt_prefill(ctx, spans[i].kv, tokens + i, n_past[i], NULL) == FASTGPT_OK);
        n_rows += all ? counts[i] : 1;
    }
    float *logits = new_floats(n_rows * n_vocab), *at = logits;
    if (together) CHECK(fastgpt_step(ctx, spans, N_SPANS, &options, logits) == FASTGPT_OK);
    for (int i = 0; i < N_SPANS && !together; i++) {
        CHECK(fastgpt_step(ctx, &spans[i], 1, &options, at) == FASTGPT_OK);
        at += (all ? counts[i] : 1) * n_vocab;
    }
    for (int i = 0; i < N_SPANS; i++) {
        CHECK(fastgpt_kv_cache_n_past(spans[i].kv) == n_past[i] + counts[i]);
        fastgpt_kv_cache_free(spans[i].kv);
    }
    fastgpt_context_free(ctx);
    return logits;
}

static void check_ragged(fastgpt_pool *pool, int32_t n_batch, const int32_t *counts, bool all) {
    static const int32_t n_past[N_SPANS] = {0, 5, 1, 13};
    int64_t n_rows = all ? 0 : N_SPANS;
    for (int i = 0; i < N_SPANS && all; i++) n_rows += counts[i];
    float *together = ragged_step(pool, n_batch, n_past, counts, all, true);
    float *one_by_one = ragged_step(NULL, 0, n_past, counts, all, false);
    double difference = largest_difference(together, one_by_one, n_rows * n_vocab);
    CHECK_FOR(difference < TOLERANCE, "%d threads, n_batch %d, counts %d %d %d %d, all %d: %g",
              pool ? fastgpt_pool_n_threads(pool) : 1, n_batch, counts[0], counts[1], counts[2], counts[3], all,
              difference);
    free(together);
    free(one_by_one);
}

static void test_ragged_batches(void) {
    static const int32_t counts[][N_SPANS] = {{1, 1, 1, 1}, {3, 1, 2, 5}, {40, 1, 33, 2}, {1, 50, 1, 50}, {2, 2, 2, 2}};
    static const int32_t n_batches[] = {0, 1, 2, 3, 7, 32};
    fastgpt_pool *pool = new_pool(3);
    for (int c = 0; c < 5; c++)
        for (int b = 0; b < 6; b++)
            for (int all = 0; all <= 1; all++) check_ragged(b % 2 ? pool : NULL, n_batches[b], counts[c], all);
    fastgpt_pool_free(pool);
}

/* ---- Files ---- */

/* Weights of equal values give equal bits, whatever their type and matmul algorithm; with BF16 weights many tokens may
 * be multiplied in BF16, whose last bit is 2^-8 of a value. */
static void test_files_do_not_matter(void) {
    static const uint32_t types[] = {FILE_F32, FILE_F16, FILE_BF16};
    for (int i = 0; i < 6; i++) {
        model_shape shape = small_shape;
        shape.type = types[i / 2];
        fastgpt_model *other = load_shape(shape, i % 2);
        float *logits = all_logits(other, NULL, 0);
        double difference = largest_difference(logits, expected, N_TOKENS * n_vocab);
        CHECK_FOR(types[i / 2] == FILE_BF16 ? difference < 0.05 : same_floats(logits, expected, N_TOKENS * n_vocab),
                  "type %d, copy %d: %g", i / 2, i % 2, difference);
        free(logits);
        fastgpt_model_free(other);
    }
}

static void test_untied_output(void) {
    model_shape shape = small_shape;
    shape.untied = true;
    fastgpt_model *other = load_shape(shape, false);
    float *logits = all_logits(other, NULL, 0);
    CHECK(largest_difference(logits, expected, N_TOKENS * n_vocab) > 0.01);
    free(logits);
    fastgpt_model_free(other);
}

int main(void) {
    model = load_shape(small_shape, false);
    n_vocab = fastgpt_model_n_vocab(model);
    random_tokens(&seed, tokens, N_TOKENS, (int32_t)n_vocab);
    expected = all_logits(model, NULL, 0);
    test_logits_differ();
    test_threads_do_not_matter();
    test_slices_do_not_matter();
    test_prefill_decode_truncate();
    test_without_logits();
    test_ragged_batches();
    test_files_do_not_matter();
    test_untied_output();
    free(expected);
    fastgpt_model_free(model);
    return check_report();
}
