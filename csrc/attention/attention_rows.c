/* attention_rows.c - see attention_rows.h.  The kernels and the order of sums are those of streamed attention. */
#include "attention/attention_rows.h"

#include <string.h>

#include "attention/attention_job.h"

static attention_job job_of(const attention_row *row) {
    return (attention_job){.e = row->e, .n_head = row->n_head, .n_embd = row->n_embd};
}

float attention_scale(const attention_row *row) {
    const attention_job job = job_of(row);
    return softmax_scale(&job);
}

void attention_scores(const attention_row *row, float *scores) {
    const attention_job job = job_of(row);
    const int n_keys = attention_n_visible(row);
    const query_tile tile = {.span = row->span,
                             .head = row->head,
                             .n_queries = 1,
                             .q = row->span->q + (int64_t)row->token * row->n_embd + row->head * head_width(&job),
                             .scores = scores,
                             .ld_scores = n_keys};
    memset(scores, 0, (size_t)n_keys * sizeof *scores);
    add_scores(&job, &tile, 0, n_keys);
}

/* softmax where some keys are hidden by a score of -infinity, which the kernels do not take. */
static void softmax_of_some(const attention_row *row, float *scores, int n_keys, float highest) {
    const float scale = attention_scale(row);
    float sum = 0;
    for (int i = 0; i < n_keys; i++) {
        scores[i] = scores[i] == -INFINITY ? 0 : expf((scores[i] - highest) * scale);
        sum += scores[i];
    }
    for (int i = 0; i < n_keys; i++) scores[i] /= sum;
}

void attention_softmax(const attention_row *row, float *scores) {
    const attention_job job = job_of(row);
    const int n_keys = attention_n_visible(row);
    float highest = -INFINITY;
    int n_hidden = 0;
    for (int i = 0; i < n_keys; i++) {
        n_hidden += scores[i] == -INFINITY;
        highest = scores[i] > highest ? scores[i] : highest;
    }
    if (n_hidden == 0) softmax_of_scores(&job, scores, n_keys);
    else if (n_hidden < n_keys) softmax_of_some(row, scores, n_keys, highest);
    else memset(scores, 0, (size_t)n_keys * sizeof *scores);
}

void attention_weighted_values(const attention_row *row, const float *weights) {
    const attention_job job = job_of(row);
    float *out = row->span->out + (int64_t)row->token * row->n_embd + row->head * head_width(&job);
    memset(out, 0, (size_t)head_width(&job) * sizeof *out);
    add_values(&job, row->span, row->head, out, weights, 0, attention_n_visible(row));
}
