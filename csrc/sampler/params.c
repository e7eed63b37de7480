/* params.c - the parameters of a sampler: their defaults, and which field is outside its range. */
#include <math.h>

#include "common/status.h"
#include "common/versioned_struct.h"
#include "sampler/sampler.h"

#define SMALLEST_PARAMS FIRST_SIZE(fastgpt_sampler_params, seed)

static const fastgpt_sampler_params defaults = {
    .struct_size = sizeof defaults, .temperature = 0.8f, .top_p = 0.95f, .mirostat_eta = 0.1f, .eos_token = -1};

fastgpt_status fastgpt_sampler_params_default(fastgpt_sampler_params *out) {
    if (!out || out->struct_size < SMALLEST_PARAMS || out->struct_size > sizeof *out) return FASTGPT_ERR_ARGUMENT;
    size_t n_bytes = out->struct_size;
    memcpy(out, &defaults, n_bytes);
    out->struct_size = n_bytes;
    return FASTGPT_OK;
}

static fastgpt_status check_number(const char *name, float value, float low, float high, fastgpt_error *error) {
    if (value >= low && value <= high) return FASTGPT_OK; /* NaN is not */
    return fail(error, FASTGPT_ERR_ARGUMENT, "%s is %g, not in [%g, %g]", name, (double)value, (double)low,
                (double)high);
}

static fastgpt_status check_numbers(const fastgpt_sampler_params *p, fastgpt_error *error) {
    const struct {
        const char *name;
        float value, low, high;
    } numbers[] = {{"temperature", p->temperature, 0, 1e6f},
                   {"top_p", p->top_p, 0, 1},
                   {"min_p", p->min_p, 0, 1},
                   {"repetition_penalty", p->repetition_penalty, 0, 1e6f},
                   {"typical_p", p->typical_p, 0, 1},
                   {"top_n_sigma", p->top_n_sigma, 0, 1e6f},
                   {"mirostat_tau", p->mirostat_tau, 0, 1e6f},
                   {"mirostat_eta", p->mirostat_eta, 0, 1},
                   {"frequency_penalty", p->frequency_penalty, -1e6f, 1e6f},
                   {"presence_penalty", p->presence_penalty, -1e6f, 1e6f}};
    fastgpt_status status = FASTGPT_OK;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers && !status; i++)
        status = check_number(numbers[i].name, numbers[i].value, numbers[i].low, numbers[i].high, error);
    return status;
}

static fastgpt_status check_counts(const fastgpt_sampler_params *p, int32_t n_vocab, fastgpt_error *error) {
    const struct {
        const char *name;
        int32_t value;
    } counts[] = {
        {"top_k", p->top_k}, {"no_repeat_ngram_size", p->no_repeat_ngram_size}, {"min_new_tokens", p->min_new_tokens}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i].value < 0)
            return fail(error, FASTGPT_ERR_ARGUMENT, "%s is %d, which is negative", counts[i].name, counts[i].value);
    if (p->min_new_tokens > 0 && (p->eos_token < -1 || p->eos_token >= n_vocab))
        return fail(error, FASTGPT_ERR_ARGUMENT, "eos_token is %d, not -1 or in [0, %d)", p->eos_token, n_vocab);
    return FASTGPT_OK;
}

fastgpt_status sampler_read_params(fastgpt_sampler_params *out, const fastgpt_sampler_params *given, int32_t n_vocab,
                                   fastgpt_error *error) {
    *out = defaults;
    if (n_vocab <= 0) return fail(error, FASTGPT_ERR_ARGUMENT, "n_vocab is %d, not at least 1", n_vocab);
    if (given && !options_read(out, sizeof *out, given, SMALLEST_PARAMS))
        return fail(error, FASTGPT_ERR_ARGUMENT, "params->struct_size is %zu, not %zu", given->struct_size,
                    sizeof *given);
    fastgpt_status status = check_numbers(out, error);
    if (!status) status = check_counts(out, n_vocab, error);
    if (out->repetition_penalty == 0) out->repetition_penalty = 1;
    return status;
}
