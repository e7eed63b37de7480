/* test_generator.c - a generator says what the functions that it bundles would say, remembers what was said, and reads
 * nothing twice; stop strings, overflow and errors leave what the header promises. */
#include "generation/generator.h"
#include "support/session.h"
#include "support/vocabulary.h"

#include <math.h>

static fastgpt_model *model;
static int32_t n_vocab;

/* What a callback heard; with a script it allows the next of its tokens alone. */
typedef struct listener {
    fastgpt_generator *generator;
    const int32_t *script;
    int32_t n_script, n, stop_at, cancel_at;
    int32_t tokens[256];
    char text[4096];
    size_t n_bytes;
    float log_prob, best_log_prob;
} listener;

static void allow_next(listener *l) {
    uint32_t mask[16] = {0};
    if (!l->script) return;
    int32_t token = l->script[l->n < l->n_script ? l->n : l->n_script - 1];
    mask[token / 32] = 1u << token % 32;
    CHECK(fastgpt_sampler_set_allowed(l->generator->sampler, mask) == FASTGPT_OK);
}

static int32_t listen(void *user, const fastgpt_piece *piece) {
    listener *l = user;
    CHECK(piece->struct_size == sizeof *piece && piece->text[piece->n_bytes] == 0);
    memcpy(l->text + l->n_bytes, piece->text, piece->n_bytes);
    l->n_bytes += piece->n_bytes;
    l->text[l->n_bytes] = 0;
    l->log_prob = piece->log_prob;
    l->best_log_prob = piece->n_likeliest > 0 ? piece->likeliest_log_probs[0] : 0;
    if (piece->token < 0) return 0;
    l->tokens[l->n++] = piece->token;
    if (l->n == l->cancel_at) fastgpt_generator_cancel(l->generator);
    allow_next(l);
    return l->n == l->stop_at;
}

static const fastgpt_sampler_params greedy = {.struct_size = sizeof greedy};

static fastgpt_generator_options options_of(int32_t max_new_tokens) {
    return (fastgpt_generator_options){
        .struct_size = sizeof(fastgpt_generator_options), .sampling = &greedy, .max_new_tokens = max_new_tokens};
}

static fastgpt_generator *new_generator(const fastgpt_generator_options *options) {
    fastgpt_generator *g;
    fastgpt_error error;
    if (!CHECK(fastgpt_generator_create(model, options, &g, &error) == FASTGPT_OK)) abort();
    return g;
}

static fastgpt_status say(fastgpt_generator *g, const char *text, listener *l) {
    l->generator = g;
    allow_next(l);
    return fastgpt_generator_continue(g, text, strlen(text), listen, l, NULL);
}

static void ban_end(fastgpt_generator *g) { CHECK(fastgpt_sampler_set_bias(g->sampler, EOT, -INFINITY) == FASTGPT_OK); }

static int32_t n_said(const fastgpt_generator *g) {
    int32_t n;
    CHECK(fastgpt_generator_tokens(g, &n) == g->tokens);
    return n;
}

/* ---- What it says ---- */

static int32_t take(void *user, int32_t token, const char *text, size_t n_bytes) {
    listener *l = user;
    (void)text, (void)n_bytes;
    if (token >= 0) l->tokens[l->n++] = token;
    return 0;
}

