/* test_plain.c - draws by the short way of plain.c are those of the long way, to the bit: with random parameters and
 * logits of all shapes.  A sampler takes the long way when it bans a token, even one that no logits allow. */
#include "sampler/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/check.h"
#include "support/random.h"

enum { N_VOCAB = 3001, BANNED_TOKEN = N_VOCAB - 1, N_DRAWS = 3 };

static uint64_t seed = 3;
static int n_plain, n_long;

static float one_of(const float *values, uint64_t n) { return values[random_below(&seed, n)]; }

static fastgpt_sampler_params random_params(void) {
    static const float temperatures[] = {0, 0.8f, 1, 0.2f, 3, 1e-6f, 1e-38f, 1e6f};
    static const float top_ps[] = {0, 0.95f, 0.5f, 0.999f, 1e-30f, 1};
    static const float min_ps[] = {0, 0, 0.05f, 4e-4f, 1e-4f, 1};
    static const int32_t top_ks[] = {0, 0, 1, 50, 700, N_VOCAB + 1};
    return (fastgpt_sampler_params){.struct_size = sizeof(fastgpt_sampler_params),
                                    .temperature = one_of(temperatures, 8),
                                    .top_p = random_below(&seed, 3) ? one_of(top_ps, 6) : fabsf(random_float(&seed)),
                                    .min_p = one_of(min_ps, 6),
                                    .top_k = top_ks[random_below(&seed, 6)],
                                    .eos_token = -1,
                                    .seed = random_u64(&seed)};
}

/* About normal, with a tail, as those of a trained model; or equal, or in steps; with tokens that cannot come, and now
 * and then impossible. */
static void fill_logits(float *x, int shape) {
    static const float widths[] = {0, 0.1f, 2, 6, 30, 1e30f};
    static const float impossible[] = {NAN, INFINITY, -NAN};
    const float width = one_of(widths, 6);
    for (int i = 0; i < N_VOCAB; i++) {
        const float sum = random_float(&seed) + random_float(&seed) + random_float(&seed);
        x[i] = width * sum * (random_below(&seed, 40) ? 1 : 2);
        if (shape % 3 == 1) x[i] = rintf(x[i]);
        if (shape % 4 == 1 && random_below(&seed, 3)) x[i] = -INFINITY;
    }
    if (shape % 11 == 5) x[random_below(&seed, N_VOCAB - 1)] = one_of(impossible, 3);
    if (shape % 29 == 7)
        for (int i = 0; i < N_VOCAB; i++) x[i] = -INFINITY;
    x[BANNED_TOKEN] = -INFINITY;
}

static fastgpt_sampler *new_sampler(fastgpt_sampler_params p, bool long_way) {
    const int32_t banned = BANNED_TOKEN;
    fastgpt_sampler *s;
    if (long_way) p.min_new_tokens = INT32_MAX;
    if (!CHECK(fastgpt_sampler_create(N_VOCAB, &p, &s) == FASTGPT_OK)) abort();
    CHECK(fastgpt_sampler_set_eos_tokens(s, &banned, 1) == FASTGPT_OK);
    return s;
}

static void check_draws(fastgpt_sampler_params p, const float *x, int which) {
    static float by_plain[N_VOCAB], by_long[N_VOCAB];
    fastgpt_sampler *a = new_sampler(p, false), *b = new_sampler(p, true);
    fastgpt_status status;
    if (sampler_filter_plain(a, x, &status)) n_plain++;
    else n_long++;
    CHECK(!sampler_filter_plain(b, x, &status));
    for (int i = 0; i < N_DRAWS; i++) {
        int32_t token_a = -1, token_b = -1;
        const fastgpt_status of_a = fastgpt_sampler_sample(a, x, &token_a),
                             of_b = fastgpt_sampler_sample(b, x, &token_b);
        CHECK_FOR(of_a == of_b && token_a == token_b,
                  "set %d, draw %d: status %d, %d; token %d, %d (temperature %g, top_k %d, top_p %g, min_p %g)", which,
                  i, of_a, of_b, (int)token_a, (int)token_b, (double)p.temperature, (int)p.top_k, (double)p.top_p,
                  (double)p.min_p);
    }
    memset(by_plain, 0, sizeof by_plain);
    memset(by_long, 0, sizeof by_long);
    CHECK(fastgpt_sampler_probabilities(a, x, by_plain) == fastgpt_sampler_probabilities(b, x, by_long));
    CHECK_FOR(memcmp(by_plain, by_long, sizeof by_plain) == 0, "set %d: probabilities", which);
    fastgpt_sampler_free(a);
    fastgpt_sampler_free(b);
}

/* A bias or a mask that comes and goes. */
static void test_that_changes_count(void) {
    static float x[N_VOCAB];
    static uint32_t none[(N_VOCAB + 31) / 32];
    fastgpt_sampler_params p = random_params();
    p.temperature = 0;
    fastgpt_sampler *s = new_sampler(p, false);
    fastgpt_status status;
    x[5] = 1;
    CHECK(sampler_filter_plain(s, x, &status));
    CHECK(!fastgpt_sampler_set_bias(s, 7, 2) && !fastgpt_sampler_set_bias(s, 7, 3) &&
          !fastgpt_sampler_set_bias(s, 8, 4));
    int32_t token;
    CHECK(!sampler_filter_plain(s, x, &status) && !fastgpt_sampler_sample(s, x, &token) && token == 8);
    CHECK(!fastgpt_sampler_set_bias(s, 8, 0) && !fastgpt_sampler_sample(s, x, &token) && token == 7);
    CHECK(!fastgpt_sampler_set_bias(s, 7, 0) && sampler_filter_plain(s, x, &status));
    none[0] = 8;
    CHECK(!fastgpt_sampler_set_allowed(s, none) && !fastgpt_sampler_sample(s, x, &token) && token == 3);
    CHECK(!fastgpt_sampler_set_allowed(s, NULL) && sampler_filter_plain(s, x, &status));
    CHECK(!fastgpt_sampler_sample(s, x, &token) && token == 5);
    fastgpt_sampler_free(s);
}

/* The short way is taken where it pays: with the defaults and logits that fall off as those of a trained model, some of
 * them impossible. */
static void test_trained_logits(void) {
    static float x[N_VOCAB];
    fastgpt_sampler_params p = {.struct_size = sizeof p};
    if (!CHECK(fastgpt_sampler_params_default(&p) == FASTGPT_OK)) return;
    for (int i = 0; i < N_VOCAB; i++) x[(i * 17) % N_VOCAB] = i % 5 == 4 ? -INFINITY : -1.3f * logf(1 + (float)i);
    x[BANNED_TOKEN] = -INFINITY;
    const int n_before = n_plain;
    check_draws(p, x, -1);
    CHECK(n_plain == n_before + 1);
}

int main(void) {
    static float x[N_VOCAB];
    for (int i = 0; i < 1000; i++) {
        fill_logits(x, i);
        check_draws(random_params(), x, i);
    }
    test_that_changes_count();
    test_trained_logits();
    printf("%d sets by the short way, %d by the long one\n", n_plain, n_long);
    CHECK(n_plain > 300 && n_long > 80);
    return check_report();
}
