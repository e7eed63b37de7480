/* attention_rows.h - attention row by row: the steps of one head and token apart, for what looks at them or changes
 * them.  They run in the calling thread. */
#ifndef FASTGPT_ATTENTION_ROWS_H
#define FASTGPT_ATTENTION_ROWS_H

#include "attention/attention.h"

/* One head of a token of a span, which sees n_past + token + 1 keys. */
typedef struct attention_row {
    const engine *e;
    const attention_span *span;
    int n_head, n_embd;
    int head, token;
    void *scratch; /* of the thread: engine_scratch */
} attention_row;

static inline int attention_n_visible(const attention_row *row) { return row->span->n_past + row->token + 1; }

/* What scores are multiplied by before softmax. */
float attention_scale(const attention_row *row);

/* scores [n_visible] = q . k of each key, not scaled yet */
void attention_scores(const attention_row *row, float *scores);

/* softmax of scores [n_visible] times the scale, in place.  Keys of score -infinity get weight 0, and so do all keys of
 * a row that has no other score. */
void attention_softmax(const attention_row *row, float *scores);

/* The head's part of the span's output = the sum of values times weights [n_visible]. */
void attention_weighted_values(const attention_row *row, const float *weights);

#endif
