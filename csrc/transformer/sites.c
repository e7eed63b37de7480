/* sites.c - see sites.h: names, shapes, and the checks of what a step is asked to change. */
#include "transformer/sites.h"

#include <math.h>

#include "common/status.h"
#include "kv_cache/kv_cache.h"
#include "transformer/context.h"

const site_info site_infos[FASTGPT_N_SITES] = {
    [FASTGPT_SITE_EMBED] = {"embed", SITE_OF_EMBD, false},
    [FASTGPT_SITE_POS_EMBED] = {"pos_embed", SITE_OF_EMBD, false},
    [FASTGPT_SITE_RESID_PRE] = {"resid_pre", SITE_OF_EMBD, true},
    [FASTGPT_SITE_LN_1] = {"ln_1", SITE_OF_EMBD, true},
    [FASTGPT_SITE_Q] = {"q", SITE_OF_HEADS, true},
    [FASTGPT_SITE_K] = {"k", SITE_OF_HEADS, true},
    [FASTGPT_SITE_V] = {"v", SITE_OF_HEADS, true},
    [FASTGPT_SITE_SCORES] = {"scores", SITE_OF_KEYS, true},
    [FASTGPT_SITE_PATTERN] = {"pattern", SITE_OF_KEYS, true},
    [FASTGPT_SITE_Z] = {"z", SITE_OF_HEADS, true},
    [FASTGPT_SITE_ATTN_OUT] = {"attn_out", SITE_OF_EMBD, true},
    [FASTGPT_SITE_RESID_MID] = {"resid_mid", SITE_OF_EMBD, true},
    [FASTGPT_SITE_LN_2] = {"ln_2", SITE_OF_EMBD, true},
    [FASTGPT_SITE_FF_PRE] = {"ff_pre", SITE_OF_FF, true},
    [FASTGPT_SITE_FF_POST] = {"ff_post", SITE_OF_FF, true},
    [FASTGPT_SITE_FF_OUT] = {"ff_out", SITE_OF_EMBD, true},
    [FASTGPT_SITE_RESID_POST] = {"resid_post", SITE_OF_EMBD, true},
    [FASTGPT_SITE_LN_F] = {"ln_f", SITE_OF_EMBD, false},
};

static bool site_exists(int32_t site) { return site >= 0 && site < FASTGPT_N_SITES; }

const char *fastgpt_site_name(fastgpt_site site) {
    return site_exists((int32_t)site) ? site_infos[site].name : "unknown";
}

int32_t fastgpt_site_width(const fastgpt_model *model, fastgpt_site site) {
    if (!site_exists((int32_t)site) || site_infos[site].kind == SITE_OF_KEYS) return 0;
    return site_infos[site].kind == SITE_OF_FF ? model->n_ff : model->n_embd;
}

/* ---- Checks ---- */

/* A step, and which of its edits, hooks, taps or starts is checked, for the text of an error. */
typedef struct checked {
    const fastgpt_model *model;
    const fastgpt_span *spans;
    int32_t n_spans;
    const fastgpt_start *starts;
    fastgpt_error *error;
    const char *what; /* "edit" and so on */
    int32_t i;
} checked;

#define REFUSE(c, format, ...) fail((c)->error, FASTGPT_ERR_ARGUMENT, "%s %d: " format, (c)->what, (c)->i, __VA_ARGS__)

static fastgpt_status check_place(const checked *c, int32_t site, int32_t layer) {
    if (!site_exists(site)) return REFUSE(c, "site %d is not in [0, %d)", site, FASTGPT_N_SITES);
    const site_info *info = &site_infos[site];
    if (!info->has_layers && layer != 0) return REFUSE(c, "%s has no layers: layer is %d, not 0", info->name, layer);
    if (layer < 0 || layer >= c->model->n_layer)
        return REFUSE(c, "layer %d of %s is not in [0, %d)", layer, info->name, c->model->n_layer);
    return FASTGPT_OK;
}

static int32_t n_keys_of(const fastgpt_span *span) { return span->kv->n_past + span->n_tokens; }

static int32_t most_keys(const checked *c) {
    int32_t most = 0;
    for (int32_t i = 0; i < c->n_spans; i++) most = n_keys_of(&c->spans[i]) > most ? n_keys_of(&c->spans[i]) : most;
    return most;
}

static fastgpt_status check_taps(checked *c, const fastgpt_taps *taps) {
    c->what = "site tap";
    if (taps->n_sites < 0 || (taps->n_sites > 0 && !taps->sites))
        return fail(c->error, FASTGPT_ERR_ARGUMENT, "taps: n_sites is %d, and sites %s", taps->n_sites,
                    taps->sites ? "not NULL" : "NULL");
    for (c->i = 0; c->i < taps->n_sites; c->i++) {
        const fastgpt_site_tap *tap = &taps->sites[c->i];
        fastgpt_status status = check_place(c, tap->site, tap->layer);
        if (status) return status;
        if (!tap->to) return REFUSE(c, "%s has no array to write to", site_infos[tap->site].name);
        if (site_infos[tap->site].kind == SITE_OF_KEYS && taps->n_keys < most_keys(c))
            return REFUSE(c, "n_keys is %d, and the longest sequence has %d", taps->n_keys, most_keys(c));
    }
    return FASTGPT_OK;
}