/* The tokens of fastgpt_generate, in one turn or in two, of which the second reads only what is new. */
static void test_same_as_the_loop(void) {
    fastgpt_generator_options options = options_of(10);
    fastgpt_generator *g = new_generator(&options);
    int32_t prompt[3], n_prompt;
    CHECK(fastgpt_encode(g->tokenizer, "the", 3, 0, prompt, 3, &n_prompt) == FASTGPT_OK);
    fastgpt_kv_cache *kv = new_cache(model, 0);
    listener loop = {.n = 0}, first = {.n = 0}, second = {.n = 0};
    ban_end(g);
    CHECK(fastgpt_generate(g->ctx, kv, g->sampler, g->tokenizer, prompt, n_prompt, 20, take, &loop, NULL) ==
          FASTGPT_OK);
    CHECK(say(g, "the", &first) == FASTGPT_OK && first.n == 10 && fastgpt_generator_n_generated(g) == 10);
    CHECK(fastgpt_generator_finish_reason(g) == FASTGPT_FINISH_LENGTH);
    fastgpt_profile_summary summary;
    CHECK(fastgpt_profile_start(g->ctx, 0) == FASTGPT_OK);
    CHECK(say(g, "", &second) == FASTGPT_OK && second.n == 10);
    CHECK(fastgpt_profile_summarize(g->ctx, &summary) == FASTGPT_OK);
    CHECK(summary.prefill.n_tokens == 0 && summary.decode.n_tokens == 10);
    CHECK(memcmp(first.tokens, loop.tokens, 10 * sizeof *loop.tokens) == 0);
    CHECK(memcmp(second.tokens, loop.tokens + 10, 10 * sizeof *loop.tokens) == 0);
    CHECK(n_said(g) == n_prompt + 20 && fastgpt_kv_cache_n_past(g->kv) == n_said(g) - 1);
    fastgpt_kv_cache_free(kv);
    fastgpt_generator_free(g);
}

