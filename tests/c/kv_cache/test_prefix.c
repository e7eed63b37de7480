/* test_prefix.c - caches that share a prefix: steps give the bits of caches that do not, the prefix is stored once, and
 * it lives until its last owner is freed, in any thread. */
#include <pthread.h>

#include "support/session.h"

enum { N_BASE = 45, N_FORKS = 6, N_CTX = 80 };

static uint64_t seed = 9;
static fastgpt_model *model;
static int64_t n_vocab;
static int32_t tokens[N_CTX];

static const fastgpt_type types[] = {FASTGPT_TYPE_F32, FASTGPT_TYPE_F16, FASTGPT_TYPE_BF16};

static fastgpt_kv_cache *base_cache(fastgpt_context *ctx, fastgpt_type type) {
    fastgpt_kv_cache *kv;
    if (!CHECK(fastgpt_kv_cache_create_typed(model, 0, type, &kv) == FASTGPT_OK)) abort();
    CHECK(fastgpt_prefill(ctx, kv, tokens, N_BASE, NULL) == FASTGPT_OK);
    return kv;
}

static fastgpt_kv_cache *fork_at(fastgpt_kv_cache *kv, int32_t n_prefix, int32_t n_ctx) {
    fastgpt_kv_cache *fork;
    if (!CHECK(fastgpt_kv_cache_fork(kv, n_prefix, n_ctx, &fork) == FASTGPT_OK)) abort();
    CHECK(fastgpt_kv_cache_n_past(fork) == n_prefix && fastgpt_kv_cache_n_prefix(fork) == n_prefix);
    CHECK(memcmp(fastgpt_kv_cache_tokens(fork), tokens, (size_t)n_prefix * sizeof *tokens) == 0);
    return fork;
}

/* The same positions, shared with nobody. */
static fastgpt_kv_cache *unshared(const fastgpt_kv_cache *base, int32_t n) {
    fastgpt_kv_cache *kv;
    if (!CHECK(fastgpt_kv_cache_copy(base, &kv) == FASTGPT_OK)) abort();
    CHECK(fastgpt_kv_cache_truncate(kv, n) == FASTGPT_OK && fastgpt_kv_cache_n_prefix(kv) == 0);
    return kv;
}

/* ---- Same bits ---- */

/* Logits of a step of counts[i] tokens for each cache. */
static float *step(fastgpt_context *ctx, fastgpt_kv_cache *const *caches, int n, const int32_t *counts,
                   bool deterministic) {
    fastgpt_step_options options = {.struct_size = sizeof options, .deterministic = deterministic};
    fastgpt_span spans[N_FORKS + 1];
    float *logits = new_floats(n * n_vocab);
    for (int i = 0; i < n; i++) spans[i] = (fastgpt_span){.kv = caches[i], .tokens = tokens + i, .n_tokens = counts[i]};
    CHECK(fastgpt_step(ctx, spans, n, &options, logits) == FASTGPT_OK);
    return logits;
}

/* Tails of one to many tokens, then decodes, then few tokens again: streams of several groups, and blocks between. */
static void check_steps(fastgpt_context *ctx, fastgpt_kv_cache *const *shared, fastgpt_kv_cache *const *apart, int n,
                        bool deterministic, const char *what) {
    static const int32_t rounds[][N_FORKS + 1] = {
        {1, 3, 1, 2, 5, 1, 2}, {1, 1, 1, 1, 1, 1, 1}, {2, 1, 12, 1, 1, 3, 1}, {1, 1, 1, 1, 1, 1, 1}};
    for (int r = 0; r < 4; r++) {
        float *with = step(ctx, shared, n, rounds[r], deterministic);
        float *without = step(ctx, apart, n, rounds[r], deterministic);
        CHECK_FOR(same_floats(with, without, n * n_vocab), "%s, deterministic %d, round %d: %g", what, deterministic, r,
                  largest_difference(with, without, n * n_vocab));
        free(with);
        free(without);
    }
}

/* Forks at several places of one base, side by side and not, and the base itself; a step of theirs against one of
 * caches that share nothing. */