static fastgpt_status check_positions(const checked *c, const fastgpt_edit *e) {
    const fastgpt_span *span = &c->spans[e->span];
    const int32_t n_keys = n_keys_of(span), last = e->last == -1 ? n_keys - 1 : e->last;
    if (e->first < 0 || e->first > last || last >= n_keys)
        return REFUSE(c, "positions [%d, %d] are not in [0, %d]", e->first, e->last, n_keys - 1);
    if (last < span->kv->n_past)
        return REFUSE(c, "positions [%d, %d] are not in the step, which begins at %d", e->first, e->last,
                      span->kv->n_past);
    return FASTGPT_OK;
}

/* Whether the span of an edit computes its site. */
static fastgpt_status check_is_computed(const checked *c, const fastgpt_edit *e) {
    const fastgpt_start *start = c->starts ? &c->starts[e->span] : NULL;
    if (!start || e->site == FASTGPT_SITE_LN_F) return FASTGPT_OK;
    const bool embeds = e->site == FASTGPT_SITE_EMBED || e->site == FASTGPT_SITE_POS_EMBED;
    if (embeds ? start->resid != NULL : e->layer < start->layer)
        return REFUSE(c, "%s of layer %d is not computed: span %d starts at layer %d with residuals of its own",
                      site_infos[e->site].name, e->layer, e->span, start->layer);
    return FASTGPT_OK;
}

static int32_t width_of(const checked *c, const fastgpt_edit *e) {
    if (site_infos[e->site].kind == SITE_OF_KEYS) return n_keys_of(&c->spans[e->span]);
    const int32_t width = fastgpt_site_width(c->model, (fastgpt_site)e->site);
    return e->head >= 0 ? width / c->model->n_head : width;
}

static fastgpt_status check_shape(const checked *c, const fastgpt_edit *e) {
    const char *name = site_infos[e->site].name;
    const int32_t width = width_of(c, e), end = e->last == -1 ? n_keys_of(&c->spans[e->span]) : e->last + 1;
    if (e->op == FASTGPT_EDIT_ZERO) {
        if (e->value || e->n_values) return REFUSE(c, "%s is set to zero, which takes no value", name);
        return FASTGPT_OK;
    }
    if (!e->value) return REFUSE(c, "%s has no value", name);
    if (e->n_rows != 1 && e->n_rows != end - e->first)
        return REFUSE(c, "%s has %d rows of values, not 1 or %d", name, e->n_rows, end - e->first);
    if (e->op == FASTGPT_EDIT_PROJECT_OUT) {
        if (site_infos[e->site].kind == SITE_OF_KEYS) return REFUSE(c, "%s has no directions to project out", name);
        if (e->n_values != width)
            return REFUSE(c, "a direction of %s has %d numbers, not %d", name, e->n_values, width);
    } else if (e->n_values != 1 && e->n_values != width)
        return REFUSE(c, "a row of %s has %d numbers, not 1 or %d", name, e->n_values, width);
    return FASTGPT_OK;
}

static fastgpt_status check_values(const checked *c, const fastgpt_edit *e) {
    const bool may_hide = e->site == FASTGPT_SITE_SCORES && e->op != FASTGPT_EDIT_SCALE;
    for (int32_t r = 0; e->value && r < e->n_rows; r++) {
        const float *row = e->value + (int64_t)r * e->n_values;
        double square = 0;
        for (int32_t i = 0; i < e->n_values; i++) {
            if (!isfinite(row[i]) && !(may_hide && row[i] == -INFINITY))
                return fail(c->error, FASTGPT_ERR_NUMBERS, "%s %d: value %d of row %d is %g", c->what, c->i, i, r,
                            (double)row[i]);
            square += (double)row[i] * row[i];
        }
        if (e->op == FASTGPT_EDIT_PROJECT_OUT && square == 0)
            return fail(c->error, FASTGPT_ERR_NUMBERS, "%s %d: the direction of row %d is 0", c->what, c->i, r);
    }
    return FASTGPT_OK;
}

static fastgpt_status check_edit(const checked *c, const fastgpt_edit *e) {
    if (e->span < 0 || e->span >= c->n_spans) return REFUSE(c, "span %d is not in [0, %d)", e->span, c->n_spans);
    fastgpt_status status = check_place(c, e->site, e->layer);
    if (status) return status;
    if (e->op < FASTGPT_EDIT_SET || e->op > FASTGPT_EDIT_PROJECT_OUT)
        return REFUSE(c, "op %d is not in [0, %d]", e->op, FASTGPT_EDIT_PROJECT_OUT);
    if (e->head != -1 && !site_has_heads((fastgpt_site)e->site))
        return REFUSE(c, "%s has no heads: head is %d, not -1", site_infos[e->site].name, e->head);
    if (e->head < -1 || e->head >= c->model->n_head)
        return REFUSE(c, "head %d is not in [0, %d), or -1 for all", e->head, c->model->n_head);
    status = check_positions(c, e);
    if (!status) status = check_is_computed(c, e);
    if (!status) status = check_shape(c, e);
    return status ? status : check_values(c, e);
}

