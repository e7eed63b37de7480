/* test_profile.c - the laws of a profile: laps add up to the step's time, events nest, and nothing else changes. */
#include "support/session.h"

enum { N_TOKENS = 40, N_BATCH = 16, MAX_EVENTS = 4096, MAX_RECORDS = 256 };

static const model_shape shape = {
    .n_vocab = 211, .n_ctx = 64, .n_embd = 64, .n_head = 4, .n_layer = 3, .n_ff = 160, .type = FILE_F32};

static uint64_t seed = 5;
static fastgpt_model *model;
static int32_t tokens[N_TOKENS];
static fastgpt_profile_record records[MAX_RECORDS];
static fastgpt_profile_event events[MAX_EVENTS];

static fastgpt_sampler *new_sampler(void) {
    fastgpt_sampler_params params = {.struct_size = sizeof params};
    fastgpt_sampler *sampler;
    if (!CHECK(fastgpt_sampler_create((int32_t)shape.n_vocab, &params, &sampler) == FASTGPT_OK)) abort();
    return sampler;
}

/* A prefill of three slices and three decodes, each with its sample; writes the four rows of logits. */
static void run_steps(fastgpt_context *ctx, float *logits) {
    fastgpt_kv_cache *kv = new_cache(model, 0);
    fastgpt_sampler *sampler = new_sampler();
    int32_t token = 0;
    for (int i = 0; i < 4; i++, logits += shape.n_vocab) {
        fastgpt_status status =
            i == 0 ? fastgpt_prefill(ctx, kv, tokens, N_TOKENS, logits) : fastgpt_decode(ctx, kv, token, logits);
        CHECK(status == FASTGPT_OK);
        CHECK(fastgpt_profile_sample(ctx, sampler, logits, &token) == FASTGPT_OK);
    }
    fastgpt_sampler_free(sampler);
    fastgpt_kv_cache_free(kv);
}

static int32_t get_records(const fastgpt_context *ctx) {
    int32_t n = -1;
    CHECK(fastgpt_profile_records(ctx, records, MAX_RECORDS, &n) == FASTGPT_OK);
    return n;
}

static int32_t get_events(const fastgpt_context *ctx) {
    int32_t n = -1;
    CHECK(fastgpt_profile_events(ctx, events, MAX_EVENTS, &n) == FASTGPT_OK);
    return n;
}

static fastgpt_profile_summary get_summary(const fastgpt_context *ctx) {
    fastgpt_profile_summary summary;
    CHECK(fastgpt_profile_summarize(ctx, &summary) == FASTGPT_OK);
    return summary;
}

/* ---- Laws of one run ---- */

static void check_phase(const fastgpt_profile_phase *phase, int32_t which, int32_t n_records) {
    int64_t ns = 0;
    for (int32_t i = 0; i < n_records; i++) {
        const fastgpt_profile_record *r = &records[i];
        bool in_layer = r->op >= FASTGPT_OP_LN_1 && r->op <= FASTGPT_OP_PROJ;
        if (r->phase != which) continue;
        CHECK(in_layer ? r->layer >= 0 && r->layer < (int32_t)shape.n_layer : r->layer == -1);
        CHECK(r->ns > 0 && (r->bytes > 0 || r->op == FASTGPT_OP_OTHER));
        CHECK(r->best_ns > 0 && r->best_ns * r->calls <= r->ns && (r->calls > 1 || r->best_ns == r->ns));
        if (r->op != FASTGPT_OP_SAMPLE) ns += r->ns;
    }
    CHECK_FOR(ns == phase->ns, "phase %d: laps %lld ns, steps %lld", which, (long long)ns, (long long)phase->ns);
}

