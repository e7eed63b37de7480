/* test_deterministic.c - the promise of a deterministic step: the bits of a token's logits, keys and values depend on
 * the tokens before it alone, not on how they were cut into steps and slices, their neighbours or the threads. */
#include "support/session.h"

enum { N_TOKENS = 75, N_SEQUENCES = 5 };

static uint64_t seed = 5;
static fastgpt_model *model;
static int64_t n_vocab;
static int32_t tokens[N_SEQUENCES][N_TOKENS];
static float *expected[N_SEQUENCES]; /* [N_TOKENS][n_vocab] token by token, alone */

static const fastgpt_step_options options = {.struct_size = sizeof options, .all_logits = 1, .deterministic = 1};

static float *token_by_token(const int32_t *sequence) {
    fastgpt_context *ctx = new_context(model, NULL, 0);
    fastgpt_kv_cache *kv = new_cache(model, 0);
    float *logits = new_floats(N_TOKENS * n_vocab);
    for (int32_t t = 0; t < N_TOKENS; t++) {
        fastgpt_span span = {.kv = kv, .tokens = sequence + t, .n_tokens = 1};
        CHECK(fastgpt_step(ctx, &span, 1, &options, logits + t * n_vocab) == FASTGPT_OK);
    }
    fastgpt_kv_cache_free(kv);
    fastgpt_context_free(ctx);
    return logits;
}

/* Some tokens of some sequences, in random order; returns how many spans. */
static int random_spans(fastgpt_span *spans, int *sequence_of, fastgpt_kv_cache *const *caches) {
    int n_spans = 0;
    int first = (int)random_below(&seed, N_SEQUENCES);
    for (int i = 0; i < N_SEQUENCES; i++) {
        int s = (first + i) % N_SEQUENCES;
        int32_t n_past = fastgpt_kv_cache_n_past(caches[s]), left = N_TOKENS - n_past;
        if (left == 0 || random_below(&seed, 3) == 0) continue;
        int32_t most = random_below(&seed, 3) == 0 ? left : left < 4 ? left : 4;
        int32_t n = 1 + (int32_t)random_below(&seed, (uint64_t)most);
        sequence_of[n_spans] = s;
        spans[n_spans++] = (fastgpt_span){.kv = caches[s], .tokens = tokens[s] + n_past, .n_tokens = n};
    }
    return n_spans;
}

/* One step of random spans, each row of whose logits is compared; returns false when all sequences have ended. */
static bool random_step(fastgpt_context *ctx, fastgpt_kv_cache *const *caches, float *logits, const char *what) {
    fastgpt_span spans[N_SEQUENCES];
    int sequence_of[N_SEQUENCES], n_spans = random_spans(spans, sequence_of, caches), n_left = 0;
    if (n_spans > 0) CHECK(fastgpt_step(ctx, spans, n_spans, &options, logits) == FASTGPT_OK);
    for (int i = 0; i < n_spans; i++) {
        int64_t first = spans[i].tokens - tokens[sequence_of[i]], n = spans[i].n_tokens;
        CHECK_FOR(same_floats(logits, expected[sequence_of[i]] + first * n_vocab, n * n_vocab),
                  "%s, sequence %d, tokens %d to %d", what, sequence_of[i], (int)first, (int)(first + n));
        logits += n * n_vocab;
    }
    for (int s = 0; s < N_SEQUENCES; s++) n_left += N_TOKENS - fastgpt_kv_cache_n_past(caches[s]);
    return n_left > 0;
}

static void check_any_admission(int32_t n_threads, int32_t n_batch, const char *what) {
    fastgpt_pool *pool = new_pool(n_threads);
    fastgpt_context *ctx = new_context(model, pool, n_batch);
    fastgpt_kv_cache *caches[N_SEQUENCES];
    float *logits = new_floats(N_SEQUENCES * N_TOKENS * n_vocab);
    for (int s = 0; s < N_SEQUENCES; s++) caches[s] = new_cache(model, 0);
    while (random_step(ctx, caches, logits, what)) continue;
    for (int s = 0; s < N_SEQUENCES; s++) fastgpt_kv_cache_free(caches[s]);
    free(logits);
    fastgpt_context_free(ctx);
    fastgpt_pool_free(pool);
}

static void check_type(uint32_t type, const char *name) {
    static const int32_t n_batches[] = {0, 1, 7, 50};
    model_shape shape = {
        .n_vocab = 41, .n_ctx = 80, .n_embd = 256, .n_head = 2, .n_layer = 2, .n_ff = 512, .type = type};
    model = load_shape(shape, false);
    n_vocab = fastgpt_model_n_vocab(model);
    for (int s = 0; s < N_SEQUENCES; s++) {
        random_tokens(&seed, tokens[s], N_TOKENS, (int32_t)n_vocab);
        expected[s] = token_by_token(tokens[s]);
    }
    CHECK_FOR(largest_difference(expected[0], expected[0] + n_vocab, n_vocab) > 0.01, "%s: tokens do not matter", name);
    for (int32_t n_threads = 1; n_threads <= 4; n_threads++)
        check_any_admission(n_threads, n_batches[n_threads - 1], name);
    for (int s = 0; s < N_SEQUENCES; s++) free(expected[s]);
    fastgpt_model_free(model);
}

int main(void) {
    check_type(FILE_F32, "F32");
    check_type(FILE_F16, "F16");
    check_type(FILE_BF16, "BF16");
    check_type(FILE_Q8_0, "Q8_0");
    check_type(FILE_Q4_0, "Q4_0");
    check_type(FILE_Q6_K, "Q6_K");
    check_type(FILE_I8, "I8");
    return check_report();
}
