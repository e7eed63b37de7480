/* kv_cache.c - see kv_cache.h.  Nothing here follows a pointer to the model after creation. */
#include "kv_cache/kv_cache.h"

#include <stdlib.h>
#include <string.h>

#include "common/status.h"

static int64_t position_bytes(const fastgpt_kv_cache *kv) { return 2 * kv->n_layer * kv_cache_row_bytes(kv, 1); }

static size_t block_bytes(const fastgpt_kv_cache *kv) {
    return (size_t)(kv->n_ctx - kv->n_prefix) * (size_t)position_bytes(kv);
}

static size_t token_bytes(const fastgpt_kv_cache *kv) { return (size_t)kv->n_ctx * sizeof *kv->tokens; }

/* ---- Prefix and tail ---- */

/* A prefix of n_rows, of which the first n are claimed but not yet written, with one owner; NULL when there is no
 * memory. */
static kv_prefix *prefix_create(const fastgpt_kv_cache *kv, int32_t n, int32_t n_rows) {
    kv_prefix *prefix = malloc(sizeof *prefix);
    if (!prefix) return NULL;
    prefix->n_rows = n_rows;
    prefix->n_bytes = (size_t)n_rows * (size_t)position_bytes(kv);
    prefix->block = os_alloc(prefix->n_bytes);
    atomic_init(&prefix->n_claimed, n);
    atomic_init(&prefix->n_owners, 1);
    if (prefix->block) return prefix;
    free(prefix);
    return NULL;
}

static kv_prefix *prefix_share(kv_prefix *prefix) {
    if (prefix) atomic_fetch_add_explicit(&prefix->n_owners, 1, memory_order_relaxed);
    return prefix;
}

static void prefix_release(kv_prefix *prefix) {
    if (!prefix || atomic_fetch_sub_explicit(&prefix->n_owners, 1, memory_order_acq_rel) > 1) return;
    os_free(prefix->block);
    free(prefix);
}

void kv_cache_read(const fastgpt_kv_cache *kv, int32_t first, int32_t end, uint8_t *out, int64_t stride) {
    int32_t cut = kv->n_prefix < first ? first : kv->n_prefix > end ? end : kv->n_prefix;
    size_t n_shared = (size_t)kv_cache_row_bytes(kv, cut - first), n_own = (size_t)kv_cache_row_bytes(kv, end - cut);
    for (int32_t i = 0; i < N_KV_PARTS * kv->n_layer; i++, out += stride) {
        const int32_t layer = i / N_KV_PARTS;
        const kv_part part = (kv_part)(i % N_KV_PARTS);
        if (n_shared) memcpy(out, kv_cache_prefix_rows(kv, layer, part) + kv_cache_row_bytes(kv, first), n_shared);
        if (n_own) memcpy(out + n_shared, kv_cache_rows(kv, layer, part, cut), n_own);
    }
}

/* ---- Create and free ---- */

/* A cache with the sizes of `shape`, an empty tail, and the prefix of `shape`, which it now owns, too; NULL when there
 * is no memory. */
static fastgpt_kv_cache *cache_create(fastgpt_kv_cache shape) {
    fastgpt_kv_cache *kv = malloc(sizeof *kv);
    if (!kv) return NULL;
    *kv = shape;
    kv->prefix = prefix_share(shape.prefix);
    kv->block = os_alloc(block_bytes(kv));
    kv->tokens = os_alloc(token_bytes(kv));
    if (kv->block && kv->tokens) return kv;
    fastgpt_kv_cache_free(kv);
    return NULL;
}

fastgpt_status fastgpt_kv_cache_create(const fastgpt_model *model, int32_t n_ctx, fastgpt_kv_cache **out) {
    return fastgpt_kv_cache_create_typed(model, n_ctx, FASTGPT_TYPE_F32, out);
}

