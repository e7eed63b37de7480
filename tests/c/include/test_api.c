/* test_api.c - the promises of fastgpt.h that are not about numbers: each status where it is promised, outputs and
 * caches as they were on an error, sizes, limits and words. */
#include "support/session.h"

#include <math.h>

static fastgpt_model *model;
static int32_t n_vocab;

/* ---- Words ---- */

static void test_status_text(void) {
    for (int a = 0; a <= 16; a++) {
        const char *text = fastgpt_status_text((fastgpt_status)a);
        CHECK_FOR(text && strlen(text) > 5, "status %d", a);
        for (int b = 0; b < a; b++) CHECK_FOR(strcmp(text, fastgpt_status_text((fastgpt_status)b)) != 0, "%d %d", a, b);
    }
    CHECK(strcmp(fastgpt_status_text((fastgpt_status)17), "unknown status") == 0);
    CHECK(strcmp(fastgpt_status_text((fastgpt_status)1000000), "unknown status") == 0);
    CHECK(FASTGPT_ERR_THREADS == 13 && FASTGPT_ERR_CANCELLED == 11 && FASTGPT_OK == 0); /* fixed for ever */
}

static void test_names(void) {
    CHECK(strcmp(fastgpt_site_name(FASTGPT_SITE_EMBED), "embed") == 0);
    CHECK(fastgpt_model_kv_type(model) == FASTGPT_TYPE_F32); /* as its weights */
    int major, minor, patch, n = 0;
    CHECK(sscanf(fastgpt_version(), "%d.%d.%d%n", &major, &minor, &patch, &n) == 3 && fastgpt_version()[n] == 0);
    CHECK(fastgpt_abi_version() == FASTGPT_ABI_VERSION);
    CHECK(strncmp(fastgpt_build_info(), "BLAS ", 5) == 0 && strstr(fastgpt_build_info(), fastgpt_kernels_name()));
    CHECK(strlen(fastgpt_blas_name()) > 0);
}

static void test_free_null(void) {
    fastgpt_model_free(NULL);
    fastgpt_pool_free(NULL);
    fastgpt_kv_cache_free(NULL);
    fastgpt_context_free(NULL);
    fastgpt_sampler_free(NULL);
    fastgpt_cancel(NULL);
}

/* ---- Creation ---- */