/* Every slice does every op of every layer once; only the last of the prefill has logits. */
static void check_calls(int32_t n_records) {
    int n_calls[2][FASTGPT_OP_STEP + 1] = {0};
    for (int32_t i = 0; i < n_records; i++) n_calls[records[i].phase][records[i].op] += (int)records[i].calls;
    for (int op = FASTGPT_OP_EMBED; op <= FASTGPT_OP_SAMPLE; op++) {
        bool in_layer = op >= FASTGPT_OP_LN_1 && op <= FASTGPT_OP_PROJ;
        int n_slices = in_layer ? 3 * (int)shape.n_layer : 3;
        CHECK_FOR(n_calls[1][op] == n_slices, "decode, %s: %d", fastgpt_op_name((fastgpt_op)op), n_calls[1][op]);
        CHECK_FOR(n_calls[0][op] == (op >= FASTGPT_OP_LN_F ? 1 : n_slices), "prefill, %s: %d",
                  fastgpt_op_name((fastgpt_op)op), n_calls[0][op]);
    }
}

static bool inside(const fastgpt_profile_event *e, const fastgpt_profile_event *around) {
    return e->start_ns >= around->start_ns && e->end_ns <= around->end_ns;
}

/* The event of thread 0 that the event lies in: its own op's, its layer or its step; NULL for a sample or a step. */
static const fastgpt_profile_event *parent_of(const fastgpt_profile_event *e, int32_t n_events) {
    int32_t op = e->thread > 0                                ? e->op
                 : e->op != FASTGPT_OP_LAYER && e->layer >= 0 ? FASTGPT_OP_LAYER
                                                              : FASTGPT_OP_STEP;
    if (e->thread == 0 && (e->op == FASTGPT_OP_STEP || e->op == FASTGPT_OP_SAMPLE)) return NULL;
    for (int32_t i = 0; i < n_events; i++) {
        const fastgpt_profile_event *p = &events[i];
        int32_t layer = op == FASTGPT_OP_STEP ? -1 : e->layer;
        if (p->thread == 0 && p->op == op && p->step == e->step && p->layer == layer && inside(e, p)) return p;
    }
    CHECK_FOR(false, "event %s, layer %d, thread %d has nothing around it", fastgpt_op_name((fastgpt_op)e->op),
              e->layer, e->thread);
    return NULL;
}

static void check_events(int32_t n_events, int32_t n_threads, const fastgpt_profile_summary *sum) {
    int64_t step_ns = 0, op_ns = 0, last_end = 0;
    for (int32_t i = 0; i < n_events; i++) {
        const fastgpt_profile_event *e = &events[i];
        CHECK(e->start_ns > 0 && e->start_ns <= e->end_ns && e->thread >= 0 && e->thread < n_threads);
        CHECK(e->step >= 0 && e->step < 4 && e->phase == (e->step > 0) && e->n_tokens == (e->step > 0 ? 1 : N_TOKENS));
        parent_of(e, n_events);
        if (e->thread > 0 || e->op == FASTGPT_OP_LAYER) continue;
        if (e->op == FASTGPT_OP_STEP) step_ns += e->end_ns - e->start_ns;
        else if (e->op != FASTGPT_OP_SAMPLE) op_ns += e->end_ns - e->start_ns;
        if (e->op != FASTGPT_OP_STEP) CHECK(e->start_ns >= last_end);
        last_end = e->end_ns;
    }
    CHECK(step_ns == op_ns && step_ns == sum->prefill.ns + sum->decode.ns);
}

static void test_laws(int32_t n_threads) {
    fastgpt_pool *pool = n_threads > 1 ? new_pool(n_threads) : NULL;
    fastgpt_context *ctx = new_context(model, pool, N_BATCH);
    float *plain = new_floats(4 * (int64_t)shape.n_vocab), *profiled = new_floats(4 * (int64_t)shape.n_vocab);
    run_steps(ctx, plain);
    CHECK(get_records(ctx) == 0 && get_events(ctx) == 0 && get_summary(ctx).decode.n_steps == 0);

    size_t size = fastgpt_context_sizeof(ctx);
    CHECK(fastgpt_profile_start(ctx, MAX_EVENTS) == FASTGPT_OK);
    CHECK(fastgpt_context_sizeof(ctx) > size + MAX_EVENTS * sizeof *events);
    run_steps(ctx, profiled);
    fastgpt_profile_stop(ctx);
    CHECK(same_floats(plain, profiled, 4 * (int64_t)shape.n_vocab));
    fastgpt_profile_summary sum = get_summary(ctx);
    CHECK(sum.prefill.n_steps == 1 && sum.prefill.n_tokens == N_TOKENS);
    CHECK(sum.decode.n_steps == 3 && sum.decode.n_tokens == 3 && sum.n_events_lost == 0);
    int32_t n = get_records(ctx);
    check_phase(&sum.prefill, FASTGPT_PHASE_PREFILL, n);
    check_phase(&sum.decode, FASTGPT_PHASE_DECODE, n);
    check_calls(n);
    int32_t n_events = get_events(ctx);
    check_events(n_events, n_threads, &sum);

    run_steps(ctx, plain);
    CHECK(get_records(ctx) == n && get_events(ctx) == n_events);
    CHECK(get_summary(ctx).prefill.ns == sum.prefill.ns);
    free(plain);
    free(profiled);
    fastgpt_context_free(ctx);
    fastgpt_pool_free(pool);
}

