/* profile.c - see profile.h. */
#include "transformer/profile.h"

#include <stdlib.h>
#include <string.h>

#include "common/thread_pool.h"
#include "kv_cache/kv_cache.h"
#include "transformer/context.h"

enum { N_LAYER_OPS = FASTGPT_OP_PROJ - FASTGPT_OP_LN_1 + 1, N_LAST_OPS = FASTGPT_OP_OTHER - FASTGPT_OP_LN_F + 1 };

/* In the order of fastgpt_op. */
static const char *const op_names[] = {"embed", "ln_1", "qkv",     "attention", "attn_proj", "ln_2",  "fc",  "gelu",
                                       "proj",  "ln_f", "lm_head", "sample",    "other",     "layer", "step"};

const char *fastgpt_op_name(fastgpt_op op) {
    size_t i = (size_t)op;
    return i < sizeof op_names / sizeof *op_names ? op_names[i] : "unknown";
}

/* ---- What an op must move and compute: the formulas of fastgpt.h ---- */

typedef struct cost {
    int64_t bytes, operations;
} cost;

enum { LAYER_NORM_OPERATIONS = 7, GELU_OPERATIONS = 9 };

static int64_t floats(int64_t n) { return n * (int64_t)sizeof(float); }

/* n rows times w; writing the outputs moves out_bytes. */
static cost product_cost(const weight *w, int64_t n, int64_t out_bytes) {
    int64_t weights = w->n_out * row_bytes(w->type, w->n_in) + (w->b ? floats(w->n_out) : 0);
    return (cost){weights + floats(n * w->n_in) + out_bytes, 2 * n * w->n_in * w->n_out};
}

static cost layer_norm_cost(int64_t n, int64_t n_embd) {
    return (cost){floats(2 * n * n_embd + 2 * n_embd), LAYER_NORM_OPERATIONS * n * n_embd};
}

static cost embed_cost(const fastgpt_model *m, int64_t n) {
    int64_t row = row_bytes(m->wte.type, m->n_embd) + row_bytes(m->wpe.type, m->n_embd) + floats(m->n_embd);
    return (cost){n * row, n * m->n_embd};
}

static cost cost_of(const profile *p, int32_t l, fastgpt_op op, int64_t n) {
    const fastgpt_model *m = p->model;
    const layer_weights *w = &m->layers[l < 0 ? 0 : l];
    int64_t rows = floats(n * m->n_embd);
    switch (op) {
    case FASTGPT_OP_EMBED:     return embed_cost(m, n);
    case FASTGPT_OP_LN_1:
    case FASTGPT_OP_LN_2:
    case FASTGPT_OP_LN_F:      return layer_norm_cost(n, m->n_embd);
    case FASTGPT_OP_QKV:       return product_cost(&w->qkv, n, rows + p->cache_bytes_written);
    case FASTGPT_OP_ATTENTION: return (cost){2 * rows + p->cache_bytes_read, 4 * m->n_embd * p->n_pairs};
    case FASTGPT_OP_ATTN_PROJ: return product_cost(&w->attn_proj, n, 2 * rows);
    case FASTGPT_OP_FC:        return product_cost(&w->fc, n, floats(n * m->n_ff));
    case FASTGPT_OP_GELU:      return (cost){floats(2 * n * m->n_ff), GELU_OPERATIONS * n * m->n_ff};
    case FASTGPT_OP_PROJ:      return product_cost(&w->proj, n, 2 * rows);
    case FASTGPT_OP_LM_HEAD:   return product_cost(&m->lm_head, n, floats(n * m->n_vocab));
    case FASTGPT_OP_SAMPLE:    return (cost){floats(n * m->n_vocab), 0};
    default:                   return (cost){0, 0};
    }
}

/* ---- Records and events ---- */

static fastgpt_profile_record *record_of(profile *p, int32_t layer, fastgpt_op op) {
    int32_t row = (int32_t)op;
    if (op > FASTGPT_OP_PROJ) row += (p->model->n_layer - 1) * N_LAYER_OPS;
    else if (op > FASTGPT_OP_EMBED) row += layer * N_LAYER_OPS;
    return &p->records[p->step.phase * p->n_rows + row];
}

