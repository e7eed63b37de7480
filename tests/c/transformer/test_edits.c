/* test_edits.c - the laws of edits, hooks and starts: what changes a step, and what it must not touch. */
#include <math.h>

#include "support/session.h"

enum { N_TOKENS = 23, N_FIRST = 14, N_PAST = 5, MAX_EDITS = 64 };

static uint64_t seed = 21;
static fastgpt_model *model;
static int32_t tokens[N_TOKENS];
static int64_t n_vocab, n_embd, n_layer, n_head;

static int64_t width_of(fastgpt_site site) { return fastgpt_site_width(model, site); }

static bool has_layers(fastgpt_site site) {
    return site != FASTGPT_SITE_EMBED && site != FASTGPT_SITE_POS_EMBED && site != FASTGPT_SITE_LN_F;
}

/* Two sequences: the first has N_PAST tokens already, and both get tokens. */
typedef struct pair {
    fastgpt_context *ctx;
    fastgpt_kv_cache *kv[2];
    fastgpt_span spans[2];
} pair;

static pair new_pair(fastgpt_pool *pool, int32_t n_batch) {
    pair p = {.ctx = new_context(model, pool, n_batch), .kv = {new_cache(model, 0), new_cache(model, 0)}};
    fastgpt_span past = {.kv = p.kv[0], .tokens = tokens + 3, .n_tokens = N_PAST};
    const fastgpt_step_options options = {.struct_size = sizeof options, .deterministic = 1};
    CHECK(fastgpt_step(p.ctx, &past, 1, &options, NULL) == FASTGPT_OK);
    p.spans[0] = (fastgpt_span){.kv = p.kv[0], .tokens = tokens, .n_tokens = N_FIRST};
    p.spans[1] = (fastgpt_span){.kv = p.kv[1], .tokens = tokens + N_FIRST, .n_tokens = N_TOKENS - N_FIRST};
    return p;
}

static void free_pair(pair p) {
    fastgpt_kv_cache_free(p.kv[0]);
    fastgpt_kv_cache_free(p.kv[1]);
    fastgpt_context_free(p.ctx);
}

static fastgpt_step_options options_of(const fastgpt_edit *edits, int32_t n_edits) {
    return (fastgpt_step_options){.struct_size = sizeof(fastgpt_step_options),
                                  .all_logits = 1,
                                  .deterministic = 1,
                                  .edits = edits,
                                  .n_edits = n_edits};
}

/* Logits after each token of both sequences, of a step with such options. */
static float *run(fastgpt_pool *pool, int32_t n_batch, const fastgpt_step_options *options) {
    pair p = new_pair(pool, n_batch);
    float *logits = new_floats(N_TOKENS * n_vocab);
    CHECK(fastgpt_step(p.ctx, p.spans, 2, options, logits) == FASTGPT_OK);
    free_pair(p);
    return logits;
}

static float *random_floats(int64_t n) {
    float *x = new_floats(n);
    for (int64_t i = 0; i < n; i++) x[i] = (float)random_below(&seed, 2001) / 1000 - 1;
    return x;
}

/* An edit of some positions of the span, with a value of its own: the caller frees it. */
static fastgpt_edit random_edit(int32_t span) {
    const fastgpt_site site = (fastgpt_site)random_below(&seed, FASTGPT_N_SITES);
    const bool keys = site == FASTGPT_SITE_SCORES || site == FASTGPT_SITE_PATTERN;
    const int32_t op = (int32_t)random_below(&seed, keys ? FASTGPT_EDIT_PROJECT_OUT : FASTGPT_EDIT_PROJECT_OUT + 1);
    fastgpt_edit e = {.span = span, .site = (int32_t)site, .op = op, .head = -1, .n_rows = 1};
    e.layer = has_layers(site) ? (int32_t)random_below(&seed, (uint64_t)n_layer) : 0;
    e.first = (int32_t)random_below(&seed, 4);
    e.last = random_below(&seed, 2) ? -1 : e.first + N_PAST;
    e.n_values = op == FASTGPT_EDIT_ZERO ? 0 : keys || op != FASTGPT_EDIT_PROJECT_OUT ? 1 : (int32_t)width_of(site);
    if (!keys && op != FASTGPT_EDIT_ZERO) e.n_values = (int32_t)width_of(site);
    e.value = e.n_values ? random_floats(e.n_values) : NULL;
    return e;
}

static void free_values(const fastgpt_edit *edits, int32_t n) {
    for (int32_t i = 0; i < n; i++) free((void *)(uintptr_t)edits[i].value);
}

