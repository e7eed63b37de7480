/* generator.c - a model and all that it takes to continue a text, in one handle.  What was said is a list of tokens;
 * the KV cache holds a beginning of it, so what is forgotten at the front, or taken back at the end, is read again. */
#include "generation/generator.h"

#include <stdlib.h>
#include <string.h>

#include "common/status.h"
#include "common/versioned_struct.h"

enum { DEFAULT_MAX_NEW_TOKENS = 100, MAX_LIKELIEST = 100 };

/* ---- Life ---- */

static fastgpt_status check_options(const fastgpt_generator_options *o, fastgpt_error *error) {
    const struct {
        const char *name;
        int32_t value, low, high;
    } numbers[] = {{"n_threads", o->n_threads, 0, 1024},
                   {"max_new_tokens", o->max_new_tokens, 0, INT32_MAX},
                   {"overflow", o->overflow, FASTGPT_OVERFLOW_ERROR, FASTGPT_OVERFLOW_SLIDE},
                   {"encode_flags", o->encode_flags, FASTGPT_ENCODE_SPECIAL, FASTGPT_ENCODE_LITERAL},
                   {"log_probs", o->log_probs, 0, 1},
                   {"n_likeliest", o->n_likeliest, 0, MAX_LIKELIEST},
                   {"n_stop", o->n_stop, 0, INT32_MAX}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].value < numbers[i].low || numbers[i].value > numbers[i].high)
            return fail(error, FASTGPT_ERR_ARGUMENT, "%s is %d, not in [%d, %d]", numbers[i].name, numbers[i].value,
                        numbers[i].low, numbers[i].high);
    if (o->n_stop > 0 && !o->stop) return fail(error, FASTGPT_ERR_ARGUMENT, "stop is NULL, and n_stop %d", o->n_stop);
    return FASTGPT_OK;
}

static fastgpt_status read_options(const fastgpt_generator_options *given, fastgpt_generator_options *o,
                                   fastgpt_error *error) {
    *o = (fastgpt_generator_options){.struct_size = sizeof *o};
    if (given && !options_read(o, sizeof *o, given, FIRST_SIZE(fastgpt_generator_options, stop)))
        return fail(error, FASTGPT_ERR_ARGUMENT, "options->struct_size is %zu, not %zu", given->struct_size,
                    sizeof *given);
    return check_options(o, error);
}

static fastgpt_status allocate_buffers(fastgpt_generator *g, fastgpt_error *error) {
    size_t n_ctx = (size_t)fastgpt_kv_cache_n_ctx(g->kv), n_vocab = (size_t)fastgpt_model_n_vocab(g->model);
    if ((size_t)g->n_likeliest > n_vocab) g->n_likeliest = (int32_t)n_vocab;
    g->tokens = malloc(n_ctx * sizeof *g->tokens);
    g->text_ends = malloc(n_ctx * sizeof *g->text_ends);
    g->before = malloc(n_ctx * sizeof *g->before);
    g->logits = malloc(n_vocab * sizeof *g->logits);
    g->likeliest = malloc(((size_t)g->n_likeliest + 1) * sizeof *g->likeliest);
    g->likeliest_log_probs = malloc(((size_t)g->n_likeliest + 1) * sizeof *g->likeliest_log_probs);
    bool all = g->tokens && g->text_ends && g->before && g->logits && g->likeliest && g->likeliest_log_probs;
    return all ? FASTGPT_OK : fail(error, FASTGPT_ERR_MEMORY, "no memory for a generator");
}

/* Puts words to a status of a function that has none. */
static fastgpt_status name_failure(fastgpt_status status, const char *what, fastgpt_error *error) {
    return status ? fail(error, status, "%s: %s", what, fastgpt_status_text(status)) : FASTGPT_OK;
}

/* What g->model is run with. */
static fastgpt_status create_parts(fastgpt_generator *g, const fastgpt_generator_options *o, fastgpt_error *error) {
    fastgpt_type type = o->kv_type == -1 ? fastgpt_model_kv_type(g->model) : (fastgpt_type)o->kv_type;
    fastgpt_status status = stop_finder_create(&g->stops, o->stop, o->n_stop, error);
    if (!status) status = fastgpt_kv_cache_create_checked(g->model, o->n_ctx, type, &g->kv, error);
    if (!status) status = fastgpt_tokenizer_create(g->model, &g->tokenizer, error);
    if (!status)
        status = fastgpt_sampler_create_checked(fastgpt_model_n_vocab(g->model), o->sampling, &g->sampler, error);
    if (!status)
        status = name_failure(fastgpt_sampler_set_eos_tokens(g->sampler, fastgpt_model_eos_tokens(g->model),
                                                             fastgpt_model_n_eos_tokens(g->model)),
                              "end tokens", error);
    if (!status) status = allocate_buffers(g, error);
    if (!status) status = name_failure(fastgpt_stream_create(g->tokenizer, &g->stream), "stream", error);
    if (!status) status = name_failure(fastgpt_pool_create(o->n_threads, &g->pool), "threads", error);
    if (!status) status = name_failure(fastgpt_context_create(g->model, g->pool, 0, &g->ctx), "context", error);
    return status;
}

