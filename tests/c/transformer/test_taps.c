/* test_taps.c - the laws of taps: intermediate values that are copied out of a step. */
#include <math.h>

#include "support/session.h"

enum { N_TOKENS = 70, N_PAST = 5, N_CHOSEN = 4 };

static uint64_t seed = 9;
static fastgpt_model *model;
static int32_t tokens[N_TOKENS];
static int64_t n_vocab, n_embd, n_layer;
static const fastgpt_head chosen[N_CHOSEN] = {{1, 2}, {0, 2}, {1, 0}, {1, 2}};

static const double TOLERANCE = 1e-5;

/* All taps of a step of n_tokens, and its logits after each token. */
typedef struct tapped {
    fastgpt_taps to;
    float *logits;
    int64_t n_tokens, n_floats; /* logits lie at the end of one array of n_floats that begins with hidden */
} tapped;

static tapped new_tapped(int64_t n, int32_t n_keys) {
    tapped s = {.to = {.struct_size = sizeof s.to, .heads = chosen, .n_heads = N_CHOSEN, .n_keys = n_keys}};
    int64_t rows = n * n_embd;
    s.n_tokens = n;
    s.n_floats = (4 * n_layer + 2) * rows + N_CHOSEN * n * n_keys + n * n_vocab;
    s.to.hidden = new_floats(s.n_floats);
    s.to.hidden_mid = s.to.hidden + (n_layer + 1) * rows;
    s.to.ln_1 = s.to.hidden_mid + n_layer * rows;
    s.to.ln_2 = s.to.ln_1 + n_layer * rows;
    s.to.ln_f = s.to.ln_2 + n_layer * rows;
    s.to.attention = s.to.ln_f + rows;
    s.logits = s.to.attention + N_CHOSEN * n * n_keys;
    return s;
}

static void free_tapped(tapped s) { free(s.to.hidden); }

/* Two sequences: the first has N_PAST tokens already, the second none; together they get N_TOKENS. */
typedef struct pair {
    fastgpt_context *ctx;
    fastgpt_kv_cache *kv[2];
    fastgpt_span spans[2];
} pair;

static pair new_pair(fastgpt_pool *pool, int32_t n_batch, fastgpt_type type) {
    enum { N_FIRST = 40 };
    pair p = {.ctx = new_context(model, pool, n_batch)};
    for (int i = 0; i < 2; i++) CHECK(fastgpt_kv_cache_create_typed(model, 0, type, &p.kv[i]) == FASTGPT_OK);
    CHECK(fastgpt_prefill(p.ctx, p.kv[0], tokens + 1, N_PAST, NULL) == FASTGPT_OK);
    p.spans[0] = (fastgpt_span){.kv = p.kv[0], .tokens = tokens, .n_tokens = N_FIRST};
    p.spans[1] = (fastgpt_span){.kv = p.kv[1], .tokens = tokens + N_FIRST, .n_tokens = N_TOKENS - N_FIRST};
    return p;
}

static void free_pair(pair p) {
    fastgpt_kv_cache_free(p.kv[0]);
    fastgpt_kv_cache_free(p.kv[1]);
    fastgpt_context_free(p.ctx);
}

static int32_t pair_keys(const pair *p) { return p->spans[0].n_tokens + N_PAST; }

/* The step, with taps; logits after each token. */
static tapped run_tapped_step(fastgpt_pool *pool, int32_t n_batch, fastgpt_type type) {
    pair p = new_pair(pool, n_batch, type);
    tapped s = new_tapped(N_TOKENS, pair_keys(&p));
    fastgpt_step_options options = {.struct_size = sizeof options, .all_logits = 1, .taps = &s.to};
    CHECK(fastgpt_step(p.ctx, p.spans, 2, &options, s.logits) == FASTGPT_OK);
    free_pair(p);
    return s;
}

