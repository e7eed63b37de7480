/* sampler.c - logits -> token.
 *
 * Sorted by falling logit, what each filter keeps is the beginning of the row: top_k by count, top_p by summed
 * probability, min_p by probability.  So the filters only shorten n_kept, and the candidates are sorted no
 * further than somebody looks: they are a heap, from which the next largest is popped on demand.
 *
 * All arithmetic is double precision in a fixed order and needs nothing of libm, so that the same logits and
 * seed give the same token on every machine (the build forbids fused multiply-adds here). */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "fastgpt.h"
#include "options.h"

typedef struct candidate {
    float logit;
    int32_t token;
} candidate;

struct fastgpt_sampler {
    fastgpt_sampler_params params;
    int32_t n_vocab;
    uint64_t state;      /* of PCG32 */
    float *bias;         /* [n_vocab] */
    bool *seen;          /* [n_vocab] tokens of the history */
    candidate *row;      /* [n_vocab] of one call: a heap, then from the end backwards what was popped */
    int32_t n_row;       /* candidates of this call; -infinity is none */
    int32_t n_popped;
    int32_t n_kept;
    float largest;
};

/* ---- Numbers that are the same everywhere ---- */

/* PCG32: XSH-RR 64/32 (O'Neill 2014, https://www.pcg-random.org), stream 54. */
static const uint64_t PCG_STREAM = 54u << 1 | 1;

static uint32_t next_u32(uint64_t *state) {
    uint64_t old = *state;
    *state = old * UINT64_C(6364136223846793005) + PCG_STREAM;
    uint32_t shifted = (uint32_t)(((old >> 18) ^ old) >> 27);
    uint32_t turn = (uint32_t)(old >> 59);
    return shifted >> turn | shifted << (-turn & 31);
}

static uint64_t seeded(uint64_t seed) {
    uint64_t state = PCG_STREAM + seed;
    next_u32(&state);
    return state;
}

/* In [0, 1): 53 bits of two draws, the high ones first. */
static double next_uniform(uint64_t *state) {
    uint64_t high = next_u32(state) >> 5, low = next_u32(state) >> 6;
    return (double)(high << 26 | low) * 0x1p-53;
}

/* exp(x) for x <= 0, to 1e-15 of itself; 0 below -700.  x = n ln 2 + r, |r| <= ln 2 / 2, and Taylor. */
static double exp_same_everywhere(double x) {
    static const double inverse_factorial[] = {
        1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
        1.0 / 720,        1.0 / 120,       1.0 / 24,       1.0 / 6,       1.0 / 2,      1,           1};
    if (!(x >= -700)) return 0;
    double n = (double)(int)(x * 1.4426950408889634 - 0.5);
    double r = x - n * 0.693147180369123816490 - n * 1.90821492927058770002e-10;
    double sum = 0;
    for (size_t i = 0; i < sizeof inverse_factorial / sizeof *inverse_factorial; i++)
        sum = sum * r + inverse_factorial[i];
    uint64_t bits = (uint64_t)(1023 + (int)n) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return sum * power;
}

/* ---- Candidates ---- */

static bool before(candidate a, candidate b) { return a.logit > b.logit || (a.logit == b.logit && a.token < b.token); }

/* Restores the heap of n candidates below i. */
static void sift_down(candidate *heap, int32_t n, int32_t i) {
    candidate moving = heap[i];
    for (int32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(heap[child + 1], heap[child])) child++;
        if (!before(heap[child], moving)) break;
        heap[i] = heap[child];
    }
    heap[i] = moving;
}

/* The candidate of rank i, 0 for the largest. */
static candidate ranked(fastgpt_sampler *s, int32_t i) {
    if (s->n_popped == 0)
        for (int32_t j = s->n_row / 2 - 1; j >= 0; j--) sift_down(s->row, s->n_row, j);
    for (; s->n_popped <= i; s->n_popped++) {
        int32_t last = s->n_row - s->n_popped - 1;
        candidate top = s->row[0];
        s->row[0] = s->row[last];
        sift_down(s->row, last, 0);
        s->row[last] = top;
    }
    return s->row[s->n_row - 1 - i];
}