static fastgpt_status check_new(const fastgpt_model *model, int32_t n_ctx, fastgpt_type type, dtype *known,
                                fastgpt_error *error) {
    if (!model) return fail(error, FASTGPT_ERR_ARGUMENT, "model is NULL");
    if (!model_has_weights(model))
        return fail(error, FASTGPT_ERR_ARGUMENT, "the model was loaded with vocab_only, and has no weights");
    if (n_ctx < 0 || n_ctx > model->n_ctx)
        return fail(error, FASTGPT_ERR_ARGUMENT, "n_ctx is %d, not in [0, %d]", n_ctx, model->n_ctx);
    if (!dtype_of_gguf(type, known) || !is_kv_type(*known))
        return fail(error, FASTGPT_ERR_ARGUMENT, "type %d (%s) holds no KV cache; F32, F16, BF16 and Q8_0 do",
                    (int)type, fastgpt_type_name(type));
    if (!kv_cache_holds_heads(*known, model))
        return fail(error, FASTGPT_ERR_ARGUMENT,
                    "heads of %d values cannot be cached as Q8_0, whose blocks have 32 (and %d at most): choose F16",
                    model->n_embd / model->n_head, MAX_Q8_0_HEAD);
    return FASTGPT_OK;
}

fastgpt_status fastgpt_kv_cache_create_checked(const fastgpt_model *model, int32_t n_ctx, fastgpt_type type,
                                               fastgpt_kv_cache **out, fastgpt_error *error) {
    if (error) error->text[0] = 0;
    if (!out) return fail(error, FASTGPT_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    dtype known;
    fastgpt_status status = check_new(model, n_ctx, type, &known, error);
    if (status) return status;
    int32_t n_rows = n_ctx ? n_ctx : model->n_ctx;
    *out = cache_create((fastgpt_kv_cache){.type = known,
                                           .n_layer = model->n_layer,
                                           .n_ctx = n_rows,
                                           .n_embd = model->n_embd,
                                           .max_ctx = model->n_ctx,
                                           .model_id = model->id});
    return *out ? FASTGPT_OK : fail(error, FASTGPT_ERR_MEMORY, "no memory for a KV cache of %d positions", n_rows);
}

fastgpt_status fastgpt_kv_cache_create_typed(const fastgpt_model *model, int32_t n_ctx, fastgpt_type type,
                                             fastgpt_kv_cache **out) {
    return fastgpt_kv_cache_create_checked(model, n_ctx, type, out, NULL);
}

void fastgpt_kv_cache_free(fastgpt_kv_cache *kv) {
    if (!kv) return;
    prefix_release(kv->prefix);
    os_free(kv->block);
    os_free(kv->tokens);
    free(kv);
}

/* ---- Copy and fork ---- */

/* A copy of kv's first n_past positions with that prefix and n_ctx.  Positions after the prefix are copied to its tail.
 * NULL when there is no memory. */
static fastgpt_kv_cache *cache_create_like(const fastgpt_kv_cache *kv, kv_prefix *prefix, int32_t n_prefix,
                                           int32_t n_ctx, int32_t n_past) {
    fastgpt_kv_cache shape = *kv;
    shape.prefix = n_prefix ? prefix : NULL;
    shape.n_prefix = n_prefix;
    shape.n_ctx = n_ctx;
    shape.n_past = n_past;
    fastgpt_kv_cache *like = cache_create(shape);
    if (!like) return NULL;
    kv_cache_read(kv, n_prefix, n_past, like->block, kv_cache_row_bytes(like, n_ctx - n_prefix));
    memcpy(like->tokens, kv->tokens, (size_t)n_past * sizeof *kv->tokens);
    return like;
}

fastgpt_status fastgpt_kv_cache_copy(const fastgpt_kv_cache *kv, fastgpt_kv_cache **out) {
    if (!out) return FASTGPT_ERR_ARGUMENT;
    *out = NULL;
    if (!kv) return FASTGPT_ERR_ARGUMENT;
    *out = cache_create_like(kv, kv->prefix, kv->n_prefix, kv->n_ctx, kv->n_past);
    return *out ? FASTGPT_OK : FASTGPT_ERR_MEMORY;
}

/* Replaces the contents of kv with those of `other`, which is freed with what kv held before. */
static void replace_cache(fastgpt_kv_cache *kv, fastgpt_kv_cache *other) {
    fastgpt_kv_cache old = *kv;
    *kv = *other;
    *other = old;
    fastgpt_kv_cache_free(other);
}

/* Claims rows [kv->n_prefix, n) of kv's prefix for kv to write; false where they do not exist or are claimed. */
static bool claim_rows(const fastgpt_kv_cache *kv, int32_t n) {
    int n_claimed = kv->n_prefix;
    return kv->prefix && n <= kv->prefix->n_rows &&
           atomic_compare_exchange_strong_explicit(&kv->prefix->n_claimed, &n_claimed, n, memory_order_relaxed,
                                                   memory_order_relaxed);
}

/* Rows of a new prefix for n positions of kv.  A caller that extends a prefix once tends to do so again, so capacity
 * doubles. */
static int32_t prefix_capacity(const fastgpt_kv_cache *kv, int32_t n) {
    if (!kv->n_prefix) return n;
    return n < kv->max_ctx / 2 ? 2 * n : kv->max_ctx;
}

/* A prefix with the first n > n_prefix positions of kv, owned by the caller: kv's own, if its next rows can be claimed,
 * otherwise a new one; NULL when there is no memory. */
static kv_prefix *extend_prefix(const fastgpt_kv_cache *kv, int32_t n) {
    bool in_place = claim_rows(kv, n);
    int32_t first = in_place ? kv->n_prefix : 0;
    kv_prefix *prefix = in_place ? prefix_share(kv->prefix) : prefix_create(kv, n, prefix_capacity(kv, n));
    if (!prefix) return NULL;
    kv_cache_read(kv, first, n, prefix->block + kv_cache_row_bytes(kv, first), kv_cache_row_bytes(kv, prefix->n_rows));
    return prefix;
}

/* Moves the first n positions of kv into a prefix.  False when there is no memory; then kv is as it was. */
static bool move_to_prefix(fastgpt_kv_cache *kv, int32_t n) {
    kv_prefix *prefix = extend_prefix(kv, n);
    if (!prefix) return false;
    fastgpt_kv_cache *moved = cache_create_like(kv, prefix, n, kv->n_ctx, kv->n_past);
    prefix_release(prefix); /* `moved` owns it now */
    if (!moved) return false;
    replace_cache(kv, moved);
    return true;
}

fastgpt_status fastgpt_kv_cache_fork(fastgpt_kv_cache *kv, int32_t n_prefix, int32_t n_ctx, fastgpt_kv_cache **out) {
    if (!out) return FASTGPT_ERR_ARGUMENT;
    *out = NULL;
    if (!kv || n_prefix < 0 || n_prefix > kv->n_past) return FASTGPT_ERR_ARGUMENT;
    if (n_ctx == 0) n_ctx = kv->n_ctx;
    if (n_ctx < n_prefix || n_ctx < 1 || n_ctx > kv->max_ctx) return FASTGPT_ERR_ARGUMENT;
    if (n_prefix > kv->n_prefix && !move_to_prefix(kv, n_prefix)) return FASTGPT_ERR_MEMORY;
    *out = cache_create_like(kv, kv->prefix, n_prefix, n_ctx, n_prefix);
    return *out ? FASTGPT_OK : FASTGPT_ERR_MEMORY;
}

/* ---- Accessors and positions ---- */

int32_t fastgpt_kv_cache_n_ctx(const fastgpt_kv_cache *kv) { return kv->n_ctx; }
const int32_t *fastgpt_kv_cache_tokens(const fastgpt_kv_cache *kv) { return kv->tokens; }
int32_t fastgpt_kv_cache_n_past(const fastgpt_kv_cache *kv) { return kv->n_past; }
size_t fastgpt_kv_cache_sizeof(const fastgpt_kv_cache *kv) { return sizeof *kv + block_bytes(kv) + token_bytes(kv); }

/* The field may still count positions that were truncated, or rolled back when a step was cancelled. */
int32_t fastgpt_kv_cache_n_deterministic(const fastgpt_kv_cache *kv) {
    return kv->n_deterministic < kv->n_past ? kv->n_deterministic : kv->n_past;
}

/* The fields may be about positions that were truncated since. */
int32_t fastgpt_kv_cache_start_layer(const fastgpt_kv_cache *kv) {
    return kv->n_past > kv->start_past ? kv->start_layer : 0;
}

void kv_cache_skip_layers(fastgpt_kv_cache *kv, int32_t n, int32_t start_layer) {
    const int32_t first = kv->n_past - n;
    if (first <= kv->start_past || kv->start_layer == 0) {
        kv->start_past = first;
        kv->start_layer = 0;
    }
    if (start_layer > kv->start_layer) kv->start_layer = start_layer;
}

fastgpt_status fastgpt_kv_cache_truncate(fastgpt_kv_cache *kv, int32_t n_past) {
    if (!kv || n_past < 0 || n_past > kv->n_past) return FASTGPT_ERR_ARGUMENT;
    if (n_past < kv->n_prefix) {
        fastgpt_kv_cache *shorter = cache_create_like(kv, kv->prefix, n_past, kv->n_ctx, n_past);
        if (!shorter) return FASTGPT_ERR_MEMORY;
        replace_cache(kv, shorter);
    }
    kv->n_past = n_past;
    return FASTGPT_OK;
}

void kv_cache_store(const fastgpt_kv_cache *kv, const kernels *k, int32_t layer, kv_part part, int32_t i,
                    const float *row) {
    k->from_f32[kv->type](kv_cache_rows(kv, layer, part, kv->n_past + i), row, kv->n_embd);
}

void kv_cache_append(fastgpt_kv_cache *kv, const int32_t *tokens, int32_t n, bool deterministic) {
    memcpy(kv->tokens + kv->n_past, tokens, (size_t)n * sizeof *tokens);
    kv->n_deterministic = fastgpt_kv_cache_n_deterministic(kv);
    if (deterministic && kv->n_deterministic == kv->n_past) kv->n_deterministic += n;
    kv->n_past += n;
}

fastgpt_type fastgpt_kv_cache_type(const fastgpt_kv_cache *kv) { return (fastgpt_type)dtype_infos[kv->type].gguf_type; }

static const void *rows_or_null(const fastgpt_kv_cache *kv, int32_t layer, kv_part part) {
    return layer >= 0 && layer < kv->n_layer ? kv_cache_rows(kv, layer, part, kv->n_prefix) : NULL;
}

const void *fastgpt_kv_cache_keys(const fastgpt_kv_cache *kv, int32_t layer) {
    return rows_or_null(kv, layer, KV_KEYS);
}
const void *fastgpt_kv_cache_values(const fastgpt_kv_cache *kv, int32_t layer) {
    return rows_or_null(kv, layer, KV_VALUES);
}

static const void *prefix_rows_or_null(const fastgpt_kv_cache *kv, int32_t layer, kv_part part) {
    return kv->prefix && layer >= 0 && layer < kv->n_layer ? kv_cache_prefix_rows(kv, layer, part) : NULL;
}

const void *fastgpt_kv_cache_prefix_keys(const fastgpt_kv_cache *kv, int32_t layer) {
    return prefix_rows_or_null(kv, layer, KV_KEYS);
}

const void *fastgpt_kv_cache_prefix_values(const fastgpt_kv_cache *kv, int32_t layer) {
    return prefix_rows_or_null(kv, layer, KV_VALUES);
}

int32_t fastgpt_kv_cache_n_prefix(const fastgpt_kv_cache *kv) { return kv->n_prefix; }

size_t fastgpt_kv_cache_prefix_sizeof(const fastgpt_kv_cache *kv) {
    return kv->prefix ? sizeof *kv->prefix + kv->prefix->n_bytes : 0;
}