/* The same bits for any number of threads and any slices; without edits, other ones. */
static void test_threads_and_slices_do_not_matter(void) {
    const fastgpt_step_options plain = options_of(NULL, 0);
    float *unedited = run(NULL, 0, &plain);
    for (int round = 0; round < 12; round++) {
        fastgpt_edit edits[8];
        for (int i = 0; i < 8; i++) edits[i] = random_edit(i % 2);
        const fastgpt_step_options options = options_of(edits, 8);
        float *expected = run(NULL, 0, &options);
        CHECK(largest_difference(expected, unedited, N_TOKENS * n_vocab) > 1e-3);
        for (int32_t n_threads = 1; n_threads <= 4; n_threads++) {
            fastgpt_pool *pool = new_pool(n_threads);
            float *logits = run(pool, 3 * n_threads - 2, &options);
            CHECK_FOR(same_floats(logits, expected, N_TOKENS * n_vocab), "round %d, %d threads", round, n_threads);
            free(logits);
            fastgpt_pool_free(pool);
        }
        free(expected);
        free_values(edits, 8);
    }
    free(unedited);
}

/* A span has the bits that it has beside an unedited one, in steps of either kind; so has its cache. */
static void test_neighbours_are_not_touched(void) {
    for (int32_t deterministic = 0; deterministic < 2; deterministic++)
        for (int round = 0; round < 10; round++) {
            fastgpt_edit edits[MAX_EDITS];
            for (int i = 0; i < MAX_EDITS; i++) edits[i] = random_edit(round % 2);
            float *logits[2] = {new_floats(N_TOKENS * n_vocab), new_floats(N_TOKENS * n_vocab)};
            pair p[2] = {new_pair(NULL, 0), new_pair(NULL, 0)};
            for (int i = 0; i < 2; i++) {
                fastgpt_step_options options = options_of(edits, i ? MAX_EDITS : 0);
                options.deterministic = deterministic;
                CHECK(fastgpt_step(p[i].ctx, p[i].spans, 2, &options, logits[i]) == FASTGPT_OK);
            }
            const int other = 1 - round % 2, first = other ? N_FIRST : 0, n = other ? N_TOKENS - N_FIRST : N_FIRST;
            CHECK(same_floats(logits[0] + first * n_vocab, logits[1] + first * n_vocab, n * n_vocab));
            for (int32_t l = 0; l < n_layer; l++)
                CHECK(same_floats(fastgpt_kv_cache_values(p[0].kv[other], l),
                                  fastgpt_kv_cache_values(p[1].kv[other], l),
                                  fastgpt_kv_cache_n_past(p[0].kv[other]) * n_embd));
            for (int i = 0; i < 2; i++) free(logits[i]), free_pair(p[i]);
            free_values(edits, MAX_EDITS);
        }
}

/* Setting each site of each layer to what a tap has copied from it changes no bit; nor do taps. */
static void test_setting_what_is_there(void) {
    const fastgpt_step_options plain = options_of(NULL, 0);
    float *expected = run(NULL, 0, &plain);
    for (int32_t site = 0; site < FASTGPT_N_SITES; site++) {
        const int64_t width = width_of((fastgpt_site)site);
        if (width == 0) continue; /* scores and pattern: the Python tests set them */
        for (int32_t l = 0; l < (has_layers((fastgpt_site)site) ? n_layer : 1); l++) {
            float *shown = new_floats(N_TOKENS * width);
            const fastgpt_site_tap tap = {.site = site, .layer = l, .to = shown};
            const fastgpt_taps taps = {.struct_size = sizeof taps, .sites = &tap, .n_sites = 1};
            fastgpt_step_options options = options_of(NULL, 0);
            options.taps = &taps;
            float *tapped = run(NULL, 0, &options);
            const fastgpt_edit edits[2] = {{.span = 0,
                                            .layer = l,
                                            .site = site,
                                            .head = -1,
                                            .first = N_PAST,
                                            .last = -1,
                                            .n_rows = N_FIRST,
                                            .n_values = (int32_t)width,
                                            .value = shown},
                                           {.span = 1,
                                            .layer = l,
                                            .site = site,
                                            .head = -1,
                                            .last = -1,
                                            .n_rows = N_TOKENS - N_FIRST,
                                            .n_values = (int32_t)width,
                                            .value = shown + N_FIRST * width}};
            options = options_of(edits, 2);
            float *set = run(NULL, 4, &options);
            CHECK_FOR(same_floats(tapped, expected, N_TOKENS * n_vocab), "tap of site %d", site);
            CHECK_FOR(same_floats(set, expected, N_TOKENS * n_vocab), "site %d of layer %d", site, l);
            free(tapped), free(set), free(shown);
        }
    }
    free(expected);
}