static fastgpt_status check_hook(const checked *c, const fastgpt_hook *hooks) {
    const fastgpt_hook *hook = &hooks[c->i];
    fastgpt_status status = check_place(c, hook->site, hook->layer);
    if (status) return status;
    const char *name = site_infos[hook->site].name;
    if (!hook->callback) return REFUSE(c, "%s has no callback", name);
    if (site_infos[hook->site].kind == SITE_OF_KEYS && (!hook->buffer || hook->n_keys < most_keys(c)))
        return REFUSE(c, "%s needs a buffer for %d keys", name, most_keys(c));
    for (int32_t i = 0; i < c->i; i++)
        if (hooks[i].site == hook->site && hooks[i].layer == hook->layer)
            return REFUSE(c, "%s of layer %d has another hook, %d", name, hook->layer, i);
    return FASTGPT_OK;
}

static fastgpt_status check_start(const checked *c) {
    const fastgpt_start *start = c->starts ? &c->starts[c->i] : NULL;
    const fastgpt_span *span = &c->spans[c->i];
    const int32_t layer = start ? start->layer : 0, cached_from = fastgpt_kv_cache_start_layer(span->kv);
    if (layer < cached_from)
        return REFUSE(c, "its cache has positions without keys below layer %d: start there, or truncate it",
                      cached_from);
    if (!start) return FASTGPT_OK;
    if (layer > c->model->n_layer) return REFUSE(c, "layer %d is not in [0, %d]", layer, c->model->n_layer);
    if (layer > 0 && !start->resid) return REFUSE(c, "layer %d needs residuals to start with", layer);
    if (c->i > 0 && layer < start[-1].layer)
        return REFUSE(c, "layer %d is below that of the span before, %d", layer, start[-1].layer);
    if (c->i > 0 && !start->resid && start[-1].resid)
        return REFUSE(c, "it begins with embeddings and so must come before span %d", c->i - 1);
    for (int64_t i = 0; start->resid && i < (int64_t)span->n_tokens * c->model->n_embd; i++)
        if (!isfinite(start->resid[i]))
            return fail(c->error, FASTGPT_ERR_NUMBERS, "%s %d: number %lld of the residuals is %g", c->what, c->i,
                        (long long)i, (double)start->resid[i]);
    return FASTGPT_OK;
}

static fastgpt_status check_all(checked *c, const fastgpt_step_options *o, const fastgpt_taps *taps) {
    if (o->n_edits < 0 || (o->n_edits > 0 && !o->edits) || o->n_hooks < 0 || (o->n_hooks > 0 && !o->hooks))
        return fail(c->error, FASTGPT_ERR_ARGUMENT, "n_edits is %d and n_hooks %d, or their list is NULL", o->n_edits,
                    o->n_hooks);
    fastgpt_status status = FASTGPT_OK;
    for (c->what = "span", c->i = 0; !status && c->i < c->n_spans; c->i++) status = check_start(c);
    if (!status) status = check_taps(c, taps);
    for (c->what = "edit", c->i = 0; !status && c->i < o->n_edits; c->i++) status = check_edit(c, &o->edits[c->i]);
    for (c->what = "hook", c->i = 0; !status && c->i < o->n_hooks; c->i++) status = check_hook(c, o->hooks);
    return status;
}

/* ---- The current step ---- */

fastgpt_status sites_begin(fastgpt_context *ctx, const fastgpt_step_options *options, const fastgpt_span *spans,
                           int32_t n_spans) {
    const fastgpt_taps *taps = &ctx->taps.to;
    checked c = {
        .model = ctx->model, .spans = spans, .n_spans = n_spans, .starts = options->starts, .error = options->error};
    ctx->sites = (sites){.any = ctx->taps.any};
    fastgpt_status status = check_all(&c, options, taps);
    if (status) return status;
    sites *s = &ctx->sites;
    s->edits = options->edits;
    s->n_edits = options->n_edits;
    s->hooks = options->hooks;
    s->n_hooks = options->n_hooks;
    for (int32_t i = 0; i < taps->n_sites; i++) s->wanted |= site_bit((fastgpt_site)taps->sites[i].site);
    for (int32_t i = 0; i < s->n_edits; i++) s->wanted |= site_bit((fastgpt_site)s->edits[i].site);
    for (int32_t i = 0; i < s->n_hooks; i++) s->wanted |= site_bit((fastgpt_site)s->hooks[i].site);
    s->any = s->any || s->wanted;
    s->starts = options->starts;
    return FASTGPT_OK;
}