static void test_forks_give_the_same_bits(fastgpt_pool *pool) {
    static const int32_t places[N_FORKS] = {40, 40, 40, 17, 17, 1};
    fastgpt_context *ctx = new_context(model, pool, 0);
    for (int i = 0; i < 6; i++) {
        fastgpt_kv_cache *base = base_cache(ctx, types[i / 2]), *shared[N_FORKS + 1], *apart[N_FORKS + 1];
        for (int f = 0; f < N_FORKS; f++) apart[f] = unshared(base, places[f]);
        apart[N_FORKS] = unshared(base, N_BASE);
        for (int f = 0; f < N_FORKS; f++) shared[f] = fork_at(base, places[f], 0);
        shared[N_FORKS] = base;
        check_steps(ctx, shared, apart, N_FORKS + 1, i % 2, fastgpt_type_name(types[i / 2]));
        for (int f = 0; f <= N_FORKS; f++) {
            fastgpt_kv_cache_free(shared[f]);
            fastgpt_kv_cache_free(apart[f]);
        }
    }
    fastgpt_context_free(ctx);
}

/* ---- One prefix, and tails ---- */

static void test_memory(void) {
    fastgpt_context *ctx = new_context(model, NULL, 0);
    fastgpt_kv_cache *base = base_cache(ctx, FASTGPT_TYPE_F32), *short_one = new_cache(model, 1);
    size_t position = 2 * sizeof(float) * (size_t)(fastgpt_model_n_layer(model) * fastgpt_model_n_embd(model));
    size_t empty = fastgpt_kv_cache_sizeof(short_one) - position - sizeof(int32_t);
    fastgpt_kv_cache *fork = fork_at(base, 40, 50), *again = fork_at(fork, 40, 60), *deeper;
    CHECK(fastgpt_kv_cache_prefix_sizeof(short_one) == 0 && !fastgpt_kv_cache_prefix_keys(short_one, 0));
    CHECK(fastgpt_kv_cache_sizeof(fork) == empty + 10 * position + 50 * sizeof(int32_t));
    CHECK(fastgpt_kv_cache_sizeof(base) == empty + (N_CTX - 40) * position + N_CTX * sizeof(int32_t));
    size_t n = fastgpt_kv_cache_prefix_sizeof(base);
    CHECK(n >= 40 * position && n < 40 * position + 100);
    for (int32_t l = 0; l < fastgpt_model_n_layer(model); l++) {
        CHECK(fastgpt_kv_cache_prefix_keys(fork, l) == fastgpt_kv_cache_prefix_keys(base, l));
        CHECK(fastgpt_kv_cache_prefix_values(again, l) == fastgpt_kv_cache_prefix_values(base, l));
        CHECK(fastgpt_kv_cache_prefix_values(fork, l) != fastgpt_kv_cache_prefix_keys(fork, l));
    }
    CHECK(!fastgpt_kv_cache_prefix_keys(fork, -1) && !fastgpt_kv_cache_prefix_values(fork, 1000));
    CHECK(fastgpt_kv_cache_fork(base, 43, 0, &deeper) == FASTGPT_OK);
    CHECK(fastgpt_kv_cache_prefix_keys(base, 0) == fastgpt_kv_cache_prefix_keys(deeper, 0));
    CHECK(fastgpt_kv_cache_prefix_keys(fork, 0) != fastgpt_kv_cache_prefix_keys(deeper, 0));
    fastgpt_kv_cache *all[] = {base, fork, again, deeper, short_one};
    for (int i = 0; i < 5; i++) fastgpt_kv_cache_free(all[i]);
    fastgpt_context_free(ctx);
}

/* ---- Forks of forks: prefixes that grow ---- */

/* Decodes a token in both caches, which hold the same: the logits are the same bits. */
static void check_decode(fastgpt_context *ctx, fastgpt_kv_cache *shared, fastgpt_kv_cache *apart, int32_t token) {
    float *with = new_floats(n_vocab), *without = new_floats(n_vocab);
    CHECK(fastgpt_decode(ctx, shared, token, with) == FASTGPT_OK);
    CHECK(fastgpt_decode(ctx, apart, token, without) == FASTGPT_OK);
    CHECK_FOR(same_floats(with, without, n_vocab), "position %d", fastgpt_kv_cache_n_past(apart) - 1);
    free(with);
    free(without);
}