/* Likelihood relative to that of the likeliest candidate. */
static double weight_of(const fastgpt_sampler *s, candidate c) {
    return exp_same_everywhere(((double)c.logit - (double)s->largest) / (double)s->params.temperature);
}

/* The i-th kept candidate: by rank where anybody asked for an order, else by token. */
static candidate kept(fastgpt_sampler *s, int32_t i) { return s->n_popped ? ranked(s, i) : s->row[i]; }

static double sum_of_kept(fastgpt_sampler *s) {
    double sum = 0;
    for (int32_t i = 0; i < s->n_kept; i++) sum += weight_of(s, kept(s, i));
    return sum;
}

/* ---- Bias, penalty, filters ---- */

static float adjusted(const fastgpt_sampler *s, float logit, int32_t token) {
    logit += s->bias[token];
    if (!s->seen[token]) return logit;
    return logit < 0 ? logit * s->params.repetition_penalty : logit / s->params.repetition_penalty;
}

static fastgpt_status fill_row(fastgpt_sampler *s, const float *logits) {
    s->n_row = s->n_popped = 0;
    s->largest = -INFINITY;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        float logit = adjusted(s, logits[i], i);
        if (!(logits[i] < INFINITY) || !(logit < INFINITY)) return FASTGPT_ERR_LOGITS; /* NaN compares false too */
        if (logit > -INFINITY) s->row[s->n_row++] = (candidate){logit, i};
        if (logit > s->largest) s->largest = logit;
    }
    s->n_kept = s->n_row;
    return s->n_row > 0 ? FASTGPT_OK : FASTGPT_ERR_LOGITS;
}

static void keep_likeliest(fastgpt_sampler *s) {
    candidate best = s->row[0];
    for (int32_t i = 1; i < s->n_row; i++)
        if (before(s->row[i], best)) best = s->row[i];
    s->row[0] = best;
    s->n_kept = 1;
}

static void keep_top_k(fastgpt_sampler *s) {
    int32_t n = s->params.top_k;
    if (n == 0 || n >= s->n_kept) return;
    float last = ranked(s, n - 1).logit;
    while (n < s->n_kept && ranked(s, n).logit == last) n++;
    s->n_kept = n;
}

static void keep_top_p(fastgpt_sampler *s) {
    if (s->params.top_p == 0 || s->params.top_p == 1) return;
    double wanted = (double)s->params.top_p * sum_of_kept(s), sum = 0;
    int32_t n = 0;
    while (n < s->n_kept && (n == 0 || sum < wanted)) sum += weight_of(s, ranked(s, n++));
    s->n_kept = n;
}

static void keep_min_p(fastgpt_sampler *s) {
    if (s->params.min_p == 0) return;
    int32_t n = 1;
    while (n < s->n_kept && weight_of(s, ranked(s, n)) >= (double)s->params.min_p) n++;
    s->n_kept = n;
}

/* After OK, kept(0 .. n_kept) are the candidates to draw from. */
static fastgpt_status filter(fastgpt_sampler *s, const float *logits) {
    fastgpt_status status = fill_row(s, logits);
    if (status) return status;
    if (s->params.temperature == 0) {
        keep_likeliest(s);
        return FASTGPT_OK;
    }
    keep_top_k(s);
    keep_top_p(s);
    keep_min_p(s);
    return FASTGPT_OK;
}

/* ---- Drawing ---- */

fastgpt_status fastgpt_sampler_sample(fastgpt_sampler *s, const float *logits, int32_t *token) {
    if (!s || !logits || !token) return FASTGPT_ERR_ARGUMENT;
    fastgpt_status status = filter(s, logits);
    if (status) return status;
    int32_t last = s->n_kept - 1, i = 0;
    if (s->params.temperature > 0) {
        double point = next_uniform(&s->state) * sum_of_kept(s), sum = 0;
        for (; i < last; i++) {
            sum += weight_of(s, kept(s, i));
            if (point < sum) break;
        }
    }
    *token = kept(s, i).token;
    return FASTGPT_OK;
}