static void test_load_arguments(void) {
    fastgpt_load_options options = {.struct_size = sizeof options};
    fastgpt_model *m = model;
    fastgpt_error error;
    CHECK(fastgpt_model_load("x", NULL, NULL, &error) == FASTGPT_ERR_ARGUMENT && strstr(error.text, "out"));
    CHECK(fastgpt_model_load("x", NULL, NULL, NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_model_load(NULL, NULL, &m, &error) == FASTGPT_ERR_ARGUMENT && !m && strstr(error.text, "path"));
    static const int changes[] = {1, 1000, -16}; /* longer than ours, and shorter than the first release's */
    for (int i = 0; i < 3; i++) {
        options.struct_size = sizeof options + (size_t)changes[i];
        m = model;
        CHECK(fastgpt_model_load("x", &options, &m, &error) == FASTGPT_ERR_ARGUMENT && !m);
        CHECK(strstr(error.text, "struct_size") != NULL);
    }
}

/* A program of the first release, whose struct ended before vocab_only, in bytes that it did not set. */
static void test_first_load_options(void) {
    fastgpt_load_options options = {.no_mmap = 1, .padding = -1, .vocab_only = -1};
    draft d = draft_of(small_shape);
    buffer file = draft_write(&d, NULL);
    options.struct_size = offsetof(fastgpt_load_options, vocab_only);
    fastgpt_model *m;
    CHECK(fastgpt_model_load_memory(file.data, file.n, &options, &m, NULL) == FASTGPT_OK);
    CHECK(fastgpt_model_n_layer(m) == (int32_t)small_shape.n_layer);
    fastgpt_model_free(m);
    free(file.data);
    draft_free(&d);
}

static void test_load_memory_arguments(void) {
    static const uint8_t bytes[64] = "GGUF";
    fastgpt_model *m = model;
    fastgpt_error error;
    CHECK(fastgpt_model_load_memory(bytes, 64, NULL, NULL, &error) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_model_load_memory(NULL, 64, NULL, &m, &error) == FASTGPT_ERR_ARGUMENT && !m);
    CHECK(fastgpt_model_load_memory(bytes, 0, NULL, &m, NULL) == FASTGPT_ERR_ARGUMENT && !m);
    CHECK(fastgpt_model_load_memory(bytes, 64, NULL, &m, &error) == FASTGPT_ERR_UNSUPPORTED && !m);
    fastgpt_load_options options = {.struct_size = 1};
    CHECK(fastgpt_model_load_memory(bytes, 64, &options, &m, &error) == FASTGPT_ERR_ARGUMENT && !m);
}

/* The text is cut where a path is endless, and ends with NUL all the same. */
static void test_long_path(void) {
    char path[2000];
    fastgpt_model *m;
    fastgpt_error error;
    memset(error.text, 'x', sizeof error.text);
    memset(path, 'a', sizeof path - 1);
    path[sizeof path - 1] = 0;
    CHECK(fastgpt_model_load(path, NULL, &m, &error) == FASTGPT_ERR_IO && !m);
    CHECK(strlen(error.text) == sizeof error.text - 1);
}

static void test_pool_arguments(void) {
    static const int32_t bad[] = {-1, INT32_MIN, 1025, INT32_MAX};
    CHECK(fastgpt_usable_cores() >= 1);
    for (int i = 0; i < 4; i++) {
        fastgpt_pool *pool = (fastgpt_pool *)&model;
        CHECK(fastgpt_pool_create(bad[i], &pool) == FASTGPT_ERR_ARGUMENT && !pool);
    }
    CHECK(fastgpt_pool_create(1, NULL) == FASTGPT_ERR_ARGUMENT);
    fastgpt_pool *pool = new_pool(0);
    CHECK(fastgpt_pool_n_threads(pool) == fastgpt_usable_cores());
    fastgpt_pool_free(pool);
    pool = new_pool(1024); /* started at the first step only, which there is none of */
    CHECK(fastgpt_pool_n_threads(pool) == 1024);
    fastgpt_pool_free(pool);
}

static void test_cache_arguments(void) {
    const int32_t n_ctx = fastgpt_model_n_ctx(model), bad[] = {-1, INT32_MIN, n_ctx + 1, INT32_MAX};
    for (int i = 0; i < 4; i++) {
        fastgpt_kv_cache *kv = (fastgpt_kv_cache *)&model;
        CHECK(fastgpt_kv_cache_create(model, bad[i], &kv) == FASTGPT_ERR_ARGUMENT && !kv);
    }
    fastgpt_kv_cache *kv = (fastgpt_kv_cache *)&model;
    CHECK(fastgpt_kv_cache_create(NULL, 1, &kv) == FASTGPT_ERR_ARGUMENT && !kv);
    CHECK(fastgpt_kv_cache_create(model, 1, NULL) == FASTGPT_ERR_ARGUMENT);
    fastgpt_kv_cache *whole = new_cache(model, 0), *one = new_cache(model, 1);
    size_t floats = 2 * (size_t)fastgpt_model_n_layer(model) * (size_t)fastgpt_model_n_embd(model);
    CHECK(fastgpt_kv_cache_n_ctx(whole) == n_ctx && fastgpt_kv_cache_n_ctx(one) == 1);
    CHECK(fastgpt_kv_cache_n_past(whole) == 0);
    CHECK(fastgpt_kv_cache_sizeof(whole) - fastgpt_kv_cache_sizeof(one) == 4 * (floats + 1) * (size_t)(n_ctx - 1));
    fastgpt_kv_cache_free(whole);
    fastgpt_kv_cache_free(one);
}

static void cache_refused(int32_t n_ctx, fastgpt_type type, const char *culprit) {
    fastgpt_kv_cache *kv = (fastgpt_kv_cache *)&model;
    fastgpt_error error;
    CHECK(fastgpt_kv_cache_create_checked(model, n_ctx, type, &kv, &error) == FASTGPT_ERR_ARGUMENT && !kv);
    CHECK_FOR(strstr(error.text, culprit), "\"%s\"", error.text);
}

/* Which argument is wrong, what it is and what it may be. */
static void test_cache_words(void) {
    fastgpt_kv_cache *kv = (fastgpt_kv_cache *)&model;
    fastgpt_error error;
    cache_refused(-1, FASTGPT_TYPE_F32, "n_ctx is -1, not in [0, 80]");
    cache_refused(81, FASTGPT_TYPE_F32, "n_ctx is 81");
    cache_refused(0, FASTGPT_TYPE_Q8_0, "Q8_0");
    cache_refused(0, (fastgpt_type)99, "type 99");
    CHECK(fastgpt_kv_cache_create_checked(NULL, 0, FASTGPT_TYPE_F32, &kv, &error) == FASTGPT_ERR_ARGUMENT && !kv);
    CHECK(strstr(error.text, "model") != NULL);
    CHECK(fastgpt_kv_cache_create_checked(model, 0, FASTGPT_TYPE_F32, NULL, &error) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_kv_cache_create_checked(model, 3, FASTGPT_TYPE_F16, &kv, &error) == FASTGPT_OK && !error.text[0]);
    fastgpt_kv_cache_free(kv);
}

/* Structs through a pointer are those that come by value. */
static void test_structs_by_pointer(void) {
    fastgpt_strings tokens, merges, same_tokens = fastgpt_model_tokens(model), same = fastgpt_model_merges(model);
    fastgpt_cores cores, same_cores = fastgpt_core_counts();
    fastgpt_model_get_tokens(model, &tokens);
    fastgpt_model_get_merges(model, &merges);
    fastgpt_get_core_counts(&cores);
    CHECK(tokens.n == same_tokens.n && tokens.text == same_tokens.text && tokens.offsets == same_tokens.offsets);
    CHECK(merges.n == same.n && merges.text == same.text && merges.offsets == same.offsets);
    CHECK(cores.usable == same_cores.usable && cores.online == same_cores.online);
}

/* Half the numbers' bytes for the 16-bit types; block formats hold no cache. */
static void test_cache_types(void) {
    static const fastgpt_type good[] = {FASTGPT_TYPE_F32, FASTGPT_TYPE_F16, FASTGPT_TYPE_BF16};
    static const int bad[] = {FASTGPT_TYPE_Q8_0, FASTGPT_TYPE_Q4_0, FASTGPT_TYPE_Q6_K, 3, -1};
    size_t numbers = 2 * (size_t)(fastgpt_model_n_layer(model) * fastgpt_model_n_embd(model));
    fastgpt_kv_cache *one, *three;
    for (int i = 0; i < 3; i++) {
        CHECK(fastgpt_kv_cache_create_typed(model, 1, good[i], &one) == FASTGPT_OK);
        CHECK(fastgpt_kv_cache_create_typed(model, 3, good[i], &three) == FASTGPT_OK);
        CHECK(fastgpt_kv_cache_type(one) == good[i]);
        CHECK(fastgpt_kv_cache_sizeof(three) - fastgpt_kv_cache_sizeof(one) == 2 * 4 + (i == 0 ? 8 : 4) * numbers);
        fastgpt_kv_cache_free(one);
        fastgpt_kv_cache_free(three);
    }
    for (int i = 0; i < 5; i++) {
        one = (fastgpt_kv_cache *)&model;
        CHECK(fastgpt_kv_cache_create_typed(model, 1, (fastgpt_type)bad[i], &one) == FASTGPT_ERR_ARGUMENT && !one);
    }
    CHECK(fastgpt_kv_cache_create_typed(NULL, 1, FASTGPT_TYPE_F16, &one) == FASTGPT_ERR_ARGUMENT && !one);
    CHECK(fastgpt_kv_cache_create_typed(model, 1, FASTGPT_TYPE_F16, NULL) == FASTGPT_ERR_ARGUMENT);
}

static void test_context_arguments(void) {
    static const int32_t bad[] = {-1, INT32_MIN, 65537, INT32_MAX};
    for (int i = 0; i < 4; i++) {
        fastgpt_context *ctx = (fastgpt_context *)&model;
        CHECK(fastgpt_context_create(model, NULL, bad[i], &ctx) == FASTGPT_ERR_ARGUMENT && !ctx);
    }
    fastgpt_context *ctx = (fastgpt_context *)&model;
    CHECK(fastgpt_context_create(NULL, NULL, 1, &ctx) == FASTGPT_ERR_ARGUMENT && !ctx);
    CHECK(fastgpt_context_create(model, NULL, 1, NULL) == FASTGPT_ERR_ARGUMENT);
    fastgpt_context *one = new_context(model, NULL, 1), *many = new_context(model, NULL, 65536);
    CHECK(fastgpt_context_sizeof(many) > fastgpt_context_sizeof(one));
    fastgpt_context_free(one);
    fastgpt_context_free(many);
}

/* ---- The cache ---- */

static void test_truncate(void) {
    static const int32_t tokens[] = {1, 2, 3};
    fastgpt_context *ctx = new_context(model, NULL, 0);
    fastgpt_kv_cache *kv = new_cache(model, 4);
    CHECK(fastgpt_prefill(ctx, kv, tokens, 3, NULL) == FASTGPT_OK);
    CHECK(fastgpt_kv_cache_truncate(NULL, 0) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_kv_cache_truncate(kv, -1) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_kv_cache_truncate(kv, 4) == FASTGPT_ERR_ARGUMENT && fastgpt_kv_cache_n_past(kv) == 3);
    CHECK(fastgpt_kv_cache_truncate(kv, 3) == FASTGPT_OK && fastgpt_kv_cache_n_past(kv) == 3);
    CHECK(fastgpt_kv_cache_truncate(kv, 0) == FASTGPT_OK && fastgpt_kv_cache_n_past(kv) == 0);
    fastgpt_kv_cache_free(kv);
    fastgpt_context_free(ctx);
}

/* Rows of one layer, in the order layer by layer, keys before values, each [n_ctx][n_embd]. */
static void test_views(void) {
    fastgpt_kv_cache *kv = new_cache(model, 4);
    int32_t n_layer = fastgpt_model_n_layer(model);
    for (int32_t l = 0; l < n_layer; l++) {
        CHECK(fastgpt_kv_cache_keys(kv, l) && fastgpt_kv_cache_values(kv, l));
        CHECK(fastgpt_kv_cache_keys(kv, l) != fastgpt_kv_cache_values(kv, l));
    }
    CHECK(!fastgpt_kv_cache_keys(kv, -1) && !fastgpt_kv_cache_values(kv, -1));
    CHECK(!fastgpt_kv_cache_keys(kv, n_layer) && !fastgpt_kv_cache_values(kv, n_layer));
    CHECK(!fastgpt_kv_cache_keys(kv, INT32_MIN) && !fastgpt_kv_cache_values(kv, INT32_MAX));
    fastgpt_kv_cache_free(kv);
}

/* ---- Steps that are refused ---- */

/* A context with a cache that holds two tokens of its eight positions, and what a refused step must not change. */
typedef struct fixture {
    fastgpt_context *ctx;
    fastgpt_kv_cache *kv, *other;
    float *logits; /* [2][n_vocab] */
} fixture;

enum { N_CTX = 8, N_PAST = 2 };

static fixture new_fixture(void) {
    static const int32_t tokens[N_PAST] = {3, 4};
    fixture f = {.ctx = new_context(model, NULL, 0),
                 .kv = new_cache(model, N_CTX),
                 .other = new_cache(model, N_CTX),
                 .logits = new_floats(2 * n_vocab)};
    CHECK(fastgpt_prefill(f.ctx, f.kv, tokens, N_PAST, NULL) == FASTGPT_OK);
    return f;
}

static void free_fixture(fixture f) {
    fastgpt_context_free(f.ctx);
    fastgpt_kv_cache_free(f.kv);
    fastgpt_kv_cache_free(f.other);
    free(f.logits);
}

/* The step is refused with that status, and everything is as it was. */
static void check_step(fixture f, const fastgpt_span *spans, int32_t n_spans, const fastgpt_step_options *options,
                       fastgpt_status expected) {
    int64_t n_kept = N_PAST * (int64_t)fastgpt_model_n_embd(model);
    float *keys = new_floats(n_kept), *untouched = new_floats(2 * n_vocab);
    memcpy(keys, fastgpt_kv_cache_keys(f.kv, 0), (size_t)n_kept * sizeof *keys);
    fastgpt_status status = fastgpt_step(f.ctx, spans, n_spans, options, f.logits);
    CHECK_FOR(status == expected, "status %d, expected %d", status, expected);
    CHECK(same_floats(f.logits, untouched, 2 * n_vocab));
    CHECK(fastgpt_kv_cache_n_past(f.kv) == N_PAST && fastgpt_kv_cache_n_past(f.other) == 0);
    CHECK(same_floats(keys, fastgpt_kv_cache_keys(f.kv, 0), n_kept));
    free(keys);
    free(untouched);
}

/* The faulty span alone, and behind a good one. */
static void check_span(fixture f, fastgpt_span span, fastgpt_status expected) {
    static const int32_t good_tokens[] = {1, 2};
    fastgpt_span both[2] = {{.kv = f.other, .tokens = good_tokens, .n_tokens = 2}, span};
    check_step(f, &span, 1, NULL, expected);
    check_step(f, both, 2, NULL, expected);
}

static void test_step_arguments(fixture f) {
    static const int32_t tokens[] = {1};
    fastgpt_span good = {.kv = f.kv, .tokens = tokens, .n_tokens = 1};
    fastgpt_step_options options = {.struct_size = sizeof options + 1};
    CHECK(fastgpt_step(NULL, &good, 1, NULL, f.logits) == FASTGPT_ERR_ARGUMENT);
    check_step(f, NULL, 1, NULL, FASTGPT_ERR_ARGUMENT);
    check_step(f, &good, 0, NULL, FASTGPT_ERR_ARGUMENT);
    check_step(f, &good, -1, NULL, FASTGPT_ERR_ARGUMENT);
    check_step(f, &good, 1, &options, FASTGPT_ERR_ARGUMENT);
    options.struct_size = 0;
    check_step(f, &good, 1, &options, FASTGPT_ERR_ARGUMENT);
    check_span(f, (fastgpt_span){.kv = NULL, .tokens = tokens, .n_tokens = 1}, FASTGPT_ERR_ARGUMENT);
    check_span(f, (fastgpt_span){.kv = f.kv, .tokens = NULL, .n_tokens = 1}, FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_prefill(NULL, f.kv, tokens, 1, NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_prefill(f.ctx, NULL, tokens, 1, NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_prefill(f.ctx, f.kv, NULL, 1, NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_decode(NULL, f.kv, 1, NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_decode(f.ctx, NULL, 1, NULL) == FASTGPT_ERR_ARGUMENT);
}

static void test_step_statuses(fixture f) {
    const int32_t good[N_CTX] = {0}, negative[] = {0, -1}, large[] = {0, n_vocab}, huge[] = {INT32_MAX, 0};
    const int32_t bad_sizes[] = {0, -1, INT32_MIN};
    for (int i = 0; i < 3; i++)
        check_span(f, (fastgpt_span){.kv = f.kv, .tokens = good, .n_tokens = bad_sizes[i]}, FASTGPT_ERR_N_TOKENS);
    check_span(f, (fastgpt_span){.kv = f.kv, .tokens = negative, .n_tokens = 2}, FASTGPT_ERR_TOKEN_RANGE);
    check_span(f, (fastgpt_span){.kv = f.kv, .tokens = large, .n_tokens = 2}, FASTGPT_ERR_TOKEN_RANGE);
    check_span(f, (fastgpt_span){.kv = f.kv, .tokens = huge, .n_tokens = 2}, FASTGPT_ERR_TOKEN_RANGE);
    check_span(f, (fastgpt_span){.kv = f.kv, .tokens = good, .n_tokens = N_CTX - N_PAST + 1}, FASTGPT_ERR_CONTEXT_FULL);
    check_span(f, (fastgpt_span){.kv = f.kv, .tokens = good, .n_tokens = INT32_MAX}, FASTGPT_ERR_CONTEXT_FULL);
    CHECK(fastgpt_prefill(f.ctx, f.kv, good, 0, NULL) == FASTGPT_ERR_N_TOKENS);
    CHECK(fastgpt_decode(f.ctx, f.kv, n_vocab, NULL) == FASTGPT_ERR_TOKEN_RANGE);
    CHECK(fastgpt_decode(f.ctx, f.kv, -1, NULL) == FASTGPT_ERR_TOKEN_RANGE);
}

static void test_cache_twice(fixture f) {
    static const int32_t tokens[] = {1, 2};
    fastgpt_span spans[3] = {{f.kv, tokens, 1}, {f.other, tokens, 1}, {f.kv, tokens + 1, 1}};
    check_step(f, spans, 3, NULL, FASTGPT_ERR_CACHE_TWICE);
    check_step(f, (fastgpt_span[]){spans[0], spans[2]}, 2, NULL, FASTGPT_ERR_CACHE_TWICE);
    check_step(f, spans, 3, NULL, FASTGPT_ERR_CACHE_TWICE); /* the marks of the last time are gone */
}

/* The same file loaded again is another model; so is one in the place where a freed one lay. */
static void test_cache_mismatch(fixture f) {
    static const int32_t tokens[] = {1};
    fastgpt_model *again = load_shape(small_shape, false);
    fastgpt_kv_cache *foreign = new_cache(again, 0);
    check_span(f, (fastgpt_span){.kv = foreign, .tokens = tokens, .n_tokens = 1}, FASTGPT_ERR_CACHE_MISMATCH);
    fastgpt_model_free(again);
    again = load_shape(small_shape, false);
    fastgpt_context *ctx = new_context(again, NULL, 0);
    CHECK(fastgpt_decode(ctx, foreign, 1, NULL) == FASTGPT_ERR_CACHE_MISMATCH);
    fastgpt_context_free(ctx);
    fastgpt_model_free(again);
    fastgpt_kv_cache_free(foreign); /* touches no model */
}

/* After all the refusals a step still works, up to the last position. */
static void test_filling_up(fixture f) {
    for (int32_t n_past = N_PAST; n_past < N_CTX; n_past++) {
        CHECK(fastgpt_decode(f.ctx, f.kv, 1, f.logits) == FASTGPT_OK);
        CHECK(fastgpt_kv_cache_n_past(f.kv) == n_past + 1);
    }
    CHECK(isfinite(f.logits[0]) && isfinite(f.logits[n_vocab - 1]));
    CHECK(fastgpt_decode(f.ctx, f.kv, 1, f.logits) == FASTGPT_ERR_CONTEXT_FULL);
}

int main(void) {
    model = load_shape(small_shape, false);
    n_vocab = fastgpt_model_n_vocab(model);
    test_status_text();
    test_names();
    test_free_null();
    test_load_arguments();
    test_first_load_options();
    test_load_memory_arguments();
    test_long_path();
    test_pool_arguments();
    test_cache_arguments();
    test_cache_types();
    test_cache_words();
    test_structs_by_pointer();
    test_context_arguments();
    test_truncate();
    test_views();
    fixture f = new_fixture();
    test_step_arguments(f);
    test_step_statuses(f);
    test_cache_twice(f);
    test_cache_mismatch(f);
    test_filling_up(f);
    free_fixture(f);
    fastgpt_model_free(model);
    return check_report();
}