/* ---- Hooks ---- */

typedef struct seen {
    int32_t n_calls, n_tokens, until; /* end the step at this call, 0 = never */
    float factor;
} seen;

static int32_t scale_all(void *user, const fastgpt_hook_values *v) {
    seen *s = user;
    s->n_calls++;
    s->n_tokens += v->n_tokens;
    CHECK(v->struct_size == sizeof *v && v->span >= 0 && v->span < 2);
    for (int64_t h = 0; h < v->n_rows; h++)
        for (int64_t t = 0; t < v->n_tokens; t++)
            for (int64_t i = 0; i < v->width; i++) v->values[h * v->ld_head + t * v->ld + i] *= s->factor;
    return s->until > 0 && s->n_calls >= s->until;
}

/* At each site a hook does what an edit of both spans does, sees each token once, and can end the step. */
static void test_hooks(void) {
    float *buffer = new_floats(n_head * N_TOKENS * (N_PAST + N_FIRST));
    for (int32_t site = 0; site < FASTGPT_N_SITES; site++) {
        const int32_t layer = has_layers((fastgpt_site)site) ? 1 : 0;
        const float factor = 0.5f;
        fastgpt_edit edits[2] = {{.layer = layer,
                                  .site = site,
                                  .op = FASTGPT_EDIT_SCALE,
                                  .head = -1,
                                  .last = -1,
                                  .n_rows = 1,
                                  .n_values = 1,
                                  .value = &factor}};
        edits[1] = edits[0], edits[1].span = 1;
        fastgpt_step_options options = options_of(edits, 2);
        float *expected = run(NULL, 4, &options);
        seen s = {.factor = factor};
        const fastgpt_hook hook = {.site = site,
                                   .layer = layer,
                                   .callback = scale_all,
                                   .user = &s,
                                   .buffer = buffer,
                                   .n_keys = N_PAST + N_FIRST};
        options = options_of(NULL, 0);
        options.hooks = &hook, options.n_hooks = 1;
        float *logits = run(NULL, 4, &options);
        CHECK_FOR(same_floats(logits, expected, N_TOKENS * n_vocab), "site %d", site);
        CHECK_FOR(s.n_tokens == N_TOKENS, "site %d: %d tokens", site, s.n_tokens);
        pair p = new_pair(NULL, 4);
        s = (seen){.factor = 1, .until = 3};
        CHECK(fastgpt_step(p.ctx, p.spans, 2, &options, logits) == FASTGPT_ERR_CANCELLED && s.n_calls == 3);
        CHECK(fastgpt_kv_cache_n_past(p.kv[0]) == N_PAST && fastgpt_kv_cache_n_past(p.kv[1]) == 0);
        free_pair(p);
        free(expected), free(logits);
    }
    free(buffer);
}

/* ---- Starts ---- */

/* A step from the residuals that a whole one has shown at any layer has its bits, in slices, too. */
static void test_starts(void) {
    float *hidden = new_floats((n_layer + 1) * N_TOKENS * n_embd);
    const fastgpt_taps taps = {.struct_size = sizeof taps, .hidden = hidden};
    fastgpt_step_options options = options_of(NULL, 0);
    options.taps = &taps;
    float *expected = run(NULL, 0, &options);
    for (int32_t first = 0; first <= n_layer; first++)
        for (int32_t second = first; second <= n_layer; second++) {
            const fastgpt_start starts[2] = {
                {.layer = first, .resid = hidden + first * N_TOKENS * n_embd},
                {.layer = second, .resid = hidden + (second * N_TOKENS + N_FIRST) * n_embd}};
            options = options_of(NULL, 0);
            options.starts = starts;
            for (int32_t n_batch = 0; n_batch < 12; n_batch += 5) {
                float *logits = run(NULL, n_batch, &options);
                CHECK_FOR(same_floats(logits, expected, N_TOKENS * n_vocab), "%d and %d", first, second);
                free(logits);
            }
        }
    free(expected);
    free(hidden);
}

