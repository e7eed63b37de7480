/* context.c - see context.h. */
#include "transformer/context.h"

#include <stdlib.h>

#include "common/arithmetic.h"
#include "common/thread_pool.h"
#include "matmul/blas.h"

enum { DEFAULT_N_BATCH = 512, MAX_N_BATCH = 65536, N_ROW_ARRAYS = 3 };

/* The next n bytes of the block, 64-byte aligned; NULL while there is no block and bytes are only counted. */
static void *carve_bytes(fastgpt_context *ctx, int64_t n) {
    void *at = ctx->block ? ctx->block + ctx->n_bytes : NULL;
    ctx->n_bytes += (size_t)round_up(n, 64);
    return at;
}

static float *carve(fastgpt_context *ctx, int64_t n) { return carve_bytes(ctx, n * (int64_t)sizeof(float)); }

/* block + n, without arithmetic on NULL. */
static float *offset_of(float *block, int64_t n) { return block ? block + n : NULL; }

/* Assigns all arrays; without a block it only counts n_bytes. */
static void assign_arrays(fastgpt_context *ctx) {
    const fastgpt_model *m = ctx->model;
    engine *e = &ctx->engine;
    int64_t n_threads = pool_n_threads(e->pool), rows = (int64_t)ctx->n_batch * m->n_embd;
    int64_t n_in = larger(m->n_embd, m->n_ff), head_width = m->n_embd / m->n_head;
    ctx->n_bytes = 0;
    ctx->x = carve(ctx, rows);
    ctx->normed = carve(ctx, rows);
    ctx->ff = carve(ctx, larger(ctx->n_batch * conflict_free_stride(m->n_ff), 4 * rows));
    ctx->q = ctx->ff; /* attention has ended when the feed-forward part begins, so they share memory */
    ctx->k = offset_of(ctx->ff, rows);
    ctx->v = offset_of(ctx->ff, 2 * rows);
    ctx->heads = offset_of(ctx->ff, 3 * rows);
    ctx->scores = carve(ctx, attention_n_scores(n_threads, m->n_ctx, m->n_head, head_width));
    ctx->gathered = carve(ctx, ctx->n_batch * n_in);
    ctx->changed = carve(ctx, rows);
    e->activations = carve_bytes(ctx, linear_activation_bytes(ctx->n_batch, n_in));
    e->scratch_bytes = larger(linear_scratch_bytes(n_in), attention_scratch_bytes(m->n_ctx, m->n_head, head_width));
    e->scratch = carve_bytes(ctx, n_threads * e->scratch_bytes);
}

static fastgpt_status allocate_block(fastgpt_context *ctx) {
    int n_threads = pool_n_threads(ctx->engine.pool);
    fastgpt_status status = blas_reserve(n_threads);
    if (status) return status;
    ctx->n_reserved = n_threads;
    ctx->block = os_alloc(ctx->n_bytes);
    ctx->spans = calloc((size_t)ctx->n_batch, sizeof *ctx->spans);
    ctx->counts = calloc(N_ROW_ARRAYS * (size_t)ctx->n_batch, sizeof *ctx->counts);
    if (ctx->counts) {
        ctx->first_rows = ctx->counts + ctx->n_batch;
        ctx->row_index = ctx->first_rows + ctx->n_batch;
    }
    return ctx->block && ctx->spans && ctx->counts ? FASTGPT_OK : FASTGPT_ERR_MEMORY;
}

fastgpt_status fastgpt_context_create(const fastgpt_model *model, fastgpt_pool *pool, int32_t n_batch,
                                      fastgpt_context **out) {
    if (!out) return FASTGPT_ERR_ARGUMENT;
    *out = NULL;
    if (!model || !model_has_weights(model) || n_batch < 0 || n_batch > MAX_N_BATCH) return FASTGPT_ERR_ARGUMENT;
    fastgpt_context *ctx = calloc(1, sizeof *ctx);
    if (!ctx) return FASTGPT_ERR_MEMORY;
    ctx->model = model;
    ctx->engine = (engine){.pool = pool, .kernels = kernels_chosen()};
    ctx->n_batch = n_batch ? n_batch : DEFAULT_N_BATCH;
    assign_arrays(ctx);
    fastgpt_status status = allocate_block(ctx);
    if (status) {
        fastgpt_context_free(ctx);
        return status;
    }
    assign_arrays(ctx);
    *out = ctx;
    return FASTGPT_OK;
}

void fastgpt_context_free(fastgpt_context *ctx) {
    if (!ctx) return;
    profile_free(&ctx->profile);
    blas_release(ctx->n_reserved);
    os_free(ctx->block);
    free(ctx->spans);
    free(ctx->counts);
    free(ctx);
}

size_t fastgpt_context_sizeof(const fastgpt_context *ctx) {
    size_t spans = (size_t)ctx->n_batch * (sizeof *ctx->spans + N_ROW_ARRAYS * sizeof *ctx->counts);
    return sizeof *ctx + ctx->n_bytes + spans + profile_bytes(&ctx->profile);
}

void fastgpt_cancel(fastgpt_context *ctx) {
    if (ctx) atomic_store(&ctx->cancelled, true);
}
