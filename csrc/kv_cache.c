/* kv_cache.c - see kv_cache.h.  Nothing here follows a pointer to the model after creation. */
#include "kv_cache.h"

#include <stdlib.h>
#include <string.h>

static size_t block_bytes(const fastgpt_kv_cache *kv) {
    return (size_t)kv->n_layer * 2 * (size_t)kv->n_ctx * (size_t)row_bytes(kv->type, kv->n_embd);
}

static size_t token_bytes(const fastgpt_kv_cache *kv) { return (size_t)kv->n_ctx * sizeof *kv->tokens; }

fastgpt_status fastgpt_kv_cache_create(const fastgpt_model *model, int32_t n_ctx, fastgpt_kv_cache **out) {
    return fastgpt_kv_cache_create_typed(model, n_ctx, FASTGPT_TYPE_F32, out);
}

/* An empty cache with the sizes of `shape` and memory of its own; NULL when there is none. */
static fastgpt_kv_cache *make(fastgpt_kv_cache shape) {
    fastgpt_kv_cache *kv = malloc(sizeof *kv);
    if (!kv) return NULL;
    *kv = shape;
    kv->n_past = 0;
    kv->block = os_alloc(block_bytes(kv));
    kv->tokens = os_alloc(token_bytes(kv));
    if (kv->block && kv->tokens) return kv;
    fastgpt_kv_cache_free(kv);
    return NULL;
}

fastgpt_status fastgpt_kv_cache_create_typed(const fastgpt_model *model, int32_t n_ctx, fastgpt_type type,
                                             fastgpt_kv_cache **out) {
    number_type known;
    if (!out) return FASTGPT_ERR_ARGUMENT;
    *out = NULL;
    if (!model || n_ctx < 0 || n_ctx > model->n_ctx) return FASTGPT_ERR_ARGUMENT;
    if (!number_type_of(type, &known) || known > TYPE_BF16) return FASTGPT_ERR_ARGUMENT;
    *out = make((fastgpt_kv_cache){.type = known,
                                   .n_layer = model->n_layer,
                                   .n_ctx = n_ctx ? n_ctx : model->n_ctx,
                                   .n_embd = model->n_embd,
                                   .model_id = model->id});
    return *out ? FASTGPT_OK : FASTGPT_ERR_MEMORY;
}

fastgpt_status fastgpt_kv_cache_copy(const fastgpt_kv_cache *kv, fastgpt_kv_cache **out) {
    if (!out) return FASTGPT_ERR_ARGUMENT;
    *out = NULL;
    if (!kv) return FASTGPT_ERR_ARGUMENT;
    fastgpt_kv_cache *copy = make(*kv);
    if (!copy) return FASTGPT_ERR_MEMORY;
    size_t n_rows = (size_t)kv_cache_row_bytes(kv, kv->n_past);
    for (int32_t i = 0; i < 2 * kv->n_layer; i++)
        memcpy(kv_cache_rows(copy, i / 2, i % 2, 0), kv_cache_rows(kv, i / 2, i % 2, 0), n_rows);
    memcpy(copy->tokens, kv->tokens, (size_t)kv->n_past * sizeof *kv->tokens);
    copy->n_past = kv->n_past;
    *out = copy;
    return FASTGPT_OK;
}

void fastgpt_kv_cache_free(fastgpt_kv_cache *kv) {
    if (!kv) return;
    os_free(kv->block);
    os_free(kv->tokens);
    free(kv);
}

int32_t fastgpt_kv_cache_n_ctx(const fastgpt_kv_cache *kv) { return kv->n_ctx; }
const int32_t *fastgpt_kv_cache_tokens(const fastgpt_kv_cache *kv) { return kv->tokens; }
int32_t fastgpt_kv_cache_n_past(const fastgpt_kv_cache *kv) { return kv->n_past; }
size_t fastgpt_kv_cache_sizeof(const fastgpt_kv_cache *kv) { return sizeof *kv + block_bytes(kv) + token_bytes(kv); }

/* The field may still count positions that a truncation, or a step that was cancelled, took back. */
int32_t fastgpt_kv_cache_n_deterministic(const fastgpt_kv_cache *kv) {
    return kv->n_deterministic < kv->n_past ? kv->n_deterministic : kv->n_past;
}

fastgpt_status fastgpt_kv_cache_truncate(fastgpt_kv_cache *kv, int32_t n_past) {
    if (!kv || n_past < 0 || n_past > kv->n_past) return FASTGPT_ERR_ARGUMENT;
    kv->n_past = n_past;
    return FASTGPT_OK;
}

void kv_cache_append(fastgpt_kv_cache *kv, const int32_t *tokens, int32_t n, bool deterministic) {
    memcpy(kv->tokens + kv->n_past, tokens, (size_t)n * sizeof *tokens);
    kv->n_deterministic = fastgpt_kv_cache_n_deterministic(kv);
    if (deterministic && kv->n_deterministic == kv->n_past) kv->n_deterministic += n;
    kv->n_past += n;
}

fastgpt_type fastgpt_kv_cache_type(const fastgpt_kv_cache *kv) {
    return (fastgpt_type)number_formats[kv->type].gguf_type;
}

static const void *rows_or_null(const fastgpt_kv_cache *kv, int32_t layer, int which) {
    return layer >= 0 && layer < kv->n_layer ? kv_cache_rows(kv, layer, which, 0) : NULL;
}

const void *fastgpt_kv_cache_keys(const fastgpt_kv_cache *kv, int32_t layer) { return rows_or_null(kv, layer, 0); }
const void *fastgpt_kv_cache_values(const fastgpt_kv_cache *kv, int32_t layer) { return rows_or_null(kv, layer, 1); }