/* ---- Workers, the ring, batches, cancelling ---- */

/* With many units and two threads, the second one runs some of them sooner or later, within the time of their op. */
static void test_workers_are_seen(void) {
    fastgpt_pool *pool = new_pool(2);
    fastgpt_context *ctx = new_context(model, pool, 0);
    float *logits = new_floats(4 * (int64_t)shape.n_vocab);
    bool seen = false;
    for (int i = 0; i < 1000 && !seen; i++) {
        CHECK(fastgpt_profile_start(ctx, MAX_EVENTS) == FASTGPT_OK);
        run_steps(ctx, logits);
        int32_t n = get_events(ctx);
        for (int32_t j = 0; j < n; j++) seen |= events[j].thread == 1 && parent_of(&events[j], n);
    }
    CHECK(seen);
    free(logits);
    fastgpt_context_free(ctx);
    fastgpt_pool_free(pool);
}

/* A full ring keeps the newest events and counts the others. */
static void test_overflow_is_counted(void) {
    fastgpt_context *ctx = new_context(model, NULL, 0);
    float *logits = new_floats(4 * (int64_t)shape.n_vocab);
    CHECK(fastgpt_profile_start(ctx, MAX_EVENTS) == FASTGPT_OK);
    run_steps(ctx, logits);
    int32_t n_all = get_events(ctx);
    fastgpt_profile_event last[5];
    memcpy(last, events + n_all - 5, sizeof last);
    CHECK(fastgpt_profile_start(ctx, 5) == FASTGPT_OK);
    run_steps(ctx, logits);
    CHECK(get_events(ctx) == 5 && get_summary(ctx).n_events_lost == n_all - 5);
    for (int i = 0; i < 5; i++) CHECK(events[i].op == last[i].op && events[i].step == last[i].step);
    CHECK(events[4].op == FASTGPT_OP_SAMPLE && events[3].op == FASTGPT_OP_STEP);

    CHECK(fastgpt_profile_start(ctx, 0) == FASTGPT_OK);
    run_steps(ctx, logits);
    CHECK(get_events(ctx) == 0 && get_summary(ctx).n_events_lost == 0 && get_records(ctx) > 0);
    free(logits);
    fastgpt_context_free(ctx);
}

/* Several sequences with one token each are a decode, one with two tokens among them makes a prefill. */
static void test_phases(void) {
    fastgpt_context *ctx = new_context(model, NULL, 0);
    fastgpt_span spans[3];
    for (int i = 0; i < 3; i++) spans[i] = (fastgpt_span){.kv = new_cache(model, 0), .tokens = tokens, .n_tokens = 1};
    CHECK(fastgpt_profile_start(ctx, 0) == FASTGPT_OK);
    CHECK(fastgpt_step(ctx, spans, 3, NULL, NULL) == FASTGPT_OK);
    spans[1].n_tokens = 2;
    CHECK(fastgpt_step(ctx, spans, 3, NULL, NULL) == FASTGPT_OK);
    fastgpt_profile_summary sum = get_summary(ctx);
    CHECK(sum.decode.n_steps == 1 && sum.decode.n_tokens == 3 && sum.prefill.n_steps == 1 && sum.prefill.n_tokens == 4);
    for (int i = 0; i < 3; i++) fastgpt_kv_cache_free(spans[i].kv);
    fastgpt_context_free(ctx);
}

/* ---- Sampling for a batch ---- */

enum { N_ROWS = 9 };

