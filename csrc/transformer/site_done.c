/* site_done.c - edits, hooks and taps of sites that have a row for each token. */
#include "transformer/site_done.h"

#include <string.h>

#include "common/arithmetic.h"

/* ---- Edits ---- */

edit_rows site_rows_of_edit(const fastgpt_context *ctx, const fastgpt_edit *e) {
    const slice *s = ctx->sites.slice;
    const int32_t i = e->span - s->first_span;
    if (i < 0 || i >= s->n_spans) return (edit_rows){.n = 0};
    const int32_t first = slice_position(s, i), end = first + s->counts[i];
    const int32_t from = (int32_t)larger(e->first, first);
    const int32_t to = e->last == -1 ? end : (int32_t)min_int(e->last + 1, end);
    return (edit_rows){
        .first = ctx->first_rows[i] + from - first, .n = (int32_t)larger(to - from, 0), .position = from};
}

static void project_out(const float *d, float *x, int32_t n) {
    double along = 0, square = 0;
    for (int32_t i = 0; i < n; i++) {
        along += (double)d[i] * x[i];
        square += (double)d[i] * d[i];
    }
    for (int32_t i = 0; i < n; i++) x[i] = (float)(x[i] - d[i] * (along / square));
}

void edit_apply(const fastgpt_edit *e, const float *value, float *x, int32_t n) {
    const int32_t step = e->n_values == 1 ? 0 : 1; /* through value */
    switch ((fastgpt_edit_op)e->op) {
    case FASTGPT_EDIT_SET:
    case FASTGPT_EDIT_MEAN:
        for (int32_t i = 0; i < n; i++) x[i] = value[i * step];
        break;
    case FASTGPT_EDIT_ADD:
        for (int32_t i = 0; i < n; i++) x[i] += value[i * step];
        break;
    case FASTGPT_EDIT_SCALE:
        for (int32_t i = 0; i < n; i++) x[i] *= value[i * step];
        break;
    case FASTGPT_EDIT_ZERO:        memset(x, 0, (size_t)n * sizeof *x); break;
    case FASTGPT_EDIT_PROJECT_OUT: project_out(value, x, n); break;
    }
}

void site_edit_rows(const fastgpt_context *ctx, fastgpt_site site, int32_t layer, float *values, int64_t ld,
                    const int32_t *row_index) {
    const sites *s = &ctx->sites;
    const int32_t width = fastgpt_site_width(ctx->model, site), head_width = width / ctx->model->n_head;
    for (const fastgpt_edit *e = s->edits; e < s->edits + s->n_edits; e++) {
        if (e->site != (int32_t)site || e->layer != layer) continue;
        const edit_rows rows = site_rows_of_edit(ctx, e);
        for (int32_t r = 0; r < rows.n; r++) {
            const int64_t row = row_index ? row_index[rows.first + r] : rows.first + r;
            float *x = values + row * ld + (e->head < 0 ? 0 : e->head * head_width);
            edit_apply(e, edit_value(e, rows.position + r), x, e->head < 0 ? width : head_width);
        }
    }
}

/* ---- Hooks ---- */

const fastgpt_hook *site_hook(const sites *s, fastgpt_site site, int32_t layer) {
    for (int32_t i = 0; i < s->n_hooks; i++)
        if (s->hooks[i].site == (int32_t)site && s->hooks[i].layer == layer) return &s->hooks[i];
    return NULL;
}

void site_call_hook(fastgpt_context *ctx, const fastgpt_hook *hook, float *values, int64_t ld) {
    const slice *s = ctx->sites.slice;
    for (int32_t i = 0; i < s->n_spans && !ctx->sites.ended; i++) {
        const fastgpt_hook_values to_change = {
            .struct_size = sizeof to_change,
            .site = hook->site,
            .layer = hook->layer,
            .span = s->first_span + i,
            .first = slice_position(s, i),
            .n_tokens = s->counts[i],
            .n_rows = 1,
            .width = fastgpt_site_width(ctx->model, (fastgpt_site)hook->site),
            .ld = ld,
            .values = values + ctx->first_rows[i] * ld,
        };
        ctx->sites.ended = hook->callback(hook->user, &to_change) != 0;
    }
}

/* ---- All ---- */

void site_visit(fastgpt_context *ctx, fastgpt_site site, int32_t layer, float *values, int64_t ld) {
    const sites *s = &ctx->sites;
    if (site_is_wanted(s, site)) {
        const fastgpt_hook *hook = site_hook(s, site, layer);
        site_edit_rows(ctx, site, layer, values, ld, NULL);
        if (hook) site_call_hook(ctx, hook, values, ld);
    }
    if (ctx->taps.any) taps_copy(ctx, site, layer, values, ld);
}