static void test_threads_and_slices_do_not_matter(void) {
    static const int32_t n_batches[] = {0, 1, 3, 33, 69};
    tapped expected = run_tapped_step(NULL, 0, FASTGPT_TYPE_F32);
    for (int b = 0; b < 5; b++) {
        tapped alone = run_tapped_step(NULL, n_batches[b], FASTGPT_TYPE_F32);
        double difference = largest_difference(alone.to.hidden, expected.to.hidden, alone.n_floats);
        CHECK_FOR(difference < TOLERANCE, "n_batch %d: %g", n_batches[b], difference);
        for (int32_t n_threads = 2; n_threads <= 4; n_threads++) {
            fastgpt_pool *pool = new_pool(n_threads);
            tapped s = run_tapped_step(pool, n_batches[b], FASTGPT_TYPE_F32);
            CHECK_FOR(same_floats(s.to.hidden, alone.to.hidden, s.n_floats), "%d threads, n_batch %d", n_threads,
                      n_batches[b]);
            free_tapped(s);
            fastgpt_pool_free(pool);
        }
        free_tapped(alone);
    }
    free_tapped(expected);
}

/* Neither logits nor caches change, and what is not wanted is not written. */
static void test_taps_change_nothing(void) {
    tapped s = run_tapped_step(NULL, 0, FASTGPT_TYPE_F32);
    pair p = new_pair(NULL, 0, FASTGPT_TYPE_F32), tapped = new_pair(NULL, 0, FASTGPT_TYPE_F32);
    float *logits = new_floats(N_TOKENS * n_vocab), *hidden = new_floats((n_layer + 1) * N_TOKENS * n_embd);
    fastgpt_taps one = {.struct_size = sizeof one, .hidden = hidden};
    fastgpt_step_options options = {.struct_size = sizeof options, .all_logits = 1};
    CHECK(fastgpt_step(p.ctx, p.spans, 2, &options, logits) == FASTGPT_OK);
    CHECK(same_floats(logits, s.logits, N_TOKENS * n_vocab));
    options.taps = &one;
    CHECK(fastgpt_step(tapped.ctx, tapped.spans, 2, &options, NULL) == FASTGPT_OK);
    CHECK(same_floats(hidden, s.to.hidden, (n_layer + 1) * N_TOKENS * n_embd));
    int64_t n_kept = pair_keys(&p) * n_embd;
    for (int32_t l = 0; l < n_layer; l++)
        CHECK(same_floats(fastgpt_kv_cache_keys(p.kv[0], l), fastgpt_kv_cache_keys(tapped.kv[0], l), n_kept));
    memset(hidden, 0, sizeof *hidden);
    CHECK(fastgpt_decode(tapped.ctx, tapped.kv[1], 0, logits) == FASTGPT_OK && hidden[0] == 0);
    free(logits);
    free(hidden);
    free_pair(p);
    free_pair(tapped);
    free_tapped(s);
}

/* ln_f of the last hidden state times the output matrix is the logits; a row's bits do not depend on the others. */
static void test_unembed(void) {
    tapped s = run_tapped_step(NULL, 0, FASTGPT_TYPE_F32);
    fastgpt_context *many = new_context(model, NULL, 0), *few = new_context(model, NULL, 7);
    const float *last = s.to.hidden + n_layer * N_TOKENS * n_embd;
    float *logits = new_floats(N_TOKENS * n_vocab), *rows = new_floats(N_TOKENS * n_vocab);
    CHECK(fastgpt_unembed(many, last, N_TOKENS, logits) == FASTGPT_OK);
    CHECK(largest_difference(logits, s.logits, N_TOKENS * n_vocab) < TOLERANCE);
    for (int32_t first = 0, n; first < N_TOKENS; first += n) {
        n = 1 + first % 20 < N_TOKENS - first ? 1 + first % 20 : N_TOKENS - first;
        CHECK(fastgpt_unembed(few, last + first * n_embd, n, rows + first * n_vocab) == FASTGPT_OK);
    }
    CHECK(same_floats(rows, logits, N_TOKENS * n_vocab));
    fastgpt_context_free(few);
    fastgpt_context_free(many);
    free(logits);
    free(rows);
    free_tapped(s);
}

