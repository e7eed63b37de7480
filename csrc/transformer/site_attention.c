/* site_attention.c - the sites scores and pattern.  Attention itself writes them nowhere, so taps, hooks, and edits of
 * some rows, compute them once more, row by row; outputs are computed anew where a pattern has changed. */
#include <math.h>
#include <string.h>

#include "attention/attention_rows.h"
#include "common/thread_pool.h"
#include "transformer/site_done.h"

/* How far a row is computed. */
typedef enum stage { SCORES_EDITED, SCORES_HOOKED, PATTERN_EDITED, PATTERN_HOOKED } stage;

typedef struct rows_job {
    const fastgpt_context *ctx;
    int32_t layer;
    const fastgpt_hook *scores_hook, *pattern_hook; /* whose buffers are filled, NULL = none */
    stage stage;
    float *out; /* [heads][rows of the slice][n_keys], heads ld_head apart */
    int64_t ld_head, n_keys;
    int32_t head; /* the only one; -1 = all */
    const fastgpt_edit *edits; /* whose outputs are computed anew */
} rows_job;

/* Three rows of a thread, in the scratch of attention, which has ended: it has QUERIES_PER_TILE of them. */
static float *row_scratch(const fastgpt_context *ctx, int thread, int i) {
    return ctx->scores + (3 * (int64_t)thread + i) * ctx->model->n_ctx;
}

static int span_of_row(const slice *s, int32_t *token) {
    int i = 0;
    for (; *token >= s->counts[i]; i++) *token -= s->counts[i];
    return i;
}

static attention_row row_of(const fastgpt_context *ctx, int head, int32_t row, int thread) {
    const int i = span_of_row(ctx->sites.slice, &row);
    return (attention_row){.e = &ctx->engine,
                           .span = &ctx->spans[i],
                           .n_head = ctx->model->n_head,
                           .n_embd = ctx->model->n_embd,
                           .head = head,
                           .token = row,
                           .scratch = engine_scratch(&ctx->engine, thread)};
}

/* Where a hook's buffer has a row of the slice. */
static float *hook_row(const fastgpt_context *ctx, const fastgpt_hook *hook, int head, int32_t row) {
    const int64_t n_rows = ctx->taps.n_tokens < ctx->n_batch ? ctx->taps.n_tokens : ctx->n_batch;
    return hook->buffer + (head * n_rows + row) * hook->n_keys;
}

static bool concerns(const fastgpt_edit *e, const rows_job *job, fastgpt_site site, int head) {
    return e->site == (int32_t)site && e->layer == job->layer && (e->head < 0 || e->head == head);
}

static void edit_row(const rows_job *job, fastgpt_site site, int head, int32_t row, float *x, int32_t n) {
    const sites *s = &job->ctx->sites;
    for (const fastgpt_edit *e = s->edits; e < s->edits + s->n_edits; e++) {
        if (!concerns(e, job, site, head)) continue;
        const edit_rows rows = site_rows_of_edit(job->ctx, e);
        if (row < rows.first || row >= rows.first + rows.n) continue;
        edit_apply(e, edit_value(e, rows.position + row - rows.first), x, n);
    }
}

/* Scaled scores that differ from scores times scale replace them: the others keep their bits. */
static void replace_scores(float *scores, const float *scaled, float scale, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        const float was = scores[i] * scale;
        if (memcmp(&was, &scaled[i], sizeof was) != 0) scores[i] = scaled[i] / scale;
    }
}

/* Computes a row of n visible keys up to the stage of the job: scores are scaled. */
static void compute_row(const rows_job *job, const attention_row *r, int32_t row, float *x, float *scaled) {
    const int32_t n = attention_n_visible(r);
    const float scale = attention_scale(r);
    attention_scores(r, x);
    for (int32_t i = 0; i < n; i++) scaled[i] = x[i] * scale;
    edit_row(job, FASTGPT_SITE_SCORES, r->head, row, scaled, n);
    if (job->scores_hook && job->stage > SCORES_EDITED)
        memcpy(scaled, hook_row(job->ctx, job->scores_hook, r->head, row), (size_t)n * sizeof *x);
    if (job->stage <= SCORES_HOOKED) {
        memcpy(x, scaled, (size_t)n * sizeof *x);
        return;
    }
    replace_scores(x, scaled, scale, n);
    attention_softmax(r, x);
    edit_row(job, FASTGPT_SITE_PATTERN, r->head, row, x, n);
    if (job->pattern_hook && job->stage > PATTERN_EDITED)
        memcpy(x, hook_row(job->ctx, job->pattern_hook, r->head, row), (size_t)n * sizeof *x);
}

/* ---- Rows that are copied out ---- */

static void copy_unit(void *arg, int unit, int thread) {
    const rows_job *job = arg;
    const int32_t n_rows = job->ctx->sites.slice->n_tokens, row = unit % n_rows;
    const int h = unit / n_rows, head = job->head < 0 ? h : job->head;
    const attention_row r = row_of(job->ctx, head, row, thread);
    const int64_t n = attention_n_visible(&r);
    float *out = job->out + h * job->ld_head + row * job->n_keys, *x = row_scratch(job->ctx, thread, 0);
    compute_row(job, &r, row, x, row_scratch(job->ctx, thread, 1));
    memcpy(out, x, (size_t)n * sizeof *out);
    for (int64_t i = n; i < job->n_keys; i++) out[i] = job->stage <= SCORES_HOOKED ? -INFINITY : 0;
}

static void copy_rows(rows_job job) {
    const int n_heads = job.head < 0 ? job.ctx->model->n_head : 1;
    pool_run(job.ctx->engine.pool, copy_unit, &job, n_heads * job.ctx->sites.slice->n_tokens);
}

