/* test_cancel.c - a cancelled step leaves every cache as it was, wherever it is stopped.  The linker puts
 * __wrap_op_attention before op_attention, so that a step can be cancelled at a chosen layer of a chosen slice. */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "attention/attention.h"
#include "support/session.h"

enum { N_SPANS = 3, N_TOKENS = 14, N_BATCH = 4 };

static fastgpt_model *model;
static int64_t n_vocab;
static uint64_t seed = 5;

/* ---- Cancelling at a chosen layer ---- */

static fastgpt_context *to_cancel;
static int layers_until_cancel; /* counts down once a layer; 0 = never */

void __real_op_attention(const engine *e, const attention_span *spans, int n_spans, int n_head, int n_embd,
                         float *scores, int n_ctx);
void __wrap_op_attention(const engine *e, const attention_span *spans, int n_spans, int n_head, int n_embd,
                         float *scores, int n_ctx);

void __wrap_op_attention(const engine *e, const attention_span *spans, int n_spans, int n_head, int n_embd,
                         float *scores, int n_ctx) {
    if (layers_until_cancel > 0 && --layers_until_cancel == 0) fastgpt_cancel(to_cancel);
    __real_op_attention(e, spans, n_spans, n_head, n_embd, scores, n_ctx);
}

/* Three sequences with a past of two tokens each. */
typedef struct batch {
    fastgpt_span spans[N_SPANS];
    int32_t tokens[N_SPANS][N_TOKENS];
} batch;

static const int32_t counts[N_SPANS] = {3, 6, 2}; /* new tokens: 3 slices of at most 4 */
enum { N_PAST = 2, N_SLICES = 3 };

static void start_batch(batch *b, fastgpt_context *ctx) {
    uint64_t same_every_time = 6;
    for (int i = 0; i < N_SPANS; i++) {
        random_tokens(&same_every_time, b->tokens[i], N_TOKENS, (int32_t)n_vocab);
        b->spans[i] = (fastgpt_span){new_cache(model, 0), b->tokens[i] + N_PAST, counts[i]};
        CHECK(fastgpt_prefill(ctx, b->spans[i].kv, b->tokens[i], N_PAST, NULL) == FASTGPT_OK);
    }
}

static void free_batch(batch *b) {
    for (int i = 0; i < N_SPANS; i++) fastgpt_kv_cache_free(b->spans[i].kv);
}

static bool all_have_past(const batch *b, bool and_the_new_tokens) {
    bool right = true;
    for (int i = 0; i < N_SPANS; i++)
        right &= fastgpt_kv_cache_n_past(b->spans[i].kv) == N_PAST + (and_the_new_tokens ? counts[i] : 0);
    return right;
}

/* After a cancel at any layer of any slice, the repeated step gives the logits of a step that was never cancelled.  At
 * the very last layer it is too late to cancel. */
static void test_every_layer(void) {
    fastgpt_context *ctx = to_cancel = new_context(model, NULL, N_BATCH);
    float *expected = new_floats(N_SPANS * n_vocab), *logits = new_floats(N_SPANS * n_vocab);
    batch b;
    start_batch(&b, ctx);
    CHECK(fastgpt_step(ctx, b.spans, N_SPANS, NULL, expected) == FASTGPT_OK && all_have_past(&b, true));
    free_batch(&b);
    int n_layers = N_SLICES * fastgpt_model_n_layer(model);
    for (int at = 1; at <= n_layers; at++) {
        start_batch(&b, ctx);
        layers_until_cancel = at;
        fastgpt_status status = fastgpt_step(ctx, b.spans, N_SPANS, NULL, logits);
        CHECK_FOR(layers_until_cancel == 0, "the step has fewer than %d layers", at);
        CHECK_FOR(status == (at < n_layers ? FASTGPT_ERR_CANCELLED : FASTGPT_OK), "layer %d: status %d", at, status);
        CHECK_FOR(all_have_past(&b, at == n_layers), "layer %d", at);
        if (at < n_layers) CHECK(fastgpt_step(ctx, b.spans, N_SPANS, NULL, logits) == FASTGPT_OK);
        CHECK_FOR(same_floats(logits, expected, N_SPANS * n_vocab) && all_have_past(&b, true), "layer %d", at);
        free_batch(&b);
    }
    free(expected);
    free(logits);
    fastgpt_context_free(ctx);
}

