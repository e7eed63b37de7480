/* test_generate.c - fastgpt_generate is the loop that a caller would write, and stops when it is told to. */
#include "support/session.h"
#include "support/vocabulary.h"

#include <math.h>

enum { N_NEW = 24, N_PROMPT = 5, MAX_PIECES = 64 };

static fastgpt_model *model;
static fastgpt_tokenizer *tokenizer;
static fastgpt_context *ctx;
static int32_t prompt[N_PROMPT];
static const int32_t n_prompt = N_PROMPT;

/* What a callback heard, and when it is to stop or to cancel. */
typedef struct listener {
    int32_t tokens[MAX_PIECES];
    int32_t n, stop_at, cancel_at;
    char text[4096];
    size_t n_bytes;
} listener;

static int32_t listen(void *user, int32_t token, const char *text, size_t n_bytes) {
    listener *l = user;
    l->tokens[l->n++] = token;
    CHECK(text[n_bytes] == '\0');
    memcpy(l->text + l->n_bytes, text, n_bytes);
    l->n_bytes += n_bytes;
    if (l->n == l->cancel_at) fastgpt_cancel(ctx);
    return l->n == l->stop_at;
}

/* Bias of every token that ends a text. */
static void set_eos_bias(fastgpt_sampler *sampler, float bias) {
    for (int32_t i = 0; i < fastgpt_model_n_eos_tokens(model); i++)
        CHECK(fastgpt_sampler_set_bias(sampler, fastgpt_model_eos_tokens(model)[i], bias) == FASTGPT_OK);
}

static fastgpt_sampler *new_sampler(float temperature, float repetition_penalty) {
    fastgpt_sampler_params params = {
        .struct_size = sizeof params, .temperature = temperature, .repetition_penalty = repetition_penalty, .seed = 3};
    fastgpt_sampler *sampler;
    if (!CHECK(fastgpt_sampler_create(fastgpt_model_n_vocab(model), &params, &sampler) == FASTGPT_OK)) abort();
    CHECK(fastgpt_sampler_n_vocab(sampler) == fastgpt_model_n_vocab(model));
    return sampler;
}

/* The same by hand: tokens [n], the one that ends a text not among them. */
static int32_t by_hand(fastgpt_sampler *sampler, int32_t *tokens, int32_t n) {
    fastgpt_kv_cache *kv = new_cache(model, 0);
    float *logits = new_floats(fastgpt_model_n_vocab(model));
    CHECK(fastgpt_prefill(ctx, kv, prompt, n_prompt, logits) == FASTGPT_OK);
    CHECK(fastgpt_sampler_accept(sampler, prompt, n_prompt) == FASTGPT_OK);
    int32_t i = 0;
    for (; i < n; i++) {
        CHECK(fastgpt_sampler_sample(sampler, logits, &tokens[i]) == FASTGPT_OK);
        CHECK(fastgpt_sampler_accept(sampler, &tokens[i], 1) == FASTGPT_OK);
        if (tokens[i] == EOT || tokens[i] == 0) break;
        CHECK(fastgpt_decode(ctx, kv, tokens[i], logits) == FASTGPT_OK);
    }
    free(logits);
    fastgpt_kv_cache_free(kv);
    return i;
}

/* Generates into a listener and a new cache; the cache must hold all but the last token drawn. */
static fastgpt_status generate(fastgpt_sampler *sampler, listener *l, int32_t *n_generated) {
    fastgpt_kv_cache *kv = new_cache(model, 0);
    fastgpt_status status =
        fastgpt_generate(ctx, kv, sampler, tokenizer, prompt, n_prompt, N_NEW, listen, l, n_generated);
    int32_t n_past = fastgpt_kv_cache_n_past(kv);
    if (status) CHECK(n_past == 0);
    else CHECK(n_past == n_prompt + *n_generated - (l->stop_at || *n_generated == N_NEW));
    fastgpt_kv_cache_free(kv);
    return status;
}

/* ---- Laws ---- */

static void test_same_as_by_hand(void) {
    static const float parameters[][2] = {{0, 0}, {1, 0}, {1.5f, 1.3f}, {0, 1.2f}};
    for (int i = 0; i < 4; i++) {
        fastgpt_sampler *sampler = new_sampler(parameters[i][0], parameters[i][1]);
        listener l = {.n = 0};
        int32_t expected[N_NEW], n_generated = -1, n = by_hand(sampler, expected, N_NEW);
        CHECK(fastgpt_sampler_reset(sampler) == FASTGPT_OK);
        CHECK(generate(sampler, &l, &n_generated) == FASTGPT_OK && n_generated == n);
        CHECK_FOR(memcmp(l.tokens, expected, (size_t)n * sizeof *expected) == 0, "parameters %d", i);
        fastgpt_sampler_free(sampler);
    }
}