static bool is_left_out(int row) { return row % 4 == 3; }

/* Samples N_ROWS rows twice, with the profile of ctx or without one. */
static void sample_rows(fastgpt_context *ctx, fastgpt_pool *pool, const float *logits, int32_t *drawn) {
    fastgpt_sampler *samplers[N_ROWS], *given[N_ROWS];
    for (int i = 0; i < N_ROWS; i++) samplers[i] = new_sampler(), given[i] = is_left_out(i) ? NULL : samplers[i];
    for (int i = 0; i < 2 * N_ROWS; i++) drawn[i] = -7;
    for (int i = 0; i < 2; i++) {
        int32_t *rows = drawn + i * N_ROWS;
        fastgpt_status status = ctx ? fastgpt_profile_sample_rows(ctx, given, N_ROWS, logits, rows)
                                    : fastgpt_sample_rows(pool, given, N_ROWS, (int32_t)shape.n_vocab, logits, rows);
        CHECK(status == FASTGPT_OK);
    }
    for (int i = 0; i < N_ROWS; i++) fastgpt_sampler_free(samplers[i]);
}

/* Sampling a batch is one call of op sample, in the phase and step before it; the tokens are those without a profile,
 * and the events of workers lie within its time. */
static void test_batch_sampling_is_one_call(int32_t n_threads) {
    fastgpt_pool *pool = new_pool(n_threads);
    fastgpt_context *ctx = new_context(model, pool, 0);
    fastgpt_kv_cache *kv = new_cache(model, 0);
    float *logits = new_floats(N_ROWS * (int64_t)shape.n_vocab);
    int32_t plain[2 * N_ROWS], profiled[2 * N_ROWS];
    random_fill(&seed, logits, N_ROWS * (int)shape.n_vocab);
    sample_rows(NULL, pool, logits, plain);
    sample_rows(ctx, pool, logits, profiled);
    CHECK(memcmp(plain, profiled, sizeof plain) == 0 && get_records(ctx) == 0);

    CHECK(fastgpt_profile_start(ctx, MAX_EVENTS) == FASTGPT_OK);
    CHECK(fastgpt_decode(ctx, kv, 1, NULL) == FASTGPT_OK);
    sample_rows(ctx, pool, logits, profiled);
    CHECK(memcmp(plain, profiled, sizeof plain) == 0);
    int32_t n = get_records(ctx), n_events = get_events(ctx), n_draws = 0;
    const fastgpt_profile_record *r = &records[n - 2];
    CHECK(r->op == FASTGPT_OP_SAMPLE && r->phase == FASTGPT_PHASE_DECODE && r->layer == -1 && r->calls == 2);
    CHECK(r->bytes == 2 * 7 * 4 * (int64_t)shape.n_vocab && r->operations == 0);
    fastgpt_profile_summary sum = get_summary(ctx);
    check_phase(&sum.decode, FASTGPT_PHASE_DECODE, n);
    for (int32_t i = 0; i < n_events; i++) {
        const fastgpt_profile_event *e = &events[i];
        if (e->op != FASTGPT_OP_SAMPLE) continue;
        CHECK(e->step == 0 && e->phase == FASTGPT_PHASE_DECODE && (e->thread == 0 || parent_of(e, n_events)));
        n_draws += e->thread == 0;
    }
    CHECK(n_draws == 2);
    free(logits);
    fastgpt_kv_cache_free(kv);
    fastgpt_context_free(ctx);
    fastgpt_pool_free(pool);
}

static void test_cancelled_step_counts_what_it_did(void) {
    fastgpt_context *ctx = new_context(model, NULL, 0);
    fastgpt_kv_cache *kv = new_cache(model, 0);
    CHECK(fastgpt_profile_start(ctx, MAX_EVENTS) == FASTGPT_OK);
    fastgpt_cancel(ctx);
    CHECK(fastgpt_decode(ctx, kv, 0, NULL) == FASTGPT_ERR_CANCELLED);
    int32_t n = get_records(ctx);
    CHECK(n == 2 && records[0].op == FASTGPT_OP_EMBED && records[1].op == FASTGPT_OP_OTHER);
    fastgpt_profile_summary sum = get_summary(ctx);
    check_phase(&sum.decode, FASTGPT_PHASE_DECODE, n);
    fastgpt_kv_cache_free(kv);
    fastgpt_context_free(ctx);
}

