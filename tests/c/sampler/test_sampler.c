/* test_sampler.c - what the sampler refuses and what that leaves unchanged; seeds, bias, penalty and history.  What
 * the filters keep is tested in Python, against another implementation. */
#include "support/check.h"
#include "fastgpt.h"
#include "support/random.h"

#include <math.h>
#include <string.h>

enum { N_VOCAB = 50 };

static float logits[N_VOCAB];

static fastgpt_sampler_params defaults(void) {
    return (fastgpt_sampler_params){.struct_size = sizeof(fastgpt_sampler_params), .temperature = 1, .seed = 7};
}

static fastgpt_sampler *new_sampler(fastgpt_sampler_params params) {
    fastgpt_sampler *s = NULL;
    CHECK(fastgpt_sampler_create(N_VOCAB, &params, &s) == FASTGPT_OK && s);
    return s;
}

static void refused(int32_t n_vocab, const fastgpt_sampler_params *params, const char *what) {
    fastgpt_sampler *s = (fastgpt_sampler *)logits;
    fastgpt_error error;
    CHECK_FOR(fastgpt_sampler_create(n_vocab, params, &s) == FASTGPT_ERR_ARGUMENT && !s, "%s", what);
    s = (fastgpt_sampler *)logits;
    CHECK(fastgpt_sampler_create_checked(n_vocab, params, &s, &error) == FASTGPT_ERR_ARGUMENT && !s);
    CHECK_FOR(strstr(error.text, what), "\"%s\" does not name %s", error.text, what);
}

/* Negative counts, an end-of-text token that is none, and structs that no version had. */
static void test_counts_and_sizes(void) {
    fastgpt_sampler_params p = defaults();
    p.top_k = -1;
    refused(N_VOCAB, &p, "top_k");
    p = defaults(), p.no_repeat_ngram_size = -1;
    refused(N_VOCAB, &p, "no_repeat_ngram_size");
    p = defaults(), p.min_new_tokens = -1;
    refused(N_VOCAB, &p, "min_new_tokens");
    p = defaults(), p.min_new_tokens = 1, p.eos_token = N_VOCAB;
    refused(N_VOCAB, &p, "eos_token");
    p = defaults(), p.min_new_tokens = 1, p.eos_token = -2;
    refused(N_VOCAB, &p, "eos_token");
    p = defaults(), p.struct_size = offsetof(fastgpt_sampler_params, seed);
    refused(N_VOCAB, &p, "struct_size");
    p = defaults(), p.struct_size++;
    refused(N_VOCAB, &p, "struct_size");
}

/* NULL = the defaults, which are those of the Python package; a caller of an older header gets those that it knows. */
static void test_defaults(void) {
    fastgpt_sampler_params p = {.struct_size = sizeof p, .seed = 9, .min_new_tokens = 3};
    CHECK(fastgpt_sampler_params_default(&p) == FASTGPT_OK && p.struct_size == sizeof p);
    CHECK(p.temperature == 0.8f && p.top_p == 0.95f && p.mirostat_eta == 0.1f && p.eos_token == -1);
    CHECK(p.top_k == 0 && p.min_p == 0 && p.seed == 0 && p.min_new_tokens == 0 && p.mirostat_tau == 0);
    fastgpt_sampler *by_null, *by_params;
    float a[N_VOCAB], b[N_VOCAB];
    CHECK(fastgpt_sampler_create(N_VOCAB, NULL, &by_null) == FASTGPT_OK);
    CHECK(fastgpt_sampler_create_checked(N_VOCAB, &p, &by_params, NULL) == FASTGPT_OK);
    CHECK(fastgpt_sampler_probabilities(by_null, logits, a) == FASTGPT_OK);
    CHECK(fastgpt_sampler_probabilities(by_params, logits, b) == FASTGPT_OK && memcmp(a, b, sizeof a) == 0);
    fastgpt_sampler_free(by_null);
    fastgpt_sampler_free(by_params);
    p.struct_size = offsetof(fastgpt_sampler_params, typical_p);
    p.typical_p = 77;
    CHECK(fastgpt_sampler_params_default(&p) == FASTGPT_OK && p.typical_p == 77 && p.temperature == 0.8f);
    p.struct_size = sizeof p + 1;
    CHECK(fastgpt_sampler_params_default(&p) == FASTGPT_ERR_ARGUMENT);
    p.struct_size = 4;
    CHECK(fastgpt_sampler_params_default(&p) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_params_default(NULL) == FASTGPT_ERR_ARGUMENT);
}