/* A text is forked after each token and continued in the fork; its rows are moved to a larger prefix only when the old
 * one is full.  A second fork at one position diverges: the text has claimed the next row of the shared prefix, so
 * extending the second fork's prefix copies it. */
static void test_growing_prefix(fastgpt_type type) {
    enum { N_FIRST = 9, N_BRANCH = 15, N_LAST = 60 };
    fastgpt_context *ctx = new_context(model, NULL, 0);
    fastgpt_kv_cache *base = base_cache(ctx, type), *text = unshared(base, N_FIRST), *apart = unshared(base, N_FIRST);
    fastgpt_kv_cache *branch = NULL, *branch_apart = NULL, *further = NULL;
    const void *rows = NULL;
    int n_moves = 0;
    for (int32_t n = N_FIRST; n < N_LAST; n++) {
        fastgpt_kv_cache *fork = fork_at(text, n, n + 1);
        n_moves += fastgpt_kv_cache_prefix_keys(fork, 0) != rows;
        rows = fastgpt_kv_cache_prefix_keys(fork, 0);
        if (n == N_BRANCH) {
            branch = fork_at(text, n, N_CTX), branch_apart = unshared(apart, n);
            check_decode(ctx, branch, branch_apart, tokens[0]);
        } else if (n == N_BRANCH + 1) {
            CHECK(fastgpt_kv_cache_prefix_keys(branch, 0) == rows);
            CHECK(fastgpt_kv_cache_fork(branch, n, 0, &further) == FASTGPT_OK);
            CHECK(fastgpt_kv_cache_prefix_keys(further, 0) != rows);
            check_decode(ctx, further, branch_apart, tokens[1]);
        }
        check_decode(ctx, fork, apart, tokens[n]);
        fastgpt_kv_cache_free(text);
        text = fork;
    }
    CHECK_FOR(n_moves == 4, "%d moves", n_moves); /* to 9 rows, 20, 42, 80 */
    fastgpt_kv_cache *all[] = {base, text, apart, branch, branch_apart, further};
    for (int i = 0; i < 6; i++) fastgpt_kv_cache_free(all[i]);
    fastgpt_context_free(ctx);
}

/* A fork that was truncated into its prefix, copied, saved or loaded equals an unshared cache. */
static void test_truncated_copied_saved_and_loaded(void) {
    fastgpt_context *ctx = new_context(model, NULL, 0);
    for (int32_t n = 0; n <= 44; n += 11) {
        temporary_file file = write_temporary("", 0);
        fastgpt_kv_cache *base = base_cache(ctx, FASTGPT_TYPE_F32), *shared[4], *apart[4];
        for (int i = 0; i < 4; i++) apart[i] = unshared(base, i < 2 ? n : 42);
        shared[0] = fork_at(base, 40, 0);
        CHECK(fastgpt_decode(ctx, shared[0], 3, NULL) == FASTGPT_OK);
        CHECK(n > 41 || fastgpt_kv_cache_truncate(shared[0], n) == FASTGPT_OK);
        if (n > 41) fastgpt_kv_cache_free(shared[0]), shared[0] = fork_at(base, n, 0);
        CHECK(fastgpt_kv_cache_n_prefix(shared[0]) == (n > 41 ? n : n < 40 ? n : 40));
        CHECK(fastgpt_kv_cache_copy(shared[0], &shared[1]) == FASTGPT_OK);
        CHECK(fastgpt_kv_cache_truncate(base, 42) == FASTGPT_OK);
        CHECK(fastgpt_kv_cache_save(base, model, file.path, NULL) == FASTGPT_OK);
        CHECK(fastgpt_kv_cache_load(model, file.path, 0, &shared[2], NULL) == FASTGPT_OK);
        shared[3] = base;
        check_steps(ctx, shared, apart, 4, true, "truncated, copied, saved and loaded");
        for (int i = 0; i < 4; i++) fastgpt_kv_cache_free(shared[i]), fastgpt_kv_cache_free(apart[i]);
        unlink(file.path);
    }
    fastgpt_context_free(ctx);
}

