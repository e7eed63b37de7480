/* site_residual.c - the sites attn_out and ff_out: what is added to the residual stream.  A product adds it without
 * writing it anywhere.  So taps multiply once more, and edits take the difference that the product has made to their
 * rows; in a deterministic step they multiply once more, too, for the bits that a tap shows. */
#include <string.h>

#include "matmul/linear.h"
#include "transformer/site_done.h"

static int64_t n_row_floats(const fastgpt_context *ctx, int64_t n_rows) { return n_rows * ctx->model->n_embd; }

static size_t row_size(const fastgpt_context *ctx) { return (size_t)ctx->model->n_embd * sizeof(float); }

/* The rows of the slice that edits or hooks of the site may change: row_index[r] counts them, -1 for the others.
 * Returns how many there are. */
static int32_t index_rows(fastgpt_context *ctx, fastgpt_site site, int32_t layer) {
    const sites *s = &ctx->sites;
    const int32_t n = s->slice->n_tokens;
    int32_t n_indexed = 0;
    const bool hooked = site_hook(s, site, layer) != NULL;
    for (int32_t r = 0; r < n; r++) ctx->row_index[r] = hooked ? 0 : -1;
    for (const fastgpt_edit *e = s->edits; e < s->edits + s->n_edits; e++) {
        if (e->site != (int32_t)site || e->layer != layer) continue;
        const edit_rows rows = site_rows_of_edit(ctx, e);
        for (int32_t r = rows.first; r < rows.first + rows.n; r++) ctx->row_index[r] = 0;
    }
    for (int32_t r = 0; r < n; r++)
        if (ctx->row_index[r] == 0) ctx->row_index[r] = n_indexed++;
    return n_indexed;
}

/* to [n_indexed][n] = the indexed rows of x. */
static void gather_rows(const fastgpt_context *ctx, float *to, const float *x, int64_t ldx, int64_t n) {
    for (int32_t r = 0; r < ctx->sites.slice->n_tokens; r++)
        if (ctx->row_index[r] >= 0) memcpy(to + ctx->row_index[r] * n, x + r * ldx, (size_t)n * sizeof *to);
}

static void multiply(fastgpt_context *ctx, const linear_task *task, float *out, const float *in, int64_t ld_in, int n) {
    linear_task again = *task;
    again.out = out;
    again.add = false;
    linear(&ctx->engine, in, ld_in, &again, 1, n);
}

/* ctx->normed = what was added to the indexed rows, which were ctx->gathered before. */
static void take_difference(fastgpt_context *ctx) {
    const int64_t n_embd = ctx->model->n_embd;
    for (int32_t r = 0; r < ctx->sites.slice->n_tokens; r++) {
        if (ctx->row_index[r] < 0) continue;
        const int64_t row = n_row_floats(ctx, ctx->row_index[r]);
        for (int64_t i = 0; i < n_embd; i++) ctx->normed[row + i] = ctx->x[r * n_embd + i] - ctx->gathered[row + i];
    }
}

static void copy_to_taps(fastgpt_context *ctx, fastgpt_site site, int32_t layer, const linear_task *task,
                         const float *in, int64_t ld_in) {
    const fastgpt_taps *to = &ctx->taps.to;
    const int32_t n = ctx->sites.slice->n_tokens;
    for (int32_t i = 0; i < to->n_sites; i++) {
        if (to->sites[i].site != (int32_t)site || to->sites[i].layer != layer) continue;
        float *rows = taps_rows(ctx, &to->sites[i], ctx->model->n_embd);
        multiply(ctx, task, rows, in, ld_in, n);
        for (int32_t r = 0; r < n; r++)
            if (ctx->row_index[r] >= 0)
                memcpy(rows + n_row_floats(ctx, r), ctx->changed + n_row_floats(ctx, ctx->row_index[r]), row_size(ctx));
    }
}

/* ctx->changed = what edits and hooks make of ctx->normed. */
static void change_rows(fastgpt_context *ctx, fastgpt_site site, int32_t layer, int32_t n_indexed) {
    const fastgpt_hook *hook = site_hook(&ctx->sites, site, layer);
    memcpy(ctx->changed, ctx->normed, (size_t)n_indexed * row_size(ctx));
    site_edit_rows(ctx, site, layer, ctx->changed, ctx->model->n_embd, ctx->row_index);
    if (hook) site_call_hook(ctx, hook, ctx->changed, ctx->model->n_embd);
}

/* x = what it was before + ctx->changed, for the rows that have changed; the others keep their bits. */
static void replace_rows(fastgpt_context *ctx) {
    const int64_t n_embd = ctx->model->n_embd;
    for (int32_t r = 0; r < ctx->sites.slice->n_tokens; r++) {
        if (ctx->row_index[r] < 0) continue;
        const int64_t row = n_row_floats(ctx, ctx->row_index[r]);
        if (memcmp(ctx->changed + row, ctx->normed + row, row_size(ctx)) == 0) continue;
        for (int64_t i = 0; i < n_embd; i++) ctx->x[r * n_embd + i] = ctx->gathered[row + i] + ctx->changed[row + i];
    }
}

void site_add_residual(fastgpt_context *ctx, fastgpt_site site, int32_t layer, const linear_task *task, const float *in,
                       int64_t ld_in) {
    const int64_t n_embd = ctx->model->n_embd, n_in = task->w.n_in;
    const int32_t n = ctx->sites.slice->n_tokens, n_indexed = index_rows(ctx, site, layer);
    const bool again = n_indexed > 0 && ctx->engine.deterministic;
    if (again) {
        gather_rows(ctx, ctx->gathered, in, ld_in, n_in);
        multiply(ctx, task, ctx->normed, ctx->gathered, n_in, n_indexed);
    }
    if (n_indexed > 0) gather_rows(ctx, ctx->gathered, ctx->x, n_embd, n_embd);
    linear(&ctx->engine, in, ld_in, task, 1, n);
    if (n_indexed > 0 && !again) take_difference(ctx);
    if (n_indexed > 0) change_rows(ctx, site, layer, n_indexed);
    if (ctx->taps.any) copy_to_taps(ctx, site, layer, task, in, ld_in);
    if (n_indexed > 0) replace_rows(ctx);
}