fastgpt_status fastgpt_sampler_probabilities(fastgpt_sampler *s, const float *logits, float *probabilities) {
    if (!s || !logits || !probabilities) return FASTGPT_ERR_ARGUMENT;
    fastgpt_status status = filter(s, logits);
    if (status) return status;
    bool greedy = s->params.temperature == 0;
    double sum = greedy ? 1 : sum_of_kept(s);
    memset(probabilities, 0, (size_t)s->n_vocab * sizeof *probabilities);
    for (int32_t i = 0; i < s->n_kept; i++) {
        candidate c = kept(s, i);
        probabilities[c.token] = (float)(greedy ? 1 : weight_of(s, c) / sum);
    }
    return FASTGPT_OK;
}

/* ---- Life, bias and history ---- */

static bool in_range(float value, float low, float high) { return value >= low && value <= high; } /* NaN is not */

static bool valid(const fastgpt_sampler_params *p) {
    return in_range(p->temperature, 0, 1e6f) && p->top_k >= 0 && in_range(p->top_p, 0, 1) && in_range(p->min_p, 0, 1) &&
           in_range(p->repetition_penalty, 0, 1e6f);
}

fastgpt_status fastgpt_sampler_create(int32_t n_vocab, const fastgpt_sampler_params *params, fastgpt_sampler **out) {
    if (!out) return FASTGPT_ERR_ARGUMENT;
    *out = NULL;
    fastgpt_sampler_params p;
    if (n_vocab <= 0 || !params || !options_read(&p, sizeof p, params, FIRST_SIZE(fastgpt_sampler_params, seed)) ||
        !valid(&p))
        return FASTGPT_ERR_ARGUMENT;
    fastgpt_sampler *s = calloc(1, sizeof *s);
    if (!s) return FASTGPT_ERR_MEMORY;
    s->params = p;
    if (s->params.repetition_penalty == 0) s->params.repetition_penalty = 1;
    s->n_vocab = n_vocab;
    s->state = seeded(p.seed);
    s->bias = calloc((size_t)n_vocab, sizeof *s->bias);
    s->seen = calloc((size_t)n_vocab, sizeof *s->seen);
    s->row = calloc((size_t)n_vocab, sizeof *s->row);
    if (!s->bias || !s->seen || !s->row) {
        fastgpt_sampler_free(s);
        return FASTGPT_ERR_MEMORY;
    }
    *out = s;
    return FASTGPT_OK;
}

void fastgpt_sampler_free(fastgpt_sampler *s) {
    if (!s) return;
    free(s->bias);
    free(s->seen);
    free(s->row);
    free(s);
}

int32_t fastgpt_sampler_n_vocab(const fastgpt_sampler *s) { return s->n_vocab; }

size_t fastgpt_sampler_sizeof(const fastgpt_sampler *s) {
    return sizeof *s + (size_t)s->n_vocab * (sizeof *s->bias + sizeof *s->seen + sizeof *s->row);
}

fastgpt_status fastgpt_sampler_set_bias(fastgpt_sampler *s, int32_t token, float bias) {
    if (!s || !(bias < INFINITY)) return FASTGPT_ERR_ARGUMENT;
    if (token < 0 || token >= s->n_vocab) return FASTGPT_ERR_TOKEN_RANGE;
    s->bias[token] = bias;
    return FASTGPT_OK;
}

fastgpt_status fastgpt_sampler_accept(fastgpt_sampler *s, const int32_t *tokens, int32_t n_tokens) {
    if (!s || n_tokens < 0 || (!tokens && n_tokens > 0)) return FASTGPT_ERR_ARGUMENT;
    for (int32_t i = 0; i < n_tokens; i++)
        if (tokens[i] < 0 || tokens[i] >= s->n_vocab) return FASTGPT_ERR_TOKEN_RANGE;
    for (int32_t i = 0; i < n_tokens; i++) s->seen[tokens[i]] = true;
    return FASTGPT_OK;
}

fastgpt_status fastgpt_sampler_reset(fastgpt_sampler *s) {
    if (!s) return FASTGPT_ERR_ARGUMENT;
    memset(s->seen, 0, (size_t)s->n_vocab * sizeof *s->seen);
    s->state = seeded(s->params.seed);
    return FASTGPT_OK;
}