/* ---- Errors ---- */

static void test_errors(void) {
    fastgpt_context *ctx = new_context(model, NULL, 0);
    fastgpt_sampler *sampler = new_sampler();
    float *logits = new_floats(4 * (int64_t)shape.n_vocab);
    fastgpt_profile_summary sum;
    int32_t n = 0, token = -7;
    CHECK(fastgpt_profile_start(NULL, 0) == FASTGPT_ERR_ARGUMENT &&
          fastgpt_profile_start(ctx, -1) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_profile_summarize(NULL, &sum) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_profile_summarize(ctx, NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_profile_sample(NULL, sampler, logits, &token) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_profile_start(ctx, 100) == FASTGPT_OK);
    CHECK(fastgpt_profile_sample(ctx, sampler, logits, &token) == FASTGPT_ERR_LOGITS && token == -7);
    CHECK(fastgpt_profile_sample_rows(NULL, &sampler, 1, logits, &token) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_profile_sample_rows(ctx, NULL, 1, logits, &token) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_profile_sample_rows(ctx, &sampler, 1, NULL, &token) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_profile_sample_rows(ctx, &sampler, 1, logits, NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_profile_sample_rows(ctx, &sampler, -1, logits, &token) == FASTGPT_ERR_ARGUMENT && token == -7);
    run_steps(ctx, logits);
    fastgpt_profile_stop(NULL);

    CHECK(fastgpt_profile_records(NULL, records, 9, &n) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_profile_records(ctx, NULL, 9, &n) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_profile_records(ctx, records, -1, &n) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_profile_records(ctx, records, 9, NULL) == FASTGPT_ERR_ARGUMENT);
    int32_t n_records = get_records(ctx);
    CHECK(fastgpt_profile_records(ctx, NULL, 0, &n) == FASTGPT_ERR_CAPACITY && n == n_records);
    CHECK(fastgpt_profile_records(ctx, records, n - 1, &n) == FASTGPT_ERR_CAPACITY && n == n_records);
    CHECK(fastgpt_profile_records(ctx, records, n, &n) == FASTGPT_OK && n == n_records);

    CHECK(fastgpt_profile_events(NULL, events, 9, &n) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_profile_events(ctx, NULL, 9, &n) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_profile_events(ctx, events, -1, &n) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_profile_events(ctx, events, 9, NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_profile_events(ctx, NULL, 0, &n) == FASTGPT_ERR_CAPACITY && n == 100);
    CHECK(fastgpt_profile_events(ctx, events, 99, &n) == FASTGPT_ERR_CAPACITY && n == 100);
    free(logits);
    fastgpt_sampler_free(sampler);
    fastgpt_context_free(ctx);
}

static void test_names(void) {
    CHECK(strcmp(fastgpt_op_name(FASTGPT_OP_EMBED), "embed") == 0);
    CHECK(strcmp(fastgpt_op_name(FASTGPT_OP_ATTN_PROJ), "attn_proj") == 0);
    CHECK(strcmp(fastgpt_op_name(FASTGPT_OP_SAMPLE), "sample") == 0);
    CHECK(strcmp(fastgpt_op_name(FASTGPT_OP_STEP), "step") == 0);
    CHECK(strcmp(fastgpt_op_name((fastgpt_op)15), "unknown") == 0);
    CHECK(strcmp(fastgpt_op_name((fastgpt_op)-1), "unknown") == 0);
}

int main(void) {
    model = load_shape(shape, false);
    random_tokens(&seed, tokens, N_TOKENS, (int32_t)shape.n_vocab);
    for (int32_t n_threads = 1; n_threads <= 3; n_threads++) test_laws(n_threads);
    test_workers_are_seen();
    test_overflow_is_counted();
    test_phases();
    for (int32_t n_threads = 1; n_threads <= 3; n_threads++) test_batch_sampling_is_one_call(n_threads);
    test_cancelled_step_counts_what_it_did();
    test_errors();
    test_names();
    fastgpt_model_free(model);
    return check_report();
}
