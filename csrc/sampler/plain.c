/* plain.c - draws from logits that nothing changes: no bias, penalty or ban.  One pass finds the largest; a second
 * keeps the likely candidates and weighs the others together, roughly.  Where that does not tell for certain which
 * candidates the filters keep, the caller begins again with all of them, so tokens and probabilities are the same to
 * the bit. */
#include <float.h>

#include "kernels/kernels.h"
#include "sampler/sampler.h"
#include "sampler/scan.h"

static const float LIKELY_RANGE = 8; /* logits below the largest, after temperature; ranks.c cuts there, too */

/* A candidate out of that range weighs less than this. */
static const double MAX_UNLIKELY_WEIGHT = 3.36e-4;

/* Relative error of the rest of split_logits: sums of 64 F32 values, and exponents of up to 87 with four roundings. */
static const double REST_ERROR = 4e-5;

static bool is_unpenalized(const fastgpt_sampler_params *p) {
    return p->repetition_penalty == 1 && p->frequency_penalty == 0 && p->presence_penalty == 0;
}

static bool has_bans(const fastgpt_sampler *s) {
    return s->any_disallowed || s->params.no_repeat_ngram_size > 0 ||
           (s->n_new < s->params.min_new_tokens && s->n_eos_tokens > 0);
}

static bool is_open(float p) { return p > 0 && p < 1; }

/* Whether the filters are some that this file knows. */
static bool is_filtered_plainly(const fastgpt_sampler_params *p) {
    if (p->temperature == 0) return true;
    if (p->top_n_sigma != 0 || is_open(p->typical_p) || p->mirostat_tau != 0) return false;
    return p->top_k > 0 || is_open(p->top_p) || p->min_p > MAX_UNLIKELY_WEIGHT;
}

#if defined(__x86_64__)
static scan_result scan(const float *x, int32_t n) {
    return sampler_uses_avx2() ? scan_logits_avx2(x, n) : scan_logits(x, n);
}

static int32_t split(fastgpt_sampler *s, const float *x, double *rest) {
    const float t = s->params.temperature, least = s->largest - LIKELY_RANGE * t;
    return sampler_uses_avx2() ? split_logits_avx2(s->row, rest, x, s->n_vocab, s->largest, least, t)
                               : split_logits(s->row, rest, x, s->n_vocab, s->largest, least, t);
}
#else
static scan_result scan(const float *x, int32_t n) { return scan_logits(x, n); }

static int32_t split(fastgpt_sampler *s, const float *x, double *rest) {
    const float t = s->params.temperature, least = s->largest - LIKELY_RANGE * t;
    return split_logits(s->row, rest, x, s->n_vocab, s->largest, least, t);
}
#endif

/* As keep_top_p of all candidates, of which the others weigh about `rest`; false when that is not exact enough. */
static bool keep_top_p_of_likely(fastgpt_sampler *s, double rest) {
    const double sum_of_all = sum_of_kept(s) + rest, error = rest * REST_ERROR + sum_of_all * 1e-12 + FLT_MIN;
    const double low = wanted_weight(s->params.top_p, sum_of_all - error);
    const double high = wanted_weight(s->params.top_p, sum_of_all + error);
    double sum = weight_at_rank(s, 0);
    int32_t n = 1;
    for (; sum < low && n < s->n_row; n++) sum += weight_at_rank(s, n);
    s->n_kept = n;
    return sum >= high; /* false between low and high, and for NaN */
}

/* False where all candidates are needed. */
static bool filter_likely(fastgpt_sampler *s, double rest) {
    if (s->n_row == 0 || s->params.top_k >= s->n_row) return false;
    if (s->params.top_k > 0) {
        keep_top_k(s);
        keep_top_p(s);
    } else if (is_open(s->params.top_p)) {
        if (!keep_top_p_of_likely(s, rest)) return false;
    } else if (s->params.min_p <= MAX_UNLIKELY_WEIGHT) return false;
    keep_min_p(s);
    return true;
}

bool sampler_filter_plain(fastgpt_sampler *s, const float *logits, fastgpt_status *status) {
    if (s->n_biased > 0 || has_bans(s) || !is_unpenalized(&s->params) || !is_filtered_plainly(&s->params)) return false;
    const scan_result found = scan(logits, s->n_vocab);
    *status = found.possible && found.largest > -INFINITY ? FASTGPT_OK : FASTGPT_ERR_LOGITS;
    if (*status) return true;
    double rest = 0;
    s->largest = found.largest;
    s->row[0] = (candidate){found.largest, found.first};
    s->n_row = s->params.temperature == 0 ? 1 : split(s, logits, &rest);
    s->n_kept = s->n_row;
    s->first_kept = s->n_sorted = s->n_weighed = 0;
    return s->params.temperature == 0 || filter_likely(s, rest);
}