/* An empty beginning is the end-of-text token; reset forgets, and draws the same again. */
static void test_reset(void) {
    fastgpt_sampler_params params = {.struct_size = sizeof params};
    CHECK(fastgpt_sampler_params_default(&params) == FASTGPT_OK);
    params.seed = 5;
    fastgpt_generator_options options = options_of(12);
    options.sampling = &params;
    fastgpt_generator *g = new_generator(&options);
    listener first = {.n = 0}, second = {.n = 0}, again = {.n = 0};
    CHECK(fastgpt_generator_finish_reason(g) == FASTGPT_FINISH_NONE && n_said(g) == 0);
    ban_end(g);
    CHECK(say(g, "", &first) == FASTGPT_OK && g->tokens[0] == EOT && n_said(g) == 13);
    CHECK(say(g, "the", &second) == FASTGPT_OK);
    CHECK(fastgpt_generator_reset(g) == FASTGPT_OK && n_said(g) == 0);
    CHECK(say(g, "", &again) == FASTGPT_OK && memcmp(first.tokens, again.tokens, 12 * sizeof *again.tokens) == 0);
    CHECK(fastgpt_generator_reset(NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_generator_model(g) == model);
    fastgpt_generator_free(g);
    fastgpt_generator_free(NULL);
}

/* ln p of the raw logits, best first: greedy draws the best. */
static void test_log_probs(void) {
    fastgpt_generator_options options = options_of(1);
    options.n_likeliest = 3;
    fastgpt_generator *g = new_generator(&options);
    listener l = {.n = 0};
    ban_end(g);
    fastgpt_sampler_set_bias(g->sampler, 7, 1e6f); /* chosen, but by a bias that log-probabilities do not see */
    CHECK(say(g, "the", &l) == FASTGPT_OK && l.tokens[0] == 7);
    double sum = 0;
    for (int32_t i = 0; i < n_vocab; i++) sum += exp((double)g->logits[i]);
    CHECK(fabs((double)l.log_prob - ((double)g->logits[7] - log(sum))) < 1e-5);
    float best = g->logits[g->likeliest[0]];
    for (int32_t i = 0; i < n_vocab; i++) CHECK(g->logits[i] <= best);
    CHECK(g->logits[g->likeliest[1]] >= g->logits[g->likeliest[2]] && l.best_log_prob >= l.log_prob);
    CHECK(fabs((double)l.best_log_prob - ((double)best - log(sum))) < 1e-5);
    fastgpt_generator_free(g);
}

/* ---- How a text ends ---- */

/* Draws a script; what is shown, what stays said once the next turn has begun. */
static void check_stop(const int32_t *script, int32_t n_script, const char *const *stop, const char *shown,
                       fastgpt_finish_reason reason, const char *said) {
    fastgpt_generator_options options = options_of(n_script);
    options.stop = stop;
    options.n_stop = stop[1] ? 2 : 1;
    fastgpt_generator *g = new_generator(&options);
    listener l = {.script = script, .n_script = n_script}, next = {.stop_at = 1};
    CHECK(say(g, "=", &l) == FASTGPT_OK);
    CHECK_FOR(strcmp(l.text, shown) == 0, "\"%s\", not \"%s\"", l.text, shown);
    CHECK_FOR(fastgpt_generator_finish_reason(g) == reason, "\"%s\": %d", shown, (int)g->finish_reason);
    CHECK(fastgpt_sampler_set_allowed(g->sampler, NULL) == FASTGPT_OK);
    ban_end(g);
    CHECK(say(g, "", &next) == FASTGPT_OK && next.n == 1);
    char bytes[256];
    size_t n_bytes;
    CHECK(fastgpt_detokenize(g->tokenizer, g->tokens, n_said(g) - 1, bytes, 256, &n_bytes) == FASTGPT_OK);
    CHECK_FOR(n_bytes == strlen(said) && memcmp(bytes, said, n_bytes) == 0, "\"%s\", not \"%.*s\"", said, (int)n_bytes,
              bytes);
    fastgpt_generator_free(g);
}

static void test_stop_strings(void) {
    static const int32_t user[] = {'o', 'k', '\n', 'U', ':', 'x'}, usual[] = {'o', '\n', 'U', 's', '\n', 'U'};
    static const int32_t inside[] = {'o', THE, 'x'}, accent[] = {'o', 0xC3, 0xA9, 's'}, part[] = {'o', 0xC3};
    static const char *const turn[] = {"\nU:", NULL}, *const he[] = {"he", NULL}, *const two[] = {"\nU:", "k"};
    static const char *const after_accent[] = {"s", NULL}, *const with_accent[] = {"\xC3\xA9s", NULL};
    check_stop(user, 6, turn, "ok", FASTGPT_FINISH_STOP, "=ok");
    check_stop(user, 6, two, "o", FASTGPT_FINISH_STOP, "=o");
    check_stop(usual, 6, turn, "o\nUs\nU", FASTGPT_FINISH_LENGTH, "=o\nUs\nU");
    check_stop(inside, 3, he, "ot", FASTGPT_FINISH_STOP, "=ot");
    check_stop(accent, 4, after_accent, "o\xC3\xA9", FASTGPT_FINISH_STOP, "=o\xC3\xA9");
    check_stop(accent, 4, with_accent, "o", FASTGPT_FINISH_STOP, "=o");
    check_stop(part, 2, turn, "o\xEF\xBF\xBD", FASTGPT_FINISH_LENGTH, "=o\xC3");
}

/* Each token that ends a text does; min_new_tokens bans all of them, whatever the parameters name. */
static void test_every_end_token(void) {
    static const int32_t script[] = {'o', 'k'}, at_once[] = {'k'};
    vocabulary *v = english_vocabulary();
    fastgpt_model *two_ends = load_with_ends(v, EOT, 'k');
    free(v);
    fastgpt_sampler_params patient = {.struct_size = sizeof patient, .min_new_tokens = 2, .eos_token = -1};
    fastgpt_generator_options options = options_of(20);
    for (int i = 0; i < 2; i++) {
        fastgpt_generator *g;
        if (i == 1) options.sampling = &patient;
        if (!CHECK(fastgpt_generator_create(two_ends, &options, &g, NULL) == FASTGPT_OK)) break;
        listener ended = {.script = script, .n_script = 2}, early = {.script = at_once, .n_script = 1};
        if (i == 0) CHECK(say(g, "=", &ended) == FASTGPT_OK && strcmp(ended.text, "o") == 0);
        if (i == 0) CHECK(fastgpt_generator_finish_reason(g) == FASTGPT_FINISH_EOS);
        if (i == 1) CHECK(say(g, "=", &early) == FASTGPT_ERR_LOGITS);
        fastgpt_generator_free(g);
    }
    fastgpt_model_free(two_ends);
}

static void test_other_ends(void) {
    static const int32_t script[] = {'o', 'k', EOT};
    fastgpt_generator_options options = options_of(20);
    fastgpt_generator *g = new_generator(&options);
    listener ended = {.script = script, .n_script = 3}, stopped = {.script = script, .n_script = 3, .stop_at = 2};
    CHECK(say(g, "=", &ended) == FASTGPT_OK && n_said(g) == 3 && strcmp(ended.text, "ok") == 0);
    CHECK(fastgpt_generator_finish_reason(g) == FASTGPT_FINISH_EOS && fastgpt_generator_n_generated(g) == 2);
    CHECK(say(g, "=", &stopped) == FASTGPT_OK && n_said(g) == 6);
    CHECK(fastgpt_generator_finish_reason(g) == FASTGPT_FINISH_CALLBACK);
    CHECK(fastgpt_generator_continue(g, NULL, 0, NULL, NULL, NULL) == FASTGPT_OK); /* nobody listens */
    fastgpt_generator_free(g);
}

/* min_new_tokens bans what ends a text of this model: eos_token of the parameters need not be told. */
static void test_min_new_tokens(void) {
    fastgpt_sampler_params params = {.struct_size = sizeof params, .min_new_tokens = 5};
    fastgpt_generator_options options = options_of(20);
    options.sampling = &params;
    fastgpt_generator *g = new_generator(&options);
    listener l = {.n = 0};
    CHECK(fastgpt_sampler_set_bias(g->sampler, EOT, 1e6f) == FASTGPT_OK);
    CHECK(say(g, "the", &l) == FASTGPT_OK && l.n == 5 && g->finish_reason == FASTGPT_FINISH_EOS);
    fastgpt_generator_free(g);
}

/* ---- Overflow ---- */

static fastgpt_generator *new_small(int32_t overflow, int32_t max_new_tokens) {
    fastgpt_generator_options options = options_of(max_new_tokens);
    options.n_ctx = 16;
    options.overflow = overflow;
    fastgpt_generator *g = new_generator(&options);
    ban_end(g);
    return g;
}

static void test_overflow_error(void) {
    fastgpt_generator *g = new_small(FASTGPT_OVERFLOW_ERROR, 8);
    fastgpt_error error;
    listener l = {.n = 0};
    CHECK(say(g, "abcdefgh", &l) == FASTGPT_OK && n_said(g) == 16);
    CHECK(fastgpt_generator_continue(g, "x", 1, NULL, NULL, &error) == FASTGPT_ERR_CONTEXT_FULL && n_said(g) == 16);
    CHECK(strstr(error.text, "16 tokens that were said, 1 of the text and 8 new ones exceed the 16 positions"));
    fastgpt_generator_free(g);
}

static void test_overflow_truncate(void) {
    fastgpt_generator *g = new_small(FASTGPT_OVERFLOW_TRUNCATE, 8);
    listener l = {.n = 0};
    CHECK(say(g, "abcdefghijkl", &l) == FASTGPT_OK && n_said(g) == 16);
    CHECK(g->tokens[0] == 'e' && g->tokens[7] == 'l' && g->tokens[8] == l.tokens[0]);
    CHECK(say(g, "xy", &l) == FASTGPT_OK && n_said(g) == 16 && g->tokens[6] == 'x' && g->tokens[7] == 'y');
    CHECK(g->tokens[0] == l.tokens[2]);
    fastgpt_generator_free(g);
    g = new_small(FASTGPT_OVERFLOW_TRUNCATE, 16);
    CHECK(say(g, "a", &l) == FASTGPT_ERR_CONTEXT_FULL && n_said(g) == 0);
    fastgpt_generator_free(g);
}

static void test_overflow_slide(void) {
    fastgpt_generator *g = new_small(FASTGPT_OVERFLOW_SLIDE, 50);
    listener l = {.n = 0};
    CHECK(say(g, "abcdefghijklmnopqrstuvw", &l) == FASTGPT_OK && l.n == 50);
    CHECK(fastgpt_generator_finish_reason(g) == FASTGPT_FINISH_LENGTH && n_said(g) <= 16);
    int32_t n = n_said(g);
    CHECK(memcmp(g->tokens, l.tokens + 50 - n, (size_t)n * sizeof *l.tokens) == 0);
    fastgpt_generator_free(g);
}

/* ---- Errors ---- */

static void refused(fastgpt_generator_options options, const char *culprit) {
    fastgpt_generator *g = (fastgpt_generator *)&model;
    fastgpt_error error;
    fastgpt_status status = fastgpt_generator_create(model, &options, &g, &error);
    CHECK_FOR(status == FASTGPT_ERR_ARGUMENT && !g && strstr(error.text, culprit), "%s: %d, \"%s\"", culprit, status,
              error.text);
}

static void test_refused_options(void) {
    static const char *const empty[] = {"x", ""}, *const inside[] = {"\xA9"};
    fastgpt_sampler_params hot = {.struct_size = sizeof hot, .temperature = -1};
    fastgpt_generator_options o = options_of(1);
    const fastgpt_generator_options d = o;
    o.struct_size++, refused(o, "struct_size");
    o = d, o.struct_size = 8, refused(o, "struct_size");
    o = d, o.sampling = &hot, refused(o, "temperature is -1");
    o = d, o.n_threads = 1025, refused(o, "n_threads is 1025");
    o = d, o.n_ctx = 81, refused(o, "n_ctx is 81, not in [0, 80]");
    o = d, o.kv_type = FASTGPT_TYPE_Q8_0, refused(o, "Q8_0");
    o = d, o.max_new_tokens = -1, refused(o, "max_new_tokens is -1");
    o = d, o.overflow = 3, refused(o, "overflow is 3");
    o = d, o.encode_flags = 2, refused(o, "encode_flags is 2");
    o = d, o.log_probs = 2, refused(o, "log_probs is 2");
    o = d, o.n_likeliest = 101, refused(o, "n_likeliest is 101");
    o = d, o.n_stop = -1, refused(o, "n_stop is -1");
    o = d, o.n_stop = 1, refused(o, "stop is NULL");
    o = d, o.n_stop = 2, o.stop = empty, refused(o, "stop[1]");
    o = d, o.n_stop = 1, o.stop = inside, refused(o, "stop[0]");
}

/* A turn that fails leaves what was said as it was, and the next one goes on from there. */
static void test_failed_turns(void) {
    fastgpt_generator_options options = options_of(6);
    fastgpt_generator *g = new_generator(&options), *other = new_generator(&options);
    fastgpt_error error;
    listener l = {.n = 0}, cancelled = {.cancel_at = 3}, next = {.n = 0}, expected = {.n = 0};
    ban_end(g), ban_end(other);
    CHECK(say(g, "the", &l) == FASTGPT_OK && say(other, "the", &l) == FASTGPT_OK);
    CHECK(say(g, "th", &cancelled) == FASTGPT_ERR_CANCELLED && cancelled.n == 3);
    CHECK(fastgpt_generator_finish_reason(g) == FASTGPT_FINISH_NONE && n_said(g) == n_said(other));
    for (int32_t i = 0; i < n_vocab; i++) fastgpt_sampler_set_bias(g->sampler, i, -INFINITY);
    CHECK(fastgpt_generator_continue(g, "x", 1, NULL, NULL, &error) == FASTGPT_ERR_LOGITS && error.text[0]);
    for (int32_t i = 0; i < n_vocab; i++) fastgpt_sampler_set_bias(g->sampler, i, 0);
    ban_end(g);
    CHECK(fastgpt_generator_continue(g, NULL, 1, NULL, NULL, &error) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_generator_continue(NULL, "x", 1, NULL, NULL, &error) == FASTGPT_ERR_ARGUMENT);
    CHECK(say(g, "th", &next) == FASTGPT_OK && say(other, "th", &expected) == FASTGPT_OK);
    CHECK(memcmp(next.tokens, expected.tokens, 6 * sizeof *next.tokens) == 0);
    fastgpt_generator_free(g);
    fastgpt_generator_free(other);
}

static void test_creation(void) {
    fastgpt_generator *g = (fastgpt_generator *)&model;
    fastgpt_error error;
    CHECK(fastgpt_generator_create(NULL, NULL, &g, &error) == FASTGPT_ERR_ARGUMENT && !g);
    CHECK(fastgpt_generator_create(model, NULL, NULL, &error) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_generator_open("missing.gguf", NULL, &g, &error) == FASTGPT_ERR_IO && !g);
    CHECK(strstr(error.text, "missing.gguf") && fastgpt_generator_open(NULL, NULL, &g, NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_generator_open("missing.gguf", NULL, NULL, NULL) == FASTGPT_ERR_ARGUMENT);
    draft d = draft_of(small_shape);
    draft_drop_key(&d, "tokenizer.ggml.model");
    buffer file = draft_write(&d, NULL);
    temporary_file temporary = write_temporary(file.data, file.n);
    CHECK(fastgpt_generator_open(temporary.path, NULL, &g, &error) == FASTGPT_ERR_UNSUPPORTED && !g);
    free(file.data);
    draft_free(&d);
    unlink(temporary.path);
}

/* From a file, whose model goes with it.  Its vocabulary is four tokens, none of which ends a text. */
static void test_open(void) {
    model_shape shape = tiny_shape;
    shape.n_vocab = 4;
    draft d = draft_of(shape);
    buffer *tokens = draft_set_array(&d, "tokenizer.ggml.tokens", GGUF_STRING, 4);
    for (int i = 0; i < 4; i++) put_string(tokens, (const char *[]){"a", "b", "c", "d"}[i]);
    draft_drop_key(&d, "tokenizer.ggml.merges");
    draft_drop_key(&d, "tokenizer.ggml.token_type");
    draft_drop_key(&d, "tokenizer.ggml.eos_token_id");
    buffer file = draft_write(&d, NULL);
    temporary_file temporary = write_temporary(file.data, file.n);
    fastgpt_generator *g;
    fastgpt_error error;
    if (CHECK(fastgpt_generator_open(temporary.path, NULL, &g, &error) == FASTGPT_OK)) {
        CHECK(fastgpt_generator_continue(g, "", 0, NULL, NULL, &error) == FASTGPT_ERR_N_TOKENS);
        CHECK(strstr(error.text, "empty") && fastgpt_model_n_layer(fastgpt_generator_model(g)) > 0);
        CHECK(fastgpt_generator_continue(g, "@", 1, NULL, NULL, &error) == FASTGPT_ERR_NO_TOKEN && error.text[0]);
        fastgpt_generator_free(g);
    }
    free(file.data);
    draft_free(&d);
    unlink(temporary.path);
}

int main(void) {
    vocabulary *v = english_vocabulary();
    model = load_with_vocabulary(v, EOT);
    free(v);
    n_vocab = fastgpt_model_n_vocab(model);
    test_same_as_the_loop();
    test_reset();
    test_log_probs();
    test_stop_strings();
    test_every_end_token();
    test_other_ends();
    test_min_new_tokens();
    test_overflow_error();
    test_overflow_truncate();
    test_overflow_slide();
    test_refused_options();
    test_failed_turns();
    test_creation();
    test_open();
    fastgpt_model_free(model);
    return check_report();
}
