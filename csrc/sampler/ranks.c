/* ranks.c - candidates by rank and by weight, no more of either than somebody asks for.
 *
 * A quicksort that cuts only the part with the next ranks: the whole row, then what is before the pivot, and so on;
 * what lies behind waits until it is its turn (Paredes & Navarro 2006, "Optimal Incremental Sorting").  The ranks of k
 * candidates of n take about n + k log k steps.  The order is total, so the pivots change nothing but the time. */
#include "sampler/sampler.h"

#include <string.h>

#include "kernels/kernels.h"
#include "common/reproducible_math.h"
#include "sampler/weigh.h"

enum { SMALL_PART = 24 }; /* is sorted by insertion */

/* Both comparisons are made, so that cut has no branch to mispredict. */
static bool before(candidate a, candidate b) {
    return (a.logit > b.logit) | ((a.logit == b.logit) & (a.token < b.token));
}

/* As words: two halves that were just stored cannot be loaded as one, the CPU waits for them. */
static void swap(candidate *a, candidate *b) {
    uint64_t word_of_a, word_of_b;
    memcpy(&word_of_a, a, sizeof *a);
    memcpy(&word_of_b, b, sizeof *b);
    memcpy(a, &word_of_b, sizeof *a);
    memcpy(b, &word_of_a, sizeof *b);
}

static void insertion_sort(candidate *row, int32_t n) {
    for (int32_t i = 1, j; i < n; i++) {
        candidate moving = row[i];
        for (j = i; j > 0 && before(moving, row[j - 1]); j--) row[j] = row[j - 1];
        row[j] = moving;
    }
}

static int32_t random_below(fastgpt_sampler *s, int32_t n) {
    return (int32_t)((uint64_t)next_u32(&s->pivots) * (uint64_t)n >> 32);
}

/* The middle one of three candidates. */
static candidate *median(candidate *a, candidate *b, candidate *c) {
    if (before(*b, *a)) return before(*c, *b) ? b : before(*c, *a) ? c : a;
    return before(*c, *a) ? a : before(*c, *b) ? c : b;
}

/* Moves those before the pivot to the beginning; returns how many they are. */
static int32_t part(candidate *row, int32_t n, candidate pivot) {
    int32_t n_before = 0;
    for (int32_t i = 0; i < n; i++) {
        bool goes_before = before(row[i], pivot);
        swap(&row[i], &row[n_before]);
        n_before += goes_before;
    }
    return n_before;
}

/* Parts n > 2 candidates at the middle one of three, so that there are some on either side. */
static int32_t cut(fastgpt_sampler *s, candidate *row, int32_t n) {
    return part(row, n, *median(&row[0], &row[1 + random_below(s, n - 2)], &row[n - 1]));
}

/* Cuts the part of the next ranks until it is small, and sorts that. */
static void sort_more(fastgpt_sampler *s) {
    candidate *row = s->row + s->n_sorted;
    int32_t n = s->part_ends[s->n_parts - 1] - s->n_sorted;
    while (n > SMALL_PART && s->n_parts < MOST_PARTS) {
        n = cut(s, row, n);
        s->part_ends[s->n_parts++] = s->n_sorted + n;
    }
    insertion_sort(row, n);
    s->n_sorted = s->part_ends[--s->n_parts];
}

static bool is_ranked(const fastgpt_sampler *s) { return s->n_sorted > 0; }

/* Two parts: first what is more than a 1/3000 as likely as the likeliest, since filters seldom look further.  What is
 * known of weights was by token. */
static void begin(fastgpt_sampler *s) {
    candidate unlikely = {s->largest - 8 * s->params.temperature, 0};
    s->part_ends[0] = s->n_row;
    s->part_ends[1] = part(s->row, s->n_row, unlikely);
    s->n_parts = 2;
    s->n_weighed = 0;
}

candidate ranked(fastgpt_sampler *s, int32_t i) {
    if (!is_ranked(s)) begin(s);
    while (i >= s->n_sorted) sort_more(s);
    return s->row[i];
}

candidate kept_candidate(fastgpt_sampler *s, int32_t i) {
    return is_ranked(s) ? ranked(s, s->first_kept + i) : s->row[i];
}

/* ---- Weights ---- */

double log_weight(const fastgpt_sampler *s, candidate c) {
    return ((double)c.logit - (double)s->largest) / (double)s->params.temperature;
}

#if defined(__x86_64__)
/* All sets of kernels have it but the portable one; none is chosen where FASTGPT_ISA names what this CPU has not. */
static bool takes_avx2(void) { return kernels_chosen() && kernels_chosen() != &kernels_portable; }
#else
#define weigh_row_avx2 weigh_row
static bool takes_avx2(void) { return false; }
#endif

/* Weighs the first n of the row. */
static void weigh(fastgpt_sampler *s, int32_t n) {
    double *weights = s->weights + s->n_weighed;
    const candidate *row = s->row + s->n_weighed;
    const double largest = (double)s->largest, temperature = (double)s->params.temperature;
    n -= s->n_weighed;
    if (takes_avx2()) weigh_row_avx2(weights, row, n, largest, temperature);
    else weigh_row(weights, row, n, largest, temperature);
    s->n_weighed += n;
}

double ranked_weight(fastgpt_sampler *s, int32_t i) {
    ranked(s, i);
    if (i >= s->n_weighed) weigh(s, s->n_sorted);
    return s->weights[i];
}

double kept_weight(fastgpt_sampler *s, int32_t i) {
    if (is_ranked(s)) return ranked_weight(s, s->first_kept + i);
    if (i >= s->n_weighed) weigh(s, s->n_row);
    return s->weights[i];
}

double sum_of_kept(fastgpt_sampler *s) {
    double sum = 0;
    for (int32_t i = 0; i < s->n_kept; i++) sum += kept_weight(s, i);
    return sum;
}