/* The layer from which on a cache is whole, through steps, truncation, fork and copy. */
static void test_a_cache_knows_what_it_lacks(void) {
    float *resid = random_floats(4 * n_embd);
    pair p = new_pair(NULL, 0);
    fastgpt_span span = {.kv = p.kv[0], .tokens = tokens, .n_tokens = 2};
    const fastgpt_start starts[2] = {{.layer = 1, .resid = resid}, {.layer = 2, .resid = resid}};
    fastgpt_step_options options = {.struct_size = sizeof options, .starts = &starts[0]};
    fastgpt_kv_cache *fork, *copy;
    CHECK(fastgpt_step(p.ctx, &span, 1, &options, NULL) == FASTGPT_OK);
    CHECK(fastgpt_kv_cache_start_layer(p.kv[0]) == 1);
    CHECK(fastgpt_decode(p.ctx, p.kv[0], 0, resid) == FASTGPT_ERR_ARGUMENT);
    options.starts = &starts[1];
    CHECK(fastgpt_step(p.ctx, &span, 1, &options, NULL) == FASTGPT_OK);
    CHECK(fastgpt_kv_cache_start_layer(p.kv[0]) == 2);
    CHECK(fastgpt_kv_cache_fork(p.kv[0], N_PAST + 1, 0, &fork) == FASTGPT_OK);
    CHECK(fastgpt_kv_cache_copy(p.kv[0], &copy) == FASTGPT_OK);
    CHECK(fastgpt_kv_cache_start_layer(fork) == 2 && fastgpt_kv_cache_start_layer(copy) == 2);
    CHECK(fastgpt_kv_cache_save(copy, model, "/nowhere/at-all", NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_kv_cache_truncate(copy, N_PAST) == FASTGPT_OK && fastgpt_kv_cache_start_layer(copy) == 0);
    span.kv = copy;
    CHECK(fastgpt_step(p.ctx, &span, 1, NULL, NULL) == FASTGPT_OK && fastgpt_kv_cache_start_layer(copy) == 0);
    fastgpt_kv_cache_free(fork);
    fastgpt_kv_cache_free(copy);
    free_pair(p);
    free(resid);
}

/* ---- Refusals ---- */

static void check_refused(fastgpt_step_options options, fastgpt_status status, const char *words) {
    fastgpt_error error;
    pair p = new_pair(NULL, 0);
    float *logits = new_floats(N_TOKENS * n_vocab), *untouched = new_floats(N_TOKENS * n_vocab);
    options.error = &error;
    fastgpt_status found = fastgpt_step(p.ctx, p.spans, 2, &options, logits);
    CHECK_FOR(found == status, "%s: status %d", words, found);
    CHECK_FOR(strstr(error.text, words) != NULL, "%s: %s", words, error.text);
    CHECK(fastgpt_kv_cache_n_past(p.kv[0]) == N_PAST && fastgpt_kv_cache_n_past(p.kv[1]) == 0);
    CHECK(same_floats(logits, untouched, N_TOKENS * n_vocab));
    free(logits), free(untouched);
    free_pair(p);
}

static void check_edit_refused(fastgpt_edit wrong, fastgpt_status status, const char *words) {
    const float one = 1;
    const fastgpt_edit edits[2] = {{.head = -1, .last = -1, .n_rows = 1, .n_values = 1, .value = &one}, wrong};
    check_refused(options_of(edits, 2), status, words);
}

static void test_refusals_of_edits(void) {
    const float one[2] = {1, 1}, nan = NAN, zero = 0;
    const fastgpt_edit right = {
        .span = 1, .site = FASTGPT_SITE_Z, .head = -1, .last = -1, .n_rows = 1, .n_values = 1, .value = one};
    const fastgpt_status argument = FASTGPT_ERR_ARGUMENT;
    fastgpt_edit e;
    e = right, e.span = 2, check_edit_refused(e, argument, "edit 1: span 2");
    e = right, e.span = -1, check_edit_refused(e, argument, "edit 1: span -1");
    e = right, e.site = FASTGPT_N_SITES, check_edit_refused(e, argument, "site 18");
    e = right, e.site = -1, check_edit_refused(e, argument, "site -1");
    e = right, e.layer = (int32_t)n_layer, check_edit_refused(e, argument, "layer 2 of z");
    e = right, e.op = 6, check_edit_refused(e, argument, "op 6");
    e = right, e.head = (int32_t)n_head, check_edit_refused(e, argument, "head 3");
    e = right, e.head = -2, check_edit_refused(e, argument, "head -2");
    e = right, e.site = FASTGPT_SITE_LN_2, e.head = 0, check_edit_refused(e, argument, "ln_2 has no heads");
    e = right, e.first = -1, check_edit_refused(e, argument, "positions [-1, -1]");
    e = right, e.last = INT32_MAX, check_edit_refused(e, argument, "positions [0, 2147483647]");
    e = right, e.last = INT32_MIN, check_edit_refused(e, argument, "positions");
    e = right, e.span = 0, e.last = N_PAST - 1, check_edit_refused(e, argument, "not in the step, which begins at 5");
    e = right, e.n_rows = 2, check_edit_refused(e, argument, "2 rows");
    e = right, e.n_values = 2, check_edit_refused(e, argument, "2 numbers");
    e = right, e.n_values = -1, check_edit_refused(e, argument, "-1 numbers");
    e = right, e.value = NULL, check_edit_refused(e, argument, "no value");
    e = right, e.op = FASTGPT_EDIT_ZERO, check_edit_refused(e, argument, "takes no value");
    e = right, e.value = &nan, check_edit_refused(e, FASTGPT_ERR_NUMBERS, "value 0 of row 0 is");
    e = right, e.op = FASTGPT_EDIT_PROJECT_OUT, e.site = FASTGPT_SITE_PATTERN;
    check_edit_refused(e, argument, "no directions");
    e = right, e.value = &zero, e.op = FASTGPT_EDIT_PROJECT_OUT, check_edit_refused(e, argument, "a direction of z");
}

static void test_other_refusals(void) {
    float *resid = random_floats(N_TOKENS * n_embd);
    fastgpt_step_options o;
    o = options_of(NULL, 1), check_refused(o, FASTGPT_ERR_ARGUMENT, "n_edits is 1");
    o = options_of(NULL, 0), o.n_hooks = -1, check_refused(o, FASTGPT_ERR_ARGUMENT, "n_hooks -1");
    fastgpt_hook hooks[2] = {{.site = FASTGPT_SITE_Z, .callback = scale_all}, {.site = FASTGPT_SITE_Z}};
    o.hooks = hooks, o.n_hooks = 2, check_refused(o, FASTGPT_ERR_ARGUMENT, "hook 1: z has no callback");
    hooks[1].callback = scale_all, check_refused(o, FASTGPT_ERR_ARGUMENT, "another hook, 0");
    hooks[1].site = FASTGPT_SITE_SCORES, check_refused(o, FASTGPT_ERR_ARGUMENT, "scores needs a buffer for 19 keys");
    fastgpt_start starts[2] = {{.layer = 1}, {.layer = 1, .resid = resid}};
    o = options_of(NULL, 0), o.starts = starts, check_refused(o, FASTGPT_ERR_ARGUMENT, "span 0: layer 1 needs");
    starts[0].resid = resid, starts[1].layer = 0,
    check_refused(o, FASTGPT_ERR_ARGUMENT, "below that of the span before");
    starts[1].layer = (int32_t)n_layer + 1, check_refused(o, FASTGPT_ERR_ARGUMENT, "span 1: layer 3 is not in");
    starts[0].layer = 0, starts[1] = (fastgpt_start){.layer = 0}, check_refused(o, FASTGPT_ERR_ARGUMENT, "embeddings");
    fastgpt_site_tap tap = {.site = FASTGPT_SITE_PATTERN, .to = resid};
    fastgpt_taps taps = {.struct_size = sizeof taps, .sites = &tap, .n_sites = 1, .n_keys = 18};
    o = options_of(NULL, 0), o.taps = &taps, check_refused(o, FASTGPT_ERR_ARGUMENT, "site tap 0: n_keys is 18");
    tap.layer = -1, check_refused(o, FASTGPT_ERR_ARGUMENT, "layer -1 of pattern");
    tap.layer = 0, tap.to = NULL, check_refused(o, FASTGPT_ERR_ARGUMENT, "no array");
    free(resid);
}

int main(void) {
    model = load_shape(small_shape, false);
    n_vocab = fastgpt_model_n_vocab(model);
    n_embd = fastgpt_model_n_embd(model);
    n_layer = fastgpt_model_n_layer(model);
    n_head = fastgpt_model_n_head(model);
    random_tokens(&seed, tokens, N_TOKENS, (int32_t)n_vocab);
    test_threads_and_slices_do_not_matter();
    test_neighbours_are_not_touched();
    test_setting_what_is_there();
    test_hooks();
    test_starts();
    test_a_cache_knows_what_it_lacks();
    test_refusals_of_edits();
    test_other_refusals();
    fastgpt_model_free(model);
    return check_report();
}
