/* attention_rows.c - see attention_rows.h.  The kernels are those of streamed attention. */
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

/* Some of the rows from key `first` on, those that are contiguous, and the head. */
static head_rows rows_from(const attention_row *row, kv_part part, int first) {
    const attention_job job = job_of(row);
    return (head_rows){.at = row_at(&job, row->span, part, first),
                       .ld = row_bytes(row->span->type, row->n_embd),
                       .n_rows = n_contiguous(row->span, first, attention_n_visible(row) - first),
                       .n_row = row->n_embd,
                       .first_head = row->head,
                       .n_heads = 1,
                       .head_width = head_width(&job)};
}

void attention_scores(const attention_row *row, float *scores) {
    const dtype type = row->span->type;
    const int n_keys = attention_n_visible(row);
    const float *x = row->span->q + (int64_t)row->token * row->n_embd;
    if (takes_quantized(type)) row->e->kernels->quantize_row(row->scratch, x, row->n_embd);
    memset(scores, 0, (size_t)n_keys * sizeof *scores);
    for (int key = 0; key < n_keys;) {
        const head_rows keys = rows_from(row, KV_KEYS, key);
        row->e->kernels->score_heads[type]((out_view){scores + key, n_keys},
                                           takes_quantized(type) ? row->scratch : (const void *)x, &keys);
        key += keys.n_rows;
    }
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
    const int n_keys = attention_n_visible(row);
    float highest = -INFINITY;
    int n_hidden = 0;
    for (int i = 0; i < n_keys; i++) {
        n_hidden += scores[i] == -INFINITY;
        highest = scores[i] > highest ? scores[i] : highest;
    }
    if (n_hidden == 0) row->e->kernels->softmax(scores, n_keys, attention_scale(row));
    else if (n_hidden < n_keys) softmax_of_some(row, scores, n_keys, highest);
    else memset(scores, 0, (size_t)n_keys * sizeof *scores);
}

void attention_weighted_values(const attention_row *row, const float *weights) {
    const attention_job job = job_of(row);
    float *out = row->span->out + (int64_t)row->token * row->n_embd + row->head * head_width(&job);
    memset(out, 0, (size_t)head_width(&job) * sizeof *out);
    for (int key = 0; key < attention_n_visible(row);) {
        const head_rows values = rows_from(row, KV_VALUES, key);
        row->e->kernels->sum_heads[row->span->type](out, (f32_view){weights + key, 0}, &values);
        key += values.n_rows;
    }
}