/* Every number outside its range. */
static void test_create_arguments(void) {
    static const float bad[] = {NAN, INFINITY, -INFINITY, -0.1f, 1.1f};
    fastgpt_sampler_params p = defaults();
    refused(0, &p, "n_vocab is 0");
    refused(-1, &p, "n_vocab is -1");
    CHECK(fastgpt_sampler_create(N_VOCAB, &p, NULL) == FASTGPT_ERR_ARGUMENT);
    for (int i = 0; i < 5; i++) {
        bool beyond_one = bad[i] > 1 && isfinite(bad[i]);
        p = defaults(), p.top_p = bad[i];
        refused(N_VOCAB, &p, "top_p");
        p = defaults(), p.min_p = bad[i];
        refused(N_VOCAB, &p, "min_p");
        p = defaults(), p.temperature = bad[i];
        if (!beyond_one) refused(N_VOCAB, &p, "temperature");
        p = defaults(), p.repetition_penalty = bad[i];
        if (!beyond_one) refused(N_VOCAB, &p, "repetition_penalty");
        p = defaults(), p.typical_p = bad[i];
        refused(N_VOCAB, &p, "typical_p");
        p = defaults(), p.top_n_sigma = bad[i];
        if (!beyond_one) refused(N_VOCAB, &p, "top_n_sigma");
        p = defaults(), p.mirostat_tau = bad[i];
        if (!beyond_one) refused(N_VOCAB, &p, "mirostat_tau");
        p = defaults(), p.mirostat_eta = bad[i];
        refused(N_VOCAB, &p, "mirostat_eta");
        p = defaults(), p.frequency_penalty = bad[i] * 1e8f;
        refused(N_VOCAB, &p, "frequency_penalty");
        p = defaults(), p.presence_penalty = bad[i] * 1e8f;
        refused(N_VOCAB, &p, "presence_penalty");
    }
    test_counts_and_sizes();
}

static void draw(fastgpt_sampler *s, int32_t *tokens, int n) {
    for (int i = 0; i < n; i++) CHECK(fastgpt_sampler_sample(s, logits, &tokens[i]) == FASTGPT_OK);
}

/* The same seed gives the same draws, after a reset too; another seed gives others. */
static void test_seeds(void) {
    enum { N = 40 };
    int32_t first[N], again[N], other[N];
    fastgpt_sampler_params p = defaults();
    fastgpt_sampler *s = new_sampler(p);
    draw(s, first, N);
    CHECK(fastgpt_sampler_reset(s) == FASTGPT_OK);
    draw(s, again, N);
    CHECK(memcmp(first, again, sizeof first) == 0);
    fastgpt_sampler_free(s);
    p.seed++;
    s = new_sampler(p);
    draw(s, other, N);
    CHECK(memcmp(first, other, sizeof first) != 0);
    fastgpt_sampler_free(s);
}

/* Logits that cannot be drawn from change no output and use up no draw. */
static void test_bad_logits(void) {
    static const float bad[] = {NAN, INFINITY};
    int32_t expected[4], token = 77;
    fastgpt_sampler *s = new_sampler(defaults());
    draw(s, expected, 4);
    CHECK(fastgpt_sampler_reset(s) == FASTGPT_OK);
    for (int i = 0; i < 3; i++) {
        float spoiled[N_VOCAB], probabilities[N_VOCAB] = {5};
        memcpy(spoiled, logits, sizeof spoiled);
        if (i < 2) spoiled[17] = bad[i];
        for (int t = 0; t < N_VOCAB && i == 2; t++) spoiled[t] = -INFINITY;
        CHECK(fastgpt_sampler_sample(s, spoiled, &token) == FASTGPT_ERR_LOGITS && token == 77);
        CHECK(fastgpt_sampler_probabilities(s, spoiled, probabilities) == FASTGPT_ERR_LOGITS && probabilities[0] == 5);
        int32_t next;
        draw(s, &next, 1);
        CHECK(next == expected[i]);
    }
    fastgpt_sampler_free(s);
}