static void add_to_record(profile *p, int32_t layer, fastgpt_op op, int64_t n, int64_t ns) {
    fastgpt_profile_record *r = record_of(p, layer, op);
    cost c = cost_of(p, layer, op, n);
    r->phase = p->step.phase;
    r->layer = layer;
    r->op = (int32_t)op;
    r->best_ns = r->calls == 0 || ns < r->best_ns ? ns : r->best_ns;
    r->calls++;
    r->ns += ns;
    r->bytes += c.bytes;
    r->operations += c.operations;
}

static void add_event(profile *p, int32_t thread, int32_t layer, fastgpt_op op, int64_t start_ns, int64_t end_ns) {
    if (p->n_kept == 0) return;
    fastgpt_profile_event *e = &p->events[p->n_events++ % p->n_kept];
    *e = p->step;
    e->start_ns = start_ns;
    e->end_ns = end_ns;
    e->thread = thread;
    e->layer = layer;
    e->op = (int32_t)op;
}

/* When the workers worked in this lap. */
static void add_worker_events(profile *p, int32_t layer, fastgpt_op op) {
    int64_t start, end;
    for (int thread = 1; thread < pool_n_threads(p->pool); thread++)
        if (pool_take_share(p->pool, thread, &start, &end)) add_event(p, thread, layer, op, start, end);
}

/* ---- A step ---- */

void profile_begin_step(profile *p, const fastgpt_span *spans, int32_t n_spans) {
    if (!p->on) return;
    p->step.step++;
    p->step.n_tokens = 0;
    for (int32_t i = 0; i < n_spans; i++) p->step.n_tokens += spans[i].n_tokens;
    p->step.phase = p->step.n_tokens == n_spans ? FASTGPT_PHASE_DECODE : FASTGPT_PHASE_PREFILL;
    p->step.start_ns = p->lap_ns = os_nanoseconds();
    pool_watch(p->pool, p->n_kept > 0);
}

void profile_begin_slice(profile *p, const fastgpt_span *spans, const int32_t *counts, int32_t n_spans) {
    if (!p->on) return;
    p->cache_bytes_written = p->cache_bytes_read = p->n_pairs = 0;
    for (int32_t i = 0; i < n_spans; i++) {
        const fastgpt_kv_cache *kv = spans[i].kv;
        int64_t n = counts[i], row = 2 * row_bytes(kv->type, kv->n_embd);
        p->cache_bytes_written += n * row;
        bool shares_prefix =
            i > 0 && kv->prefix && kv->prefix == spans[i - 1].kv->prefix && kv->n_prefix == spans[i - 1].kv->n_prefix;
        p->cache_bytes_read += (kv->n_past + n - (shares_prefix ? kv->n_prefix : 0)) * row;
        p->n_pairs += n * kv->n_past + n * (n + 1) / 2;
    }
}

void profile_end_lap(profile *p, int32_t layer, fastgpt_op op, int32_t n_rows) {
    int64_t now = os_nanoseconds();
    if (op == FASTGPT_OP_LN_1) p->layer_ns = p->lap_ns;
    add_to_record(p, layer, op, n_rows, now - p->lap_ns);
    add_event(p, 0, layer, op, p->lap_ns, now);
    add_worker_events(p, layer, op);
    if (op == FASTGPT_OP_PROJ) add_event(p, 0, layer, FASTGPT_OP_LAYER, p->layer_ns, now);
    p->lap_ns = now;
}

void profile_end_step(profile *p) {
    if (!p->on) return;
    profile_end_lap(p, -1, FASTGPT_OP_OTHER, 0);
    add_event(p, 0, -1, FASTGPT_OP_STEP, p->step.start_ns, p->lap_ns);
    pool_watch(p->pool, false);
    fastgpt_profile_phase *phase = &p->phases[p->step.phase];
    phase->n_steps++;
    phase->n_tokens += p->step.n_tokens;
    phase->ns += p->lap_ns - p->step.start_ns;
}

/* ---- Sampling ---- */

