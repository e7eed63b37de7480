/* kv_cache.c - see kv_cache.h.  Nothing here follows a pointer to the model after creation. */
#include "kv_cache.h"

#include <stdlib.h>

static size_t block_bytes(const fastgpt_kv_cache *kv) {
    return (size_t)kv->n_layer * 2 * (size_t)kv->n_ctx * (size_t)row_bytes(kv->type, kv->n_embd);
}

fastgpt_status fastgpt_kv_cache_create(const fastgpt_model *model, int32_t n_ctx, fastgpt_kv_cache **out) {
    return fastgpt_kv_cache_create_typed(model, n_ctx, FASTGPT_TYPE_F32, out);
}

fastgpt_status fastgpt_kv_cache_create_typed(const fastgpt_model *model, int32_t n_ctx, fastgpt_type type,
                                             fastgpt_kv_cache **out) {
    number_type known;
    if (!out) return FASTGPT_ERR_ARGUMENT;
    *out = NULL;
    if (!model || n_ctx < 0 || n_ctx > model->n_ctx) return FASTGPT_ERR_ARGUMENT;
    if (!number_type_of(type, &known) || known > TYPE_BF16) return FASTGPT_ERR_ARGUMENT;
    fastgpt_kv_cache *kv = calloc(1, sizeof *kv);
    if (!kv) return FASTGPT_ERR_MEMORY;
    kv->n_layer = model->n_layer;
    kv->n_ctx = n_ctx ? n_ctx : model->n_ctx;
    kv->n_embd = model->n_embd;
    kv->type = known;
    kv->model_id = model->id;
    kv->block = os_alloc(block_bytes(kv));
    if (!kv->block) {
        fastgpt_kv_cache_free(kv);
        return FASTGPT_ERR_MEMORY;
    }
    *out = kv;
    return FASTGPT_OK;
}

void fastgpt_kv_cache_free(fastgpt_kv_cache *kv) {
    if (!kv) return;
    os_free(kv->block);
    free(kv);
}

int32_t fastgpt_kv_cache_n_ctx(const fastgpt_kv_cache *kv) { return kv->n_ctx; }
int32_t fastgpt_kv_cache_n_past(const fastgpt_kv_cache *kv) { return kv->n_past; }
size_t fastgpt_kv_cache_sizeof(const fastgpt_kv_cache *kv) { return sizeof *kv + block_bytes(kv); }

fastgpt_status fastgpt_kv_cache_truncate(fastgpt_kv_cache *kv, int32_t n_past) {
    if (!kv || n_past < 0 || n_past > kv->n_past) return FASTGPT_ERR_ARGUMENT;
    kv->n_past = n_past;
    return FASTGPT_OK;
}

fastgpt_type fastgpt_kv_cache_type(const fastgpt_kv_cache *kv) {
    return (fastgpt_type)number_formats[kv->type].gguf_type;
}

static const void *rows_or_null(const fastgpt_kv_cache *kv, int32_t layer, int which) {
    return layer >= 0 && layer < kv->n_layer ? kv_cache_rows(kv, layer, which, 0) : NULL;
}

const void *fastgpt_kv_cache_keys(const fastgpt_kv_cache *kv, int32_t layer) { return rows_or_null(kv, layer, 0); }
const void *fastgpt_kv_cache_values(const fastgpt_kv_cache *kv, int32_t layer) { return rows_or_null(kv, layer, 1); }