/* A prediction from the last of a prompt's hidden states is the prompt's own, to the bit of a deterministic step. */
static void test_unembed_equals_prefill(void) {
    fastgpt_context *ctx = new_context(model, NULL, 0);
    fastgpt_kv_cache *kv = new_cache(model, 0);
    float *hidden = new_floats((n_layer + 1) * N_TOKENS * n_embd), *logits = new_floats(2 * n_vocab);
    fastgpt_taps to = {.struct_size = sizeof to, .hidden = hidden};
    fastgpt_step_options options = {.struct_size = sizeof options, .taps = &to, .deterministic = 1};
    fastgpt_span span = {.kv = kv, .tokens = tokens, .n_tokens = N_TOKENS};
    CHECK(fastgpt_step(ctx, &span, 1, &options, logits) == FASTGPT_OK);
    CHECK(fastgpt_unembed(ctx, hidden + ((n_layer + 1) * N_TOKENS - 1) * n_embd, 1, logits + n_vocab) == FASTGPT_OK);
    CHECK(same_floats(logits, logits + n_vocab, n_vocab));
    free(hidden);
    free(logits);
    fastgpt_kv_cache_free(kv);
    fastgpt_context_free(ctx);
}

static void check_row(const float *row, int32_t n_visible, int32_t n_keys, const char *what, int32_t t) {
    double sum = 0, least = 1;
    for (int32_t i = 0; i < n_visible; i++) sum += row[i];
    for (int32_t i = 0; i < n_visible; i++) least = row[i] < least ? row[i] : least;
    CHECK_FOR(fabs(sum - 1) < 1e-5 && least >= 0, "%s, token %d: sum %g, least %g", what, t, sum, least);
    for (int32_t i = n_visible; i < n_keys; i++) CHECK_FOR(row[i] == 0, "%s, token %d sees position %d", what, t, i);
}

/* Rows sum to 1 and see no later position, in caches of every type; a head that is named twice is given twice. */
static void test_attention(void) {
    static const fastgpt_type types[] = {FASTGPT_TYPE_F32, FASTGPT_TYPE_F16, FASTGPT_TYPE_BF16};
    static const char *const names[] = {"f32", "f16", "bf16"};
    for (int i = 0; i < 3; i++) {
        tapped s = run_tapped_step(NULL, 16, types[i]);
        int64_t n_keys = s.to.n_keys, head = N_TOKENS * n_keys;
        int32_t n_first = (int32_t)n_keys - N_PAST;
        for (int32_t c = 0; c < N_CHOSEN; c++)
            for (int32_t t = 0; t < N_TOKENS; t++)
                check_row(s.to.attention + c * head + t * n_keys, t < n_first ? N_PAST + t + 1 : t - n_first + 1,
                          (int32_t)n_keys, names[i], t);
        CHECK(same_floats(s.to.attention, s.to.attention + 3 * head, head));
        for (int other = 1; other <= 2; other++)
            CHECK(largest_difference(s.to.attention, s.to.attention + other * head, head) > 0.01);
        free_tapped(s);
    }
}