/* The callback's answer ends the text at once, whichever token it is. */
static void test_callback_stops(void) {
    fastgpt_sampler *sampler = new_sampler(0, 0);
    set_eos_bias(sampler, -INFINITY);
    for (int32_t k = 1; k <= N_NEW; k++) {
        listener l = {.stop_at = k};
        int32_t n_generated = -1;
        CHECK(fastgpt_sampler_reset(sampler) == FASTGPT_OK);
        CHECK(generate(sampler, &l, &n_generated) == FASTGPT_OK && n_generated == k && l.n == k);
    }
    fastgpt_sampler_free(sampler);
}

/* Any of the tokens that end a text does. */
static void test_end_of_text(void) {
    static const int32_t eos_tokens[] = {EOT, 0};
    for (int i = 0; i < 2; i++) {
        fastgpt_sampler *sampler = new_sampler(0, 0);
        CHECK(fastgpt_sampler_set_bias(sampler, eos_tokens[i], 1000) == FASTGPT_OK);
        listener l = {.n = 0};
        int32_t n_generated = -1;
        CHECK(generate(sampler, &l, &n_generated) == FASTGPT_OK && n_generated == 0 && l.n == 0);
        fastgpt_sampler_free(sampler);
    }
}

/* Text that ends within a character ends with U+FFFD; what was complete came at once. */
static void test_incomplete_character(void) {
    static const char replacement[] = "\xEF\xBF\xBD";
    fastgpt_sampler *sampler = new_sampler(0, 0);
    CHECK(fastgpt_sampler_set_bias(sampler, 0xC3, 1000) == FASTGPT_OK);
    listener l = {.n = 0};
    int32_t n_generated = -1;
    CHECK(generate(sampler, &l, &n_generated) == FASTGPT_OK && n_generated == N_NEW);
    CHECK(l.n == N_NEW + 1 && l.tokens[N_NEW - 1] == 0xC3 && l.tokens[N_NEW] == -1);
    CHECK(l.n_bytes == 3 * N_NEW && memcmp(l.text + 3 * (N_NEW - 1), replacement, 3) == 0);
    fastgpt_sampler_free(sampler);
}

/* A text in two parts: the second prompt is the token that the cache does not hold yet. */
static void test_goes_on(void) {
    fastgpt_sampler *sampler = new_sampler(0, 0);
    fastgpt_kv_cache *kv = new_cache(model, 0);
    set_eos_bias(sampler, -INFINITY);
    listener whole = {.n = 0}, parts = {.n = 0};
    int32_t n_generated;
    CHECK(generate(sampler, &whole, &n_generated) == FASTGPT_OK);
    CHECK(fastgpt_generate(ctx, kv, sampler, tokenizer, prompt, n_prompt, 9, listen, &parts, NULL) == FASTGPT_OK);
    CHECK(fastgpt_generate(ctx, kv, sampler, tokenizer, &parts.tokens[8], 1, N_NEW - 9, listen, &parts, NULL) ==
          FASTGPT_OK);
    CHECK(memcmp(whole.tokens, parts.tokens, N_NEW * sizeof *whole.tokens) == 0);
    CHECK(fastgpt_generate(ctx, kv, sampler, tokenizer, &parts.tokens[N_NEW - 1], 1, 0, NULL, NULL, &n_generated) ==
          FASTGPT_OK);
    CHECK(n_generated == 0 && fastgpt_kv_cache_n_past(kv) == n_prompt + N_NEW);
    fastgpt_kv_cache_free(kv);
    fastgpt_sampler_free(sampler);
}

/* ---- Errors ---- */

static void test_cancel(void) {
    fastgpt_sampler *sampler = new_sampler(0, 0);
    set_eos_bias(sampler, -INFINITY);
    listener l = {.cancel_at = 3};
    int32_t n_generated = -1;
    CHECK(generate(sampler, &l, &n_generated) == FASTGPT_ERR_CANCELLED && l.n == 3 && n_generated == -1);
    fastgpt_sampler_free(sampler);
}

static void test_nothing_to_draw(void) {
    fastgpt_sampler *sampler = new_sampler(1, 0);
    for (int32_t i = 0; i < fastgpt_model_n_vocab(model); i++) fastgpt_sampler_set_bias(sampler, i, -INFINITY);
    listener l = {.n = 0};
    int32_t n_generated;
    CHECK(generate(sampler, &l, &n_generated) == FASTGPT_ERR_LOGITS && l.n == 0);
    fastgpt_sampler_free(sampler);
}