static void test_null(void) {
    float probabilities[N_VOCAB];
    int32_t token = 3;
    fastgpt_sampler *s = new_sampler(defaults());
    CHECK(fastgpt_sampler_sample(NULL, logits, &token) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_sample(s, NULL, &token) == FASTGPT_ERR_ARGUMENT && token == 3);
    CHECK(fastgpt_sampler_sample(s, logits, NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_probabilities(NULL, logits, probabilities) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_probabilities(s, NULL, probabilities) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_probabilities(s, logits, NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_set_bias(NULL, 0, 1) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_accept(NULL, &token, 1) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_accept(s, NULL, 1) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_accept(s, NULL, 0) == FASTGPT_OK);
    CHECK(fastgpt_sampler_accept(s, &token, -1) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_accept_prompt(NULL, &token, 1) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_accept_prompt(s, NULL, 1) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_set_allowed(NULL, NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_reset(NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_sizeof(s) > N_VOCAB * sizeof(float));
    fastgpt_sampler_free(s);
}

static float probability(fastgpt_sampler *s, int32_t token) {
    float probabilities[N_VOCAB];
    CHECK(fastgpt_sampler_probabilities(s, logits, probabilities) == FASTGPT_OK);
    double sum = 0;
    for (int i = 0; i < N_VOCAB; i++) sum += probabilities[i];
    CHECK_FOR(fabs(sum - 1) < 1e-6, "the probabilities sum to %g", sum);
    return probabilities[token];
}

static void test_bias(void) {
    static const int32_t outside[] = {-1, N_VOCAB, INT32_MAX};
    fastgpt_sampler *s = new_sampler(defaults());
    float before = probability(s, 5);
    for (int i = 0; i < 3; i++) CHECK(fastgpt_sampler_set_bias(s, outside[i], 1) == FASTGPT_ERR_TOKEN_RANGE);
    CHECK(fastgpt_sampler_set_bias(s, 5, NAN) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_set_bias(s, 5, INFINITY) == FASTGPT_ERR_ARGUMENT && probability(s, 5) == before);
    CHECK(fastgpt_sampler_set_bias(s, 5, 2) == FASTGPT_OK);
    double odds = (double)before / (1 - before) * exp(2);
    CHECK(fabs(probability(s, 5) - odds / (1 + odds)) < 1e-6);
    CHECK(fastgpt_sampler_set_bias(s, 5, -INFINITY) == FASTGPT_OK && probability(s, 5) == 0);
    CHECK(fastgpt_sampler_reset(s) == FASTGPT_OK && probability(s, 5) == 0); /* biases stay */
    CHECK(fastgpt_sampler_set_bias(s, 5, 0) == FASTGPT_OK && probability(s, 5) == before);
    fastgpt_sampler_free(s);
}

/* A list with one bad token adds none of its tokens. */
static void test_history(void) {
    fastgpt_sampler_params p = defaults();
    p.repetition_penalty = 1.5f;
    fastgpt_sampler *s = new_sampler(p);
    float before = probability(s, 5);
    CHECK(fastgpt_sampler_accept(s, (int32_t[]){5, N_VOCAB}, 2) == FASTGPT_ERR_TOKEN_RANGE);
    CHECK(fastgpt_sampler_accept(s, (int32_t[]){5, -1}, 2) == FASTGPT_ERR_TOKEN_RANGE && probability(s, 5) == before);
    CHECK(fastgpt_sampler_accept(s, (int32_t[]){5, 6, 5}, 3) == FASTGPT_OK && probability(s, 5) < before);
    CHECK(fastgpt_sampler_reset(s) == FASTGPT_OK && probability(s, 5) == before);
    fastgpt_sampler_free(s);
}

/* A program of the first release knows no field after seed: what lies there is not read. */
static void test_older_struct(void) {
    fastgpt_sampler_params p = defaults();
    p.struct_size = offsetof(fastgpt_sampler_params, seed) + sizeof p.seed;
    p.top_n_sigma = NAN, p.no_repeat_ngram_size = -1;
    fastgpt_sampler *older = new_sampler(p), *plain = new_sampler(defaults());
    int32_t a[20], b[20];
    draw(older, a, 20);
    draw(plain, b, 20);
    CHECK(memcmp(a, b, sizeof a) == 0);
    fastgpt_sampler_free(older);
    fastgpt_sampler_free(plain);
}

/* The mask's bits are those tokens; it stays until another. */
static void test_allowed(void) {
    uint32_t mask[(N_VOCAB + 31) / 32] = {1u << 5, 1u << (40 - 32)}, none[2] = {0};
    fastgpt_sampler *s = new_sampler(defaults());
    float before = probability(s, 5), other = probability(s, 40);
    CHECK(fastgpt_sampler_set_allowed(s, mask) == FASTGPT_OK);
    mask[0] = 0; /* it was copied */
    CHECK(fabsf(probability(s, 5) - before / (before + other)) < 1e-6f && probability(s, 6) == 0);
    CHECK(fastgpt_sampler_reset(s) == FASTGPT_OK && probability(s, 6) == 0);
    int32_t token;
    CHECK(fastgpt_sampler_set_allowed(s, none) == FASTGPT_OK);
    CHECK(fastgpt_sampler_sample(s, logits, &token) == FASTGPT_ERR_LOGITS);
    CHECK(fastgpt_sampler_set_allowed(s, NULL) == FASTGPT_OK && probability(s, 5) == before);
    fastgpt_sampler_free(s);
}

/* Tokens of the prompt are no new ones; a history of many tokens keeps all of them. */
static void test_prompt_and_new_tokens(void) {
    fastgpt_sampler_params p = defaults();
    p.min_new_tokens = 1, p.eos_token = 7, p.presence_penalty = 1, p.no_repeat_ngram_size = 2;
    fastgpt_sampler *s = new_sampler(p);
    size_t size = fastgpt_sampler_sizeof(s);
    for (int32_t i = 0; i < 3000; i++) {
        int32_t token = i % 40;
        CHECK(fastgpt_sampler_accept_prompt(s, &token, 1) == FASTGPT_OK);
    }
    CHECK(fastgpt_sampler_sizeof(s) >= size + 3000 * sizeof(int32_t));
    CHECK(probability(s, 7) == 0 && probability(s, 0) == probability(s, 7)); /* 39 was followed by 0 */
    CHECK(fastgpt_sampler_reset(s) == FASTGPT_OK && probability(s, 7) == 0);
    float before = probability(s, 0);
    CHECK(fastgpt_sampler_accept(s, (int32_t[]){0}, 1) == FASTGPT_OK);
    CHECK(probability(s, 7) > 0 && probability(s, 0) < before);
    fastgpt_sampler_free(s);
}

/* What is left of the logits before temperature and filters, in place, too; all may be banned, and impossible logits
 * change nothing. */
static void test_adjust(void) {
    static const float bad[] = {NAN, INFINITY};
    fastgpt_sampler_params p = defaults();
    p.temperature = 0.1f, p.top_k = 1, p.presence_penalty = 0.5f, p.min_new_tokens = 9, p.eos_token = 3;
    fastgpt_sampler *s = new_sampler(p);
    float out[N_VOCAB], spoiled[N_VOCAB];
    CHECK(fastgpt_sampler_accept(s, (int32_t[]){5}, 1) == FASTGPT_OK);
    CHECK(fastgpt_sampler_set_bias(s, 8, 2) == FASTGPT_OK && fastgpt_sampler_set_bias(s, 9, -INFINITY) == FASTGPT_OK);
    memcpy(out, logits, sizeof out);
    CHECK(fastgpt_sampler_adjust(s, out, out) == FASTGPT_OK);
    for (int32_t t = 0; t < N_VOCAB; t++) {
        float expected = t == 3 || t == 9 ? -INFINITY : t == 5 ? logits[t] - 0.5f : t == 8 ? logits[t] + 2 : logits[t];
        CHECK_FOR(out[t] == expected, "token %d: %g", t, out[t]);
    }
    for (int i = 0; i < 2; i++) {
        memcpy(spoiled, logits, sizeof spoiled);
        spoiled[17] = bad[i], out[0] = 5;
        CHECK(fastgpt_sampler_adjust(s, spoiled, out) == FASTGPT_ERR_LOGITS && out[0] == 5);
    }
    CHECK(fastgpt_sampler_set_allowed(s, (uint32_t[2]){0}) == FASTGPT_OK);
    CHECK(fastgpt_sampler_adjust(s, logits, out) == FASTGPT_OK && out[0] == -INFINITY && out[49] == -INFINITY);
    CHECK(fastgpt_sampler_adjust(NULL, logits, out) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_adjust(s, NULL, out) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_adjust(s, logits, NULL) == FASTGPT_ERR_ARGUMENT);
    fastgpt_sampler_free(s);
}

/* min_new_tokens bans every token that ends a text, those of the last call. */
static void test_eos_tokens(void) {
    fastgpt_sampler_params p = defaults();
    p.min_new_tokens = 1, p.eos_token = 7;
    fastgpt_sampler *s = new_sampler(p);
    int32_t ends[] = {3, 5, 3}, outside[] = {3, N_VOCAB};
    CHECK(fastgpt_sampler_set_eos_tokens(s, ends, 3) == FASTGPT_OK);
    ends[0] = 8; /* it was copied */
    CHECK(fastgpt_sampler_set_eos_tokens(s, outside, 2) == FASTGPT_ERR_TOKEN_RANGE);
    CHECK(fastgpt_sampler_set_eos_tokens(s, ends, -1) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_set_eos_tokens(s, NULL, 1) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_sampler_set_eos_tokens(NULL, ends, 1) == FASTGPT_ERR_ARGUMENT);
    CHECK(probability(s, 3) == 0 && probability(s, 5) == 0 && probability(s, 7) > 0 && probability(s, 8) > 0);
    CHECK(fastgpt_sampler_accept(s, (int32_t[]){9}, 1) == FASTGPT_OK && probability(s, 3) > 0);
    CHECK(fastgpt_sampler_reset(s) == FASTGPT_OK && probability(s, 5) == 0);
    CHECK(fastgpt_sampler_set_eos_tokens(s, NULL, 0) == FASTGPT_OK && probability(s, 5) > 0);
    fastgpt_sampler_free(s);
}

static float any_of(uint64_t *seed, const float *values, int n) { return values[random_below(seed, (uint64_t)n)]; }

/* Parameters from one end of their ranges to the other. */
static fastgpt_sampler_params random_params(uint64_t *seed) {
    static const float zero_one[] = {0, 0, 1e-38f, 0.1f, 0.9f, 1}, wide[] = {0, 0, 1e-38f, 0.7f, 3, 1e6f};
    static const float signs[] = {0, 0, -1e6f, -0.5f, 2, 1e6f};
    fastgpt_sampler_params p = defaults();
    p.temperature = any_of(seed, wide, 6), p.top_n_sigma = any_of(seed, wide, 6);
    p.repetition_penalty = any_of(seed, wide, 6), p.mirostat_tau = any_of(seed, wide, 6);
    p.top_p = any_of(seed, zero_one, 6), p.min_p = any_of(seed, zero_one, 6);
    p.typical_p = any_of(seed, zero_one, 6), p.mirostat_eta = any_of(seed, zero_one, 6);
    p.frequency_penalty = any_of(seed, signs, 6), p.presence_penalty = any_of(seed, signs, 6);
    p.top_k = (int32_t)random_below(seed, 4) * 20;
    p.no_repeat_ngram_size = (int32_t)random_below(seed, 4);
    p.min_new_tokens = (int32_t)random_below(seed, 20);
    return p;
}

/* Any parameters with any logits: a token of positive probability, or LOGITS. */
static void test_random_parameters(void) {
    static const float extremes[] = {-INFINITY, -3e38f, -1e-40f, 0, 1e-40f, 3e38f, INFINITY, NAN};
    uint64_t seed = 11;
    int n_drawn = 0;
    for (int i = 0; i < 3000; i++) {
        fastgpt_sampler *s = new_sampler(random_params(&seed));
        float row[N_VOCAB], p[N_VOCAB];
        random_fill(&seed, row, N_VOCAB);
        if (i % 2) row[i % N_VOCAB] = any_of(&seed, extremes, 8);
        for (int32_t j = 0, token; j < 8; j++) {
            fastgpt_status status = fastgpt_sampler_probabilities(s, row, p);
            CHECK_FOR(fastgpt_sampler_sample(s, row, &token) == status, "set %d, draw %d", i, (int)j);
            if (status) break;
            CHECK_FOR(p[token] > 0 && ++n_drawn, "set %d, draw %d: token %d", i, (int)j, (int)token);
            CHECK(fastgpt_sampler_accept(s, &token, 1) == FASTGPT_OK);
        }
        fastgpt_sampler_free(s);
    }
    CHECK_FOR(n_drawn > 10000, "only %d draws", n_drawn);
}

/* The largest logit, and of equal ones the first. */
static void test_greedy(void) {
    fastgpt_sampler_params p = defaults();
    p.temperature = 0;
    fastgpt_sampler *s = new_sampler(p);
    float peaks[N_VOCAB] = {0};
    int32_t token;
    peaks[9] = peaks[31] = 2;
    CHECK(fastgpt_sampler_sample(s, peaks, &token) == FASTGPT_OK && token == 9);
    CHECK(fastgpt_sampler_set_bias(s, 9, -INFINITY) == FASTGPT_OK);
    CHECK(fastgpt_sampler_sample(s, peaks, &token) == FASTGPT_OK && token == 31);
    fastgpt_sampler_free(s);
}

int main(void) {
    uint64_t seed = 4;
    random_fill(&seed, logits, N_VOCAB);
    test_create_arguments();
    test_defaults();
    test_seeds();
    test_bad_logits();
    test_null();
    test_bias();
    test_history();
    test_older_struct();
    test_allowed();
    test_prompt_and_new_tokens();
    test_adjust();
    test_eos_tokens();
    test_random_parameters();
    test_greedy();
    return check_report();
}