/* Attention over positions in a shared prefix equals attention over positions of the cache's own. */
static void test_attention_over_a_shared_prefix(void) {
    fastgpt_context *ctx = new_context(model, NULL, 0);
    fastgpt_kv_cache *whole = new_cache(model, 0), *fork;
    CHECK(fastgpt_prefill(ctx, whole, tokens, 20, NULL) == FASTGPT_OK);
    CHECK(fastgpt_kv_cache_fork(whole, 13, 0, &fork) == FASTGPT_OK);
    CHECK(fastgpt_kv_cache_truncate(whole, 0) == FASTGPT_OK);
    tapped s[2] = {new_tapped(30, 43), new_tapped(30, 43)};
    fastgpt_span spans[2] = {{.kv = whole, .tokens = tokens, .n_tokens = 13},
                             {.kv = fork, .tokens = tokens + 13, .n_tokens = 30}};
    CHECK(fastgpt_step(ctx, &spans[0], 1, NULL, NULL) == FASTGPT_OK);
    spans[0] = (fastgpt_span){.kv = whole, .tokens = tokens + 13, .n_tokens = 30};
    for (int i = 0; i < 2; i++) {
        fastgpt_step_options options = {.struct_size = sizeof options, .all_logits = 1, .taps = &s[i].to};
        CHECK(fastgpt_step(ctx, &spans[i], 1, &options, s[i].logits) == FASTGPT_OK);
    }
    double difference = largest_difference(s[0].to.hidden, s[1].to.hidden, s[0].n_floats);
    CHECK_FOR(difference < TOLERANCE, "%g", difference);
    free_tapped(s[0]);
    free_tapped(s[1]);
    fastgpt_kv_cache_free(fork);
    fastgpt_kv_cache_free(whole);
    fastgpt_context_free(ctx);
}

/* ---- Refusals ---- */

static void check_refused(const fastgpt_taps *to, const char *what) {
    pair p = new_pair(NULL, 0, FASTGPT_TYPE_F32);
    fastgpt_step_options options = {.struct_size = sizeof options, .taps = to};
    CHECK_FOR(fastgpt_step(p.ctx, p.spans, 2, &options, NULL) == FASTGPT_ERR_ARGUMENT, "%s", what);
    CHECK(fastgpt_kv_cache_n_past(p.kv[0]) == N_PAST && fastgpt_kv_cache_n_past(p.kv[1]) == 0);
    free_pair(p);
}

static void test_refusals(void) {
    static const fastgpt_head none[] = {{-1, 0}, {2, 0}, {0, -1}, {0, 3}, {INT32_MAX, 0}};
    tapped s = run_tapped_step(NULL, 0, FASTGPT_TYPE_F32);
    fastgpt_taps to = s.to;
    for (int i = 0; i < 5; i++) {
        fastgpt_head heads[] = {{0, 0}, none[i]};
        to.heads = heads, to.n_heads = 2;
        check_refused(&to, "no such head");
    }
    to = s.to, to.n_keys--;
    check_refused(&to, "n_keys");
    to = s.to, to.n_heads = -1;
    check_refused(&to, "n_heads");
    to = s.to, to.heads = NULL;
    check_refused(&to, "heads");
    to = s.to, to.attention = NULL;
    check_refused(&to, "attention");
    to = s.to, to.struct_size = sizeof to + 1;
    check_refused(&to, "struct_size");
    free_tapped(s);
}

static void test_unembed_refusals(void) {
    fastgpt_context *ctx = new_context(model, NULL, 0);
    float *x = new_floats(n_embd), *logits = new_floats(n_vocab), *untouched = new_floats(n_vocab);
    CHECK(fastgpt_unembed(NULL, x, 1, logits) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_unembed(ctx, NULL, 1, logits) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_unembed(ctx, x, 1, NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_unembed(ctx, x, 0, logits) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_unembed(ctx, x, INT32_MIN, logits) == FASTGPT_ERR_ARGUMENT);
    CHECK(same_floats(logits, untouched, n_vocab));
    free(x);
    free(logits);
    free(untouched);
    fastgpt_context_free(ctx);
}

int main(void) {
    model = load_shape(small_shape, false);
    n_vocab = fastgpt_model_n_vocab(model);
    n_embd = fastgpt_model_n_embd(model);
    n_layer = fastgpt_model_n_layer(model);
    random_tokens(&seed, tokens, N_TOKENS, (int32_t)n_vocab);
    test_threads_and_slices_do_not_matter();
    test_taps_change_nothing();
    test_unembed();
    test_unembed_equals_prefill();
    test_attention();
    test_attention_over_a_shared_prefix();
    test_refusals();
    test_unembed_refusals();
    fastgpt_model_free(model);
    return check_report();
}