static void test_refusals(void) {
    fastgpt_sampler *sampler = new_sampler(0, 0), *other_sampler;
    fastgpt_sampler_params params = {.struct_size = sizeof params};
    fastgpt_model *other = load_shape(small_shape, false);
    fastgpt_tokenizer *other_tokenizer = new_tokenizer(new_vocabulary());
    fastgpt_kv_cache *kv = new_cache(model, 20), *other_kv = new_cache(other, 0);
    const int32_t odd[1] = {NEVER + 1};
    CHECK(fastgpt_sampler_create(7, &params, &other_sampler) == FASTGPT_OK);
    CHECK(fastgpt_prefill(ctx, kv, prompt, 3, NULL) == FASTGPT_OK);
    const struct {
        fastgpt_context *ctx;
        fastgpt_kv_cache *kv;
        fastgpt_sampler *sampler;
        const fastgpt_tokenizer *tokenizer;
        const int32_t *prompt;
        int32_t n_prompt, n_new;
        fastgpt_status status;
    } cases[] = {{NULL, kv, sampler, tokenizer, prompt, 1, 1, FASTGPT_ERR_ARGUMENT},
                 {ctx, NULL, sampler, tokenizer, prompt, 1, 1, FASTGPT_ERR_ARGUMENT},
                 {ctx, kv, NULL, tokenizer, prompt, 1, 1, FASTGPT_ERR_ARGUMENT},
                 {ctx, kv, sampler, NULL, prompt, 1, 1, FASTGPT_ERR_ARGUMENT},
                 {ctx, kv, sampler, tokenizer, NULL, 1, 1, FASTGPT_ERR_ARGUMENT},
                 {ctx, kv, sampler, tokenizer, prompt, 1, -1, FASTGPT_ERR_ARGUMENT},
                 {ctx, kv, other_sampler, tokenizer, prompt, 1, 1, FASTGPT_ERR_ARGUMENT},
                 {ctx, kv, sampler, other_tokenizer, prompt, 1, 1, FASTGPT_ERR_ARGUMENT},
                 {ctx, kv, sampler, tokenizer, prompt, 0, 1, FASTGPT_ERR_N_TOKENS},
                 {ctx, kv, sampler, tokenizer, odd, 1, 1, FASTGPT_ERR_TOKEN_RANGE},
                 {ctx, kv, sampler, tokenizer, prompt, 5, 13, FASTGPT_ERR_CONTEXT_FULL},
                 {ctx, kv, sampler, tokenizer, prompt, 1, INT32_MAX, FASTGPT_ERR_CONTEXT_FULL},
                 {ctx, other_kv, sampler, tokenizer, prompt, 1, 1, FASTGPT_ERR_CACHE_MISMATCH}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        listener l = {.n = 0};
        int32_t n = -7;
        fastgpt_status status = fastgpt_generate(cases[i].ctx, cases[i].kv, cases[i].sampler, cases[i].tokenizer,
                                                 cases[i].prompt, cases[i].n_prompt, cases[i].n_new, listen, &l, &n);
        CHECK_FOR(status == cases[i].status && l.n == 0 && n == -7, "case %zu: status %d", i, status);
        CHECK_FOR(fastgpt_kv_cache_n_past(kv) == 3 && fastgpt_kv_cache_n_past(other_kv) == 0, "case %zu", i);
    }
    fastgpt_kv_cache_free(kv);
    fastgpt_kv_cache_free(other_kv);
    fastgpt_tokenizer_free(other_tokenizer);
    fastgpt_sampler_free(sampler);
    fastgpt_sampler_free(other_sampler);
    fastgpt_model_free(other);
}

int main(void) {
    vocabulary *v = english_vocabulary();
    model = load_with_vocabulary(v, EOT);
    free(v);
    uint64_t state = 7;
    random_tokens(&state, prompt, n_prompt, fastgpt_model_n_vocab(model));
    CHECK(fastgpt_tokenizer_create(model, &tokenizer, NULL) == FASTGPT_OK);
    ctx = new_context(model, NULL, 0);
    test_same_as_by_hand();
    test_callback_stops();
    test_end_of_text();
    test_incomplete_character();
    test_goes_on();
    test_cancel();
    test_nothing_to_draw();
    test_refusals();
    fastgpt_context_free(ctx);
    fastgpt_tokenizer_free(tokenizer);
    fastgpt_model_free(model);
    return check_report();
}
