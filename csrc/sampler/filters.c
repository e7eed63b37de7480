/* filters.c - which candidates are drawn from.
 *
 * Sorted by falling logit, what the filters keep is one interval of ranks: top_n_sigma, top_k, top_p, min_p and
 * mirostat its beginning, typical_p a part around the entropy.  So they only move first_kept and n_kept. */
#include <float.h>
#include <math.h>

#include "common/reproducible_math.h"
#include "sampler/sampler.h"

static const double LN2 = 0.69314718055994531;

/* A few units in the last place of F32 less than p: logits are rounded to F32, and so is p, so probabilities that sum
 * to p exactly, such as .5 + .3 for .8, may fall short of it by that much and are still enough. */
double wanted_weight(float p, double sum) {
    double share = (double)p - 4 * (double)FLT_EPSILON;
    return (share > 0 ? share : DBL_MIN) * sum; /* never nothing */
}

/* ---- The beginning of the row ---- */

static void keep_likeliest(fastgpt_sampler *s) {
    int32_t i = 0; /* the first of equals */
    while (s->row[i].logit != s->largest) i++;
    s->row[0] = s->row[i];
    s->n_kept = 1;
}

/* The first of the filters: no rank is known yet, so the row may be shortened in place. */
static void keep_top_n_sigma(fastgpt_sampler *s) {
    if (s->params.top_n_sigma == 0) return;
    double mean = 0, squares = 0;
    for (int32_t i = 0; i < s->n_row; i++) mean += ((double)s->row[i].logit - mean) / (i + 1);
    for (int32_t i = 0; i < s->n_row; i++) {
        double off = (double)s->row[i].logit - mean;
        squares += off * off;
    }
    double sigma = sqrt(squares / s->n_row), least = (double)s->largest - (double)s->params.top_n_sigma * sigma;
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_row; i++)
        if ((double)s->row[i].logit >= least) s->row[n++] = s->row[i];
    s->n_row = s->n_kept = n;
}

void keep_top_k(fastgpt_sampler *s) {
    int32_t n = s->params.top_k;
    if (n == 0 || n >= s->n_kept) return;
    float last = candidate_at_rank(s, n - 1).logit;
    while (n < s->n_kept && candidate_at_rank(s, n).logit == last) n++;
    s->n_kept = n;
}

void keep_top_p(fastgpt_sampler *s) {
    if (s->params.top_p == 0 || s->params.top_p == 1) return;
    double wanted = wanted_weight(s->params.top_p, sum_of_kept(s)), sum = 0;
    int32_t n = 0;
    while (n < s->n_kept && (n == 0 || sum < wanted)) sum += weight_at_rank(s, n++);
    s->n_kept = n;
}

/* Shortens what is kept to candidates of at least this weight, and to no less than one. */
static void keep_weights_from(fastgpt_sampler *s, double least) {
    int32_t n = 1;
    while (n < s->n_kept && weight_at_rank(s, s->first_kept + n) >= least) n++;
    s->n_kept = n;
}

void keep_min_p(fastgpt_sampler *s) {
    if (s->params.min_p > 0) keep_weights_from(s, (double)s->params.min_p);
}

/* ---- The part around the entropy ---- */

/* The logarithm of the weight that is exactly as surprising as the distribution is on average: if z is the sum of
 * weights and x their logarithms, -ln p = ln z - x, whose mean, the entropy, is ln z - (mean of x). */
static double typical_log_weight(fastgpt_sampler *s, double sum) {
    double mean = 0;
    for (int32_t i = 0; i < s->n_kept; i++) {
        double weight = kept_weight(s, i);
        mean += weight * log_weight(s, kept_candidate(s, i));
    }
    return mean / sum;
}

/* How far the candidate of rank i is from typical; infinite for ranks that are not kept. */
static double distance_from_typical(fastgpt_sampler *s, int32_t i, double typical) {
    return i >= 0 && i < s->n_kept ? fabs(log_weight(s, candidate_at_rank(s, i)) - typical) : INFINITY;
}

/* Grows an interval of ranks by its nearer neighbour until it has the wanted weight, and what is as near as the last.
 */
static void keep_typical(fastgpt_sampler *s) {
    if (s->params.typical_p == 0 || s->params.typical_p == 1) return;
    double sum = sum_of_kept(s), typical = typical_log_weight(s, sum);
    double wanted = wanted_weight(s->params.typical_p, sum), got = 0, reached = 0;
    int32_t end = 0;
    while (end < s->n_kept && log_weight(s, candidate_at_rank(s, end)) > typical) end++;
    int32_t first = end;
    while (first > 0 || end < s->n_kept) {
        double left = distance_from_typical(s, first - 1, typical), right = distance_from_typical(s, end, typical);
        double nearer = left <= right ? left : right;
        if (got >= wanted && nearer > reached) break;
        reached = nearer;
        got += weight_at_rank(s, left <= right ? --first : end++);
    }
    s->first_kept = first;
    s->n_kept = end - first;
}

/* ---- Mirostat 2.0 ---- */

/* Drops what is more surprising than mirostat_surprise bits: -log2(weight / sum) > surprise. */
static void keep_unsurprising(fastgpt_sampler *s) {
    if (s->params.mirostat_tau == 0) return;
    double surprise = s->mirostat_surprise > 0 ? s->mirostat_surprise : 0;
    four_doubles least = {-surprise * LN2};
    exp_reproducible(&least);
    keep_weights_from(s, sum_of_kept(s) * least[0]);
}

void mirostat_learn(fastgpt_sampler *s, candidate drawn, double sum) {
    if (s->params.mirostat_tau == 0) return;
    double surprise = (log_reproducible(sum) - log_weight(s, drawn)) / LN2;
    s->mirostat_surprise -= (double)s->params.mirostat_eta * (surprise - (double)s->params.mirostat_tau);
}

/* ---- All of them ---- */

fastgpt_status sampler_filter(fastgpt_sampler *s, const float *logits) {
    fastgpt_status status = sampler_fill_row(s, logits);
    if (status) return status;
    if (s->params.temperature == 0) {
        keep_likeliest(s);
        return FASTGPT_OK;
    }
    keep_top_n_sigma(s);
    keep_top_k(s);
    keep_top_p(s);
    keep_min_p(s);
    keep_typical(s);
    keep_unsurprising(s);
    return FASTGPT_OK;
}