/* A cancel between steps stops the next one, and only that; a step that is refused does not use it up. */
static void test_before_a_step(void) {
    fastgpt_context *ctx = new_context(model, NULL, 0);
    fastgpt_kv_cache *kv = new_cache(model, 0);
    for (int i = 0; i < 3; i++) {
        fastgpt_cancel(ctx);
        fastgpt_cancel(ctx);
        CHECK(fastgpt_decode(ctx, kv, -1, NULL) == FASTGPT_ERR_TOKEN_RANGE);
        CHECK(fastgpt_decode(ctx, kv, 1, NULL) == FASTGPT_ERR_CANCELLED && fastgpt_kv_cache_n_past(kv) == i);
        CHECK(fastgpt_decode(ctx, kv, 1, NULL) == FASTGPT_OK && fastgpt_kv_cache_n_past(kv) == i + 1);
    }
    fastgpt_kv_cache_free(kv);
    fastgpt_context_free(ctx);
}

/* A step's own flag stops that step, and no other: not the next one without it, and not one of another flag. */
static void test_own_flag(void) {
    fastgpt_context *ctx = new_context(model, NULL, 0);
    fastgpt_kv_cache *kv = new_cache(model, 0);
    const int32_t token = 1, set = 1, unset = 0;
    const fastgpt_span span = {kv, &token, 1};
    const fastgpt_step_options stopped = {.struct_size = sizeof stopped, .stop = &set};
    const fastgpt_step_options goes_on = {.struct_size = sizeof goes_on, .stop = &unset};
    for (int i = 0; i < 3; i++) {
        CHECK(fastgpt_step(ctx, &span, 1, &stopped, NULL) == FASTGPT_ERR_CANCELLED &&
              fastgpt_kv_cache_n_past(kv) == 2 * i);
        CHECK(fastgpt_step(ctx, &span, 1, &goes_on, NULL) == FASTGPT_OK);
        CHECK(fastgpt_decode(ctx, kv, 1, NULL) == FASTGPT_OK && fastgpt_kv_cache_n_past(kv) == 2 * i + 2);
    }
    fastgpt_kv_cache_free(kv);
    fastgpt_context_free(ctx);
}

/* ---- Cancelling from another thread ---- */

static atomic_bool stop;
static atomic_int n_sent;

static void *cancel_again_and_again(void *ctx) {
    while (!atomic_load(&stop)) {
        fastgpt_cancel(ctx);
        atomic_fetch_add(&n_sent, 1);
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    return NULL;
}

static void test_from_another_thread(void) {
    fastgpt_pool *pool = new_pool(2);
    fastgpt_context *ctx = new_context(model, pool, 1);
    fastgpt_kv_cache *kv = new_cache(model, 0);
    int32_t tokens[N_TOKENS];
    float *expected = new_floats(n_vocab), *logits = new_floats(n_vocab);
    random_tokens(&seed, tokens, N_TOKENS, (int32_t)n_vocab);
    CHECK(fastgpt_prefill(ctx, kv, tokens, N_TOKENS, expected) == FASTGPT_OK);
    pthread_t other;
    CHECK(pthread_create(&other, NULL, cancel_again_and_again, ctx) == 0);
    int n_cancelled = 0;
    while (n_cancelled < 50) {
        CHECK(fastgpt_kv_cache_truncate(kv, 0) == FASTGPT_OK);
        fastgpt_status status = fastgpt_prefill(ctx, kv, tokens, N_TOKENS, logits);
        n_cancelled += status == FASTGPT_ERR_CANCELLED;
        if (status == FASTGPT_OK) CHECK(same_floats(logits, expected, n_vocab));
        else CHECK_FOR(status == FASTGPT_ERR_CANCELLED && fastgpt_kv_cache_n_past(kv) == 0, "status %d", status);
    }
    atomic_store(&stop, true);
    pthread_join(other, NULL);
    CHECK(n_cancelled <= atomic_load(&n_sent));
    free(expected);
    free(logits);
    fastgpt_kv_cache_free(kv);
    fastgpt_context_free(ctx);
    fastgpt_pool_free(pool);
}

int main(void) {
    model = load_shape(small_shape, false);
    n_vocab = fastgpt_model_n_vocab(model);
    test_every_layer();
    test_before_a_step();
    test_own_flag();
    test_from_another_thread();
    fastgpt_model_free(model);
    return check_report();
}
