/* site_done.h - called where the values of a site are complete, before anything reads them. */
#ifndef FASTGPT_SITE_DONE_H
#define FASTGPT_SITE_DONE_H

#include "kv_cache/kv_cache.h"
#include "transformer/context.h"

/* What site_done does where something of the step is wanted: makes edits, calls hooks, copies to taps, in this order.
 * Not for scores and pattern. */
void site_visit(fastgpt_context *ctx, fastgpt_site site, int32_t layer, float *values, int64_t ld);

/* values of a site of a layer, a row for each token of ctx->sites.slice, rows ld apart. */
static inline void site_done(fastgpt_context *ctx, fastgpt_site site, int32_t layer, float *values, int64_t ld) {
    if (ctx->sites.any) site_visit(ctx, site, layer, values, ld);
}

/* The parts of site_visit.  Row r of the slice is row r of values, or with row_index its row_index[r]-th row: there are
 * rows for what edits or hooks of the site change. */
void site_edit_rows(const fastgpt_context *ctx, fastgpt_site site, int32_t layer, float *values, int64_t ld,
                    const int32_t *row_index);
void site_call_hook(fastgpt_context *ctx, const fastgpt_hook *hook, float *values, int64_t ld);

/* The hook of a site of a layer, NULL = none. */
const fastgpt_hook *site_hook(const sites *s, fastgpt_site site, int32_t layer);

/* Rows [first, first + n) of the slice that an edit changes, the first of them at a position; n = 0: none. */
typedef struct edit_rows {
    int32_t first, n, position;
} edit_rows;

edit_rows site_rows_of_edit(const fastgpt_context *ctx, const fastgpt_edit *e);

/* The row of an edit's value for a position. */
static inline const float *edit_value(const fastgpt_edit *e, int32_t position) {
    return e->n_rows == 1 || !e->value ? e->value : e->value + (int64_t)(position - e->first) * e->n_values;
}

/* x [n] = what the edit makes of it; value is a row of the edit's. */
void edit_apply(const fastgpt_edit *e, const float *value, float *x, int32_t n);

/* Position of the first token of span i of the slice, in its sequence. */
static inline int32_t slice_position(const slice *s, int32_t i) { return s->spans[i].kv->n_past; }

/* Does task, x += in w^T + b, where the sum is the site attn_out or ff_out, and wanted in the step.  What is added is a
 * value of its own only where that is asked for; rows that are not changed keep their bits.
 *   in  a row for each token of the slice, rows ld_in apart */
void site_add_residual(fastgpt_context *ctx, fastgpt_site site, int32_t layer, const linear_task *task, const float *in,
                       int64_t ld_in);

/* Scores and pattern of a layer, whose outputs (z) are computed: makes edits, calls hooks, computes the outputs of
 * heads and tokens anew whose pattern has changed, and copies to taps. */
void site_visit_attention(fastgpt_context *ctx, int32_t layer);

static inline void attention_done(fastgpt_context *ctx, int32_t layer) {
    if (ctx->sites.any) site_visit_attention(ctx, layer);
}

/* x = wte[token] + wpe[position] of the spans of s that begin with embeddings, where embed or pos_embed is wanted. */
void site_embed(fastgpt_context *ctx, const slice *s);

#endif
