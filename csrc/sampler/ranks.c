/* ranks.c - candidates by rank and by weight, computed as far as they are asked for.
 *
 * An incremental quicksort: only the part with the next ranks is partitioned, and what lies behind it waits (Paredes &
 * Navarro 2006, "Optimal Incremental Sorting").  The ranks of k candidates of n take about n + k log k steps.  The
 * order is total, so the pivots change nothing but the time. */
#include "sampler/sampler.h"

#include <string.h>

#include "kernels/kernels.h"
#include "common/reproducible_math.h"
#include "sampler/weigh.h"

enum { SMALL_PART = 24 }; /* is sorted by insertion */

/* Both comparisons are made, so that partition has no branch to mispredict. */
static bool before(candidate a, candidate b) {
    return (a.logit > b.logit) | ((a.logit == b.logit) & (a.token < b.token));
}

/* As words: two halves that were just stored cannot be loaded as one, the CPU waits for them. */
static void swap_candidates(candidate *a, candidate *b) {
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

/* The median of three candidates. */
static candidate *median(candidate *a, candidate *b, candidate *c) {
    if (before(*b, *a)) return before(*c, *b) ? b : before(*c, *a) ? c : a;
    return before(*c, *a) ? a : before(*c, *b) ? c : b;
}

/* Moves those before the pivot to the beginning; returns how many they are. */
static int32_t partition(candidate *row, int32_t n, candidate pivot) {
    int32_t n_before = 0;
    for (int32_t i = 0; i < n; i++) {
        bool goes_before = before(row[i], pivot);
        swap_candidates(&row[i], &row[n_before]);
        n_before += goes_before;
    }
    return n_before;
}

/* Partitions n > 2 candidates at the median of three, so that there are some on either side. */
static int32_t partition_at_median(fastgpt_sampler *s, candidate *row, int32_t n) {
    return partition(row, n, *median(&row[0], &row[1 + random_below(s, n - 2)], &row[n - 1]));
}

/* Cuts the part of the next ranks until it is small, and sorts that. */
static void sort_next_part(fastgpt_sampler *s) {
    candidate *row = s->row + s->n_sorted;
    int32_t n = s->part_ends[s->n_parts - 1] - s->n_sorted;
    while (n > SMALL_PART && s->n_parts < MAX_PARTS) {
        n = partition_at_median(s, row, n);
        s->part_ends[s->n_parts++] = s->n_sorted + n;
    }
    insertion_sort(row, n);
    s->n_sorted = s->part_ends[--s->n_parts];
}

static bool has_ranks(const fastgpt_sampler *s) { return s->n_sorted > 0; }

/* Two parts: first what is more than a 1/3000 as likely as the likeliest, since filters seldom look further.  What is
 * known of weights was by token. */
static void begin_ranking(fastgpt_sampler *s) {
    candidate unlikely = {s->largest - 8 * s->params.temperature, 0};
    s->part_ends[0] = s->n_row;
    s->part_ends[1] = partition(s->row, s->n_row, unlikely);
    s->n_parts = 2;
    s->n_weighed = 0;
}

candidate candidate_at_rank(fastgpt_sampler *s, int32_t i) {
    if (!has_ranks(s)) begin_ranking(s);
    while (i >= s->n_sorted) sort_next_part(s);
    return s->row[i];
}

candidate kept_candidate(fastgpt_sampler *s, int32_t i) {
    return has_ranks(s) ? candidate_at_rank(s, s->first_kept + i) : s->row[i];
}

/* ---- Weights ---- */

double log_weight(const fastgpt_sampler *s, candidate c) {
    return ((double)c.logit - (double)s->largest) / (double)s->params.temperature;
}

#if defined(__x86_64__)
/* All sets of kernels have it but the portable one; none is selected where FASTGPT_ISA names what this CPU lacks. */
bool sampler_uses_avx2(void) { return kernels_chosen() && kernels_chosen() != &kernels_portable; }
#else
#define weigh_row_avx2 weigh_row
bool sampler_uses_avx2(void) { return false; }
#endif

/* Weighs the first n of the row. */
static void weigh_first(fastgpt_sampler *s, int32_t n) {
    double *weights = s->weights + s->n_weighed;
    const candidate *row = s->row + s->n_weighed;
    const double largest = (double)s->largest, temperature = (double)s->params.temperature;
    n -= s->n_weighed;
    if (sampler_uses_avx2()) weigh_row_avx2(weights, row, n, largest, temperature);
    else weigh_row(weights, row, n, largest, temperature);
    s->n_weighed += n;
}

double weight_at_rank(fastgpt_sampler *s, int32_t i) {
    candidate_at_rank(s, i);
    if (i >= s->n_weighed) weigh_first(s, s->n_sorted);
    return s->weights[i];
}

double kept_weight(fastgpt_sampler *s, int32_t i) {
    if (has_ranks(s)) return weight_at_rank(s, s->first_kept + i);
    if (i >= s->n_weighed) weigh_first(s, s->n_row);
    return s->weights[i];
}

double sum_of_kept(fastgpt_sampler *s) {
    double sum = 0;
    for (int32_t i = 0; i < s->n_kept; i++) sum += kept_weight(s, i);
    return sum;
}