static void test_arguments(void) {
    fastgpt_context *ctx = new_context(model, NULL, 0);
    fastgpt_kv_cache *base = base_cache(ctx, FASTGPT_TYPE_F32), *out = base;
    CHECK(fastgpt_kv_cache_fork(NULL, 0, 0, &out) == FASTGPT_ERR_ARGUMENT && !out);
    CHECK(fastgpt_kv_cache_fork(base, 1, 0, NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_kv_cache_fork(base, -1, 0, &out) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_kv_cache_fork(base, N_BASE + 1, 0, &out) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_kv_cache_fork(base, 10, 9, &out) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_kv_cache_fork(base, 10, N_CTX + 1, &out) == FASTGPT_ERR_ARGUMENT && !out);
    CHECK(fastgpt_kv_cache_n_prefix(base) == 0);
    CHECK(fastgpt_kv_cache_fork(base, 10, 10, &out) == FASTGPT_OK); /* full from the start */
    CHECK(fastgpt_decode(ctx, out, 1, NULL) == FASTGPT_ERR_CONTEXT_FULL);
    fastgpt_kv_cache_free(out);
    fastgpt_kv_cache_free(base);
    fastgpt_context_free(ctx);
}

/* ---- Threads ---- */

/* What a thread uses: created before it starts, since CHECK is for one thread. */
typedef struct user {
    fastgpt_kv_cache *fork;
    fastgpt_context *ctx;
    float *logits;
    bool right;
} user;

/* Steps, forks at a later position and frees its cache, while others do the same: one of them can claim the next rows
 * of the prefix. */
static void *use_fork(void *arg) {
    user *u = arg;
    fastgpt_kv_cache *more;
    u->right = fastgpt_prefill(u->ctx, u->fork, tokens, 7, NULL) == FASTGPT_OK &&
               fastgpt_kv_cache_fork(u->fork, 40, 0, &more) == FASTGPT_OK;
    fastgpt_kv_cache_free(u->fork);
    if (!u->right) return NULL;
    u->right = fastgpt_decode(u->ctx, more, tokens[7], u->logits) == FASTGPT_OK;
    fastgpt_kv_cache_free(more);
    return NULL;
}

static void test_threads(void) {
    fastgpt_context *ctx = new_context(model, NULL, 0);
    pthread_t threads[N_FORKS];
    user users[N_FORKS];
    fastgpt_kv_cache *base = base_cache(ctx, FASTGPT_TYPE_F32), *apart = unshared(base, 33);
    float *expected = new_floats(n_vocab);
    CHECK(fastgpt_prefill(ctx, apart, tokens, 7, NULL) == FASTGPT_OK);
    CHECK(fastgpt_decode(ctx, apart, tokens[7], expected) == FASTGPT_OK);
    fastgpt_kv_cache_free(fork_at(base, 32, 0)); /* so that the next prefix has free rows */
    for (int i = 0; i < N_FORKS; i++)
        users[i] = (user){fork_at(base, 33, 0), new_context(model, NULL, 0), new_floats(n_vocab), false};
    for (int i = 0; i < N_FORKS; i++) CHECK(pthread_create(&threads[i], NULL, use_fork, &users[i]) == 0);
    fastgpt_kv_cache_free(base);
    for (int i = 0; i < N_FORKS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0 && users[i].right);
        CHECK(same_floats(users[i].logits, expected, n_vocab));
        fastgpt_context_free(users[i].ctx);
        free(users[i].logits);
    }
    free(expected);
    fastgpt_kv_cache_free(apart);
    fastgpt_context_free(ctx);
}

int main(void) {
    model = load_shape(small_shape, false);
    n_vocab = fastgpt_model_n_vocab(model);
    random_tokens(&seed, tokens, N_CTX, (int32_t)n_vocab);
    fastgpt_pool *pool = new_pool(3);
    test_forks_give_the_same_bits(NULL);
    test_forks_give_the_same_bits(pool);
    test_memory();
    for (int i = 0; i < 3; i++) test_growing_prefix(types[i]);
    test_truncated_copied_saved_and_loaded();
    test_arguments();
    test_threads();
    fastgpt_pool_free(pool);
    fastgpt_model_free(model);
    return check_report();
}