/* Takes over `owned`, NULL = the model is the caller's. */
static fastgpt_status create_generator(const fastgpt_model *model, fastgpt_model *owned,
                                       const fastgpt_generator_options *o, fastgpt_generator **out,
                                       fastgpt_error *error) {
    fastgpt_generator *g = calloc(1, sizeof *g);
    if (!g) {
        fastgpt_model_free(owned);
        return fail(error, FASTGPT_ERR_MEMORY, "no memory for a generator");
    }
    g->model = model;
    g->owned = owned;
    g->max_new_tokens = o->max_new_tokens ? o->max_new_tokens : DEFAULT_MAX_NEW_TOKENS;
    g->overflow = o->overflow;
    g->encode_flags = o->encode_flags;
    g->n_likeliest = o->n_likeliest;
    g->log_probs = o->log_probs || o->n_likeliest > 0;
    fastgpt_status status = create_parts(g, o, error);
    if (status) fastgpt_generator_free(g);
    else *out = g;
    return status;
}

fastgpt_status fastgpt_generator_create(const fastgpt_model *model, const fastgpt_generator_options *options,
                                        fastgpt_generator **out, fastgpt_error *error) {
    if (error) error->text[0] = 0;
    if (!out) return fail(error, FASTGPT_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (!model) return fail(error, FASTGPT_ERR_ARGUMENT, "model is NULL");
    fastgpt_generator_options o;
    fastgpt_status status = read_options(options, &o, error);
    return status ? status : create_generator(model, NULL, &o, out, error);
}

fastgpt_status fastgpt_generator_open(const char *path, const fastgpt_generator_options *options,
                                      fastgpt_generator **out, fastgpt_error *error) {
    if (error) error->text[0] = 0;
    if (!out) return fail(error, FASTGPT_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    fastgpt_generator_options o;
    fastgpt_model *model = NULL;
    fastgpt_status status = read_options(options, &o, error);
    if (!status) status = fastgpt_model_load(path, NULL, &model, error);
    return status ? status : create_generator(model, model, &o, out, error);
}

void fastgpt_generator_free(fastgpt_generator *g) {
    if (!g) return;
    stop_finder_free(&g->stops);
    fastgpt_kv_cache_free(g->kv);
    fastgpt_context_free(g->ctx);
    fastgpt_pool_free(g->pool);
    fastgpt_sampler_free(g->sampler);
    fastgpt_stream_free(g->stream);
    fastgpt_tokenizer_free(g->tokenizer);
    fastgpt_model_free(g->owned);
    free(g->tokens);
    free(g->text_ends);
    free(g->before);
    free(g->pending.text);
    free(g->shown.text);
    free(g->logits);
    free(g->likeliest);
    free(g->likeliest_log_probs);
    free(g);
}

/* ---- What can be asked ---- */

const fastgpt_model *fastgpt_generator_model(const fastgpt_generator *g) { return g->model; }

const int32_t *fastgpt_generator_tokens(const fastgpt_generator *g, int32_t *n_tokens) {
    *n_tokens = g->n_tokens;
    return g->tokens;
}

int32_t fastgpt_generator_n_generated(const fastgpt_generator *g) { return g->n_generated; }

fastgpt_finish_reason fastgpt_generator_finish_reason(const fastgpt_generator *g) { return g->finish_reason; }

void fastgpt_generator_cancel(fastgpt_generator *g) {
    if (g) fastgpt_cancel(g->ctx);
}

fastgpt_status fastgpt_generator_reset(fastgpt_generator *g) {
    if (!g) return FASTGPT_ERR_ARGUMENT;
    g->n_tokens = g->n_generated = 0;
    g->pending.n = 0;
    g->finish_reason = FASTGPT_FINISH_NONE;
    fastgpt_kv_cache_truncate(g->kv, 0);
    return fastgpt_sampler_reset(g->sampler);
}