void profile_begin_sampling(profile *p) {
    if (!p->on) return;
    p->lap_ns = os_nanoseconds();
    pool_watch(p->pool, p->n_kept > 0);
}

void profile_end_sampling(profile *p, int32_t n_rows) {
    if (!p->on) return;
    profile_end_lap(p, -1, FASTGPT_OP_SAMPLE, n_rows);
    pool_watch(p->pool, false);
}

void profile_add_sample(profile *p, int64_t start_ns, int64_t end_ns) {
    add_to_record(p, -1, FASTGPT_OP_SAMPLE, 1, end_ns - start_ns);
    add_event(p, 0, -1, FASTGPT_OP_SAMPLE, start_ns, end_ns);
}

/* ---- Start, stop and free ---- */

void profile_free(profile *p) {
    free(p->records);
    free(p->events);
    *p = (profile){.on = false};
}

size_t profile_bytes(const profile *p) {
    return N_PHASES * (size_t)p->n_rows * sizeof *p->records + (size_t)p->n_kept * sizeof *p->events;
}

fastgpt_status fastgpt_profile_start(fastgpt_context *ctx, int32_t n_events) {
    if (!ctx || n_events < 0) return FASTGPT_ERR_ARGUMENT;
    profile started = {.model = ctx->model, .pool = ctx->engine.pool, .n_kept = n_events, .step.step = -1};
    started.n_rows = FASTGPT_OP_LN_1 + ctx->model->n_layer * N_LAYER_OPS + N_LAST_OPS;
    started.records = calloc(N_PHASES * (size_t)started.n_rows, sizeof *started.records);
    started.events = calloc(n_events > 0 ? (size_t)n_events : 1, sizeof *started.events);
    if (!started.records || !started.events) {
        profile_free(&started);
        return FASTGPT_ERR_MEMORY;
    }
    profile_free(&ctx->profile);
    started.on = true;
    ctx->profile = started;
    return FASTGPT_OK;
}

void fastgpt_profile_stop(fastgpt_context *ctx) {
    if (ctx) ctx->profile.on = false;
}

/* ---- Results ---- */

fastgpt_status fastgpt_profile_summarize(const fastgpt_context *ctx, fastgpt_profile_summary *out) {
    if (!ctx || !out) return FASTGPT_ERR_ARGUMENT;
    const profile *p = &ctx->profile;
    memset(out, 0, sizeof *out);
    out->prefill = p->phases[FASTGPT_PHASE_PREFILL];
    out->decode = p->phases[FASTGPT_PHASE_DECODE];
    int64_t n_lost = p->n_events - p->n_kept;
    out->n_events_lost = n_lost > 0 ? n_lost : 0;
    return FASTGPT_OK;
}

fastgpt_status fastgpt_profile_records(const fastgpt_context *ctx, fastgpt_profile_record *records, int32_t capacity,
                                       int32_t *n_records) {
    if (!ctx || !n_records || capacity < 0 || (!records && capacity > 0)) return FASTGPT_ERR_ARGUMENT;
    const profile *p = &ctx->profile;
    int32_t n = 0;
    for (int32_t i = 0; i < N_PHASES * p->n_rows; i++) n += p->records[i].calls > 0;
    *n_records = n;
    if (n > capacity) return FASTGPT_ERR_CAPACITY;
    for (int32_t i = 0; i < N_PHASES * p->n_rows; i++)
        if (p->records[i].calls > 0) *records++ = p->records[i];
    return FASTGPT_OK;
}

fastgpt_status fastgpt_profile_events(const fastgpt_context *ctx, fastgpt_profile_event *events, int32_t capacity,
                                      int32_t *n_events) {
    if (!ctx || !n_events || capacity < 0 || (!events && capacity > 0)) return FASTGPT_ERR_ARGUMENT;
    const profile *p = &ctx->profile;
    int64_t n = p->n_events < p->n_kept ? p->n_events : p->n_kept;
    *n_events = (int32_t)n;
    if (n > capacity) return FASTGPT_ERR_CAPACITY;
    for (int64_t i = p->n_events - n; i < p->n_events; i++) *events++ = p->events[i % p->n_kept];
    return FASTGPT_OK;
}