static void copy_to_taps(const rows_job *job) {
    const taps *t = &job->ctx->taps;
    rows_job copy = *job;
    copy.n_keys = t->to.n_keys;
    copy.ld_head = t->n_tokens * copy.n_keys;
    for (int32_t i = 0; i < t->to.n_sites; i++) {
        const fastgpt_site_tap *tap = &t->to.sites[i];
        if (site_infos[tap->site].kind != SITE_OF_KEYS || tap->layer != job->layer) continue;
        copy.stage = tap->site == FASTGPT_SITE_SCORES ? SCORES_HOOKED : PATTERN_HOOKED;
        copy.head = -1;
        copy.out = tap->to + t->first * copy.n_keys;
        copy_rows(copy);
    }
    copy.stage = PATTERN_HOOKED;
    for (int32_t i = 0; i < t->to.n_heads; i++) {
        if (t->to.heads[i].layer != job->layer) continue;
        copy.head = t->to.heads[i].head;
        copy.out = t->to.attention + i * copy.ld_head + t->first * copy.n_keys;
        copy_rows(copy);
    }
}

/* ---- Hooks ---- */

/* Fills the hook's buffer with rows of that stage, and calls it. */
static void call_hook(fastgpt_context *ctx, const rows_job *job, const fastgpt_hook *hook, stage stage) {
    const slice *s = ctx->sites.slice;
    rows_job fill = *job;
    fill.stage = stage;
    fill.head = -1;
    fill.out = hook->buffer;
    fill.n_keys = hook->n_keys;
    fill.ld_head = hook_row(ctx, hook, 1, 0) - hook->buffer;
    copy_rows(fill);
    for (int32_t i = 0; i < s->n_spans && !ctx->sites.ended; i++) {
        const fastgpt_hook_values values = {
            .struct_size = sizeof values,
            .site = hook->site,
            .layer = hook->layer,
            .span = s->first_span + i,
            .first = slice_position(s, i),
            .n_tokens = s->counts[i],
            .n_rows = ctx->model->n_head,
            .width = slice_position(s, i) + s->counts[i],
            .ld = hook->n_keys,
            .ld_head = fill.ld_head,
            .values = hook_row(ctx, hook, 0, ctx->first_rows[i]),
        };
        ctx->sites.ended = hook->callback(hook->user, &values) != 0;
    }
}

/* ---- Outputs ---- */

static void compute_output(const rows_job *job, int head, int32_t row, int thread) {
    const attention_row r = row_of(job->ctx, head, row, thread);
    float *x = row_scratch(job->ctx, thread, 0), *before = row_scratch(job->ctx, thread, 2);
    attention_scores(&r, before);
    attention_softmax(&r, before);
    compute_row(job, &r, row, x, row_scratch(job->ctx, thread, 1));
    if (memcmp(x, before, (size_t)attention_n_visible(&r) * sizeof *x) != 0) attention_weighted_values(&r, x);
}

static void hooked_output_unit(void *arg, int unit, int thread) {
    const rows_job *job = arg;
    const int32_t n_rows = job->ctx->sites.slice->n_tokens;
    compute_output(job, unit / n_rows, unit % n_rows, thread);
}

static bool changes_attention(const fastgpt_edit *e, const rows_job *job, int head) {
    return concerns(e, job, FASTGPT_SITE_SCORES, head) || concerns(e, job, FASTGPT_SITE_PATTERN, head);
}

/* Whether an edit before e has the same row, so that it is computed once. */
static bool is_earlier(const rows_job *job, const fastgpt_edit *e, int head, int32_t row) {
    for (const fastgpt_edit *other = job->edits; other < e; other++) {
        if (other->span != e->span || !changes_attention(other, job, head)) continue;
        const edit_rows rows = site_rows_of_edit(job->ctx, other);
        if (row >= rows.first && row < rows.first + rows.n) return true;
    }
    return false;
}

static void edited_output_unit(void *arg, int unit, int thread) {
    const rows_job *job = arg;
    const fastgpt_edit *e = &job->edits[unit];
    const edit_rows rows = site_rows_of_edit(job->ctx, e);
    for (int head = 0; head < job->ctx->model->n_head; head++) {
        if (!changes_attention(e, job, head)) continue;
        for (int32_t row = rows.first; row < rows.first + rows.n; row++)
            if (!is_earlier(job, e, head, row)) compute_output(job, head, row, thread);
    }
}

void site_visit_attention(fastgpt_context *ctx, int32_t layer) {
    const sites *s = &ctx->sites;
    rows_job job = {.ctx = ctx, .layer = layer, .stage = PATTERN_HOOKED, .edits = s->edits};
    const fastgpt_hook *scores_hook = site_hook(s, FASTGPT_SITE_SCORES, layer);
    const fastgpt_hook *pattern_hook = site_hook(s, FASTGPT_SITE_PATTERN, layer);
    if (scores_hook) call_hook(ctx, &job, scores_hook, SCORES_EDITED);
    job.scores_hook = scores_hook;
    if (pattern_hook) call_hook(ctx, &job, pattern_hook, PATTERN_EDITED);
    job.pattern_hook = pattern_hook;
    if (scores_hook || pattern_hook)
        pool_run(ctx->engine.pool, hooked_output_unit, &job, ctx->model->n_head * s->slice->n_tokens);
    else if (site_is_wanted(s, FASTGPT_SITE_SCORES) || site_is_wanted(s, FASTGPT_SITE_PATTERN))
        pool_run(ctx->engine.pool, edited_output_unit, &job, s->n_edits);
    if (ctx->taps.any) copy_to_taps(&job);
}
