/* kv_cache_file.c - KV caches in files.  All numbers are little-endian, and the file ends where this ends:
 *
 *     header    state_header
 *     tokens    int32 [n_past]
 *     numbers   [n_layer][2: keys, values][n_past][n_embd] of the type
 *     checksum  uint64, hash_bytes of all before
 *
 * A file is hostile until it was compared with the model: after that its size follows from the model's own numbers. */
#include <stdatomic.h>
#include <string.h>

#include "common/hash.h"
#include "kv_cache/kv_cache.h"
#include "common/status.h"

enum { STATE_VERSION = 1 };

static const char MAGIC[8] = "fgptkvs";

/* No padding: 40 bytes. */
typedef struct state_header {
    char magic[8];
    uint32_t version;
    uint32_t type;        /* a fastgpt_type */
    uint64_t fingerprint; /* of the model */
    uint32_t n_layer, n_embd;
    uint32_t n_past;
    uint32_t n_deterministic;
} state_header;

/* Hash of the whole file of a model, computed once: the cost of one pass over the weights. */
static uint64_t fingerprint_of(const fastgpt_model *model) {
    fastgpt_model *m = (fastgpt_model *)model; /* this note is all that ever changes in it */
    uint64_t known = atomic_load_explicit(&m->fingerprint, memory_order_relaxed);
    if (known) return known;
    known = hash_bytes(m->file.data, m->file.n_bytes) | 1; /* 0 = not computed yet */
    atomic_store_explicit(&m->fingerprint, known, memory_order_relaxed);
    return known;
}

static size_t size_of_state(const fastgpt_model *m, dtype type, int32_t n_past) {
    size_t position = sizeof(int32_t) + 2 * (size_t)m->n_layer * (size_t)row_bytes(type, m->n_embd);
    return sizeof(state_header) + (size_t)n_past * position + sizeof(uint64_t);
}

/* ---- Save ---- */

static void put(uint8_t **at, const void *data, size_t n) {
    memcpy(*at, data, n);
    *at += n;
}

/* Writes all of a state to out, which has room for it. */
static void write_state(uint8_t *out, const fastgpt_kv_cache *kv, const fastgpt_model *m) {
    state_header header = {.version = STATE_VERSION,
                           .type = dtype_infos[kv->type].gguf_type,
                           .fingerprint = fingerprint_of(m),
                           .n_layer = (uint32_t)kv->n_layer,
                           .n_embd = (uint32_t)kv->n_embd,
                           .n_past = (uint32_t)kv->n_past,
                           .n_deterministic = (uint32_t)fastgpt_kv_cache_n_deterministic(kv)};
    int64_t stride = kv_cache_row_bytes(kv, kv->n_past);
    uint8_t *at = out;
    memcpy(header.magic, MAGIC, sizeof MAGIC);
    put(&at, &header, sizeof header);
    put(&at, kv->tokens, (size_t)kv->n_past * sizeof *kv->tokens);
    kv_cache_read(kv, 0, kv->n_past, at, stride);
    at += 2 * kv->n_layer * stride;
    uint64_t checksum = hash_bytes(out, (size_t)(at - out));
    put(&at, &checksum, sizeof checksum);
}

fastgpt_status fastgpt_kv_cache_save(const fastgpt_kv_cache *kv, const fastgpt_model *model, const char *path,
                                     fastgpt_error *error) {
    if (error) error->text[0] = 0;
    if (!kv || !model || !path) return fail(error, FASTGPT_ERR_ARGUMENT, "cache, model or path is NULL");
    if (kv->model_id != model->id) return fail(error, FASTGPT_ERR_CACHE_MISMATCH, "the cache is another model's");
    if (os_file_begins(path, "GGUF", 4))
        return fail(error, FASTGPT_ERR_ARGUMENT, "%s: is a model file; name another file for the KV cache", path);
    size_t n = size_of_state(model, kv->type, kv->n_past);
    uint8_t *bytes = os_alloc(n);
    if (!bytes) return fail(error, FASTGPT_ERR_MEMORY, "%s: no memory for its %zu bytes", path, n);
    write_state(bytes, kv, model);
    fastgpt_status status = os_file_write(path, bytes, n, error);
    os_free(bytes);
    return status;
}

/* ---- Load ---- */

static fastgpt_status check_checksum(const os_file *file, const char *path, fastgpt_error *error) {
    uint64_t checksum;
    size_t n = file->n_bytes - sizeof checksum;
    memcpy(&checksum, file->data + n, sizeof checksum);
    if (checksum != hash_bytes(file->data, n))
        return fail(error, FASTGPT_ERR_FORMAT, "%s: damaged: its checksum does not fit; delete it", path);
    return FASTGPT_OK;
}

static fastgpt_status check_header(const state_header *h, size_t n_bytes, const char *path, fastgpt_error *error) {
    if (n_bytes < sizeof *h + sizeof(uint64_t) || memcmp(h->magic, MAGIC, sizeof MAGIC) != 0)
        return fail(error, FASTGPT_ERR_FORMAT, "%s: is not a saved KV cache", path);
    if (h->version != STATE_VERSION)
        return fail(error, FASTGPT_ERR_UNSUPPORTED, "%s: has version %u; %d is implemented", path, h->version,
                    STATE_VERSION);
    return FASTGPT_OK;
}

/* Whether the header's numbers can be this model's, and all that they promise is there. */
static fastgpt_status check_shape(const state_header *h, size_t n_bytes, const fastgpt_model *m, const char *path,
                                  fastgpt_error *error) {
    dtype type;
    if (h->fingerprint != fingerprint_of(m))
        return fail(error, FASTGPT_ERR_CACHE_MISMATCH, "%s: was saved with another model", path);
    if (!dtype_of_gguf(h->type, &type) || !is_float(type))
        return fail(error, FASTGPT_ERR_FORMAT, "%s: number type %u holds no KV cache", path, h->type);
    if (h->n_layer != (uint32_t)m->n_layer || h->n_embd != (uint32_t)m->n_embd || h->n_past > (uint32_t)m->n_ctx ||
        h->n_deterministic > h->n_past)
        return fail(error, FASTGPT_ERR_FORMAT,
                    "%s: n_layer %u, n_embd %u, n_past %u, n_deterministic %u are not this model's", path, h->n_layer,
                    h->n_embd, h->n_past, h->n_deterministic);
    size_t expected = size_of_state(m, type, (int32_t)h->n_past);
    if (n_bytes != expected)
        return fail(error, FASTGPT_ERR_FORMAT, "%s: has %zu bytes, expected %zu", path, n_bytes, expected);
    return FASTGPT_OK;
}

/* What is to be loaded, into which model. */
typedef struct loading {
    const fastgpt_model *model;
    const char *path;
} loading;

static state_header header_of(const uint8_t *data, size_t n_bytes) {
    state_header h = {.version = 0};
    memcpy(&h, data, n_bytes < sizeof h ? n_bytes : sizeof h);
    return h;
}

/* An os_file_check: no more is read than this model's caches have at most. */
static fastgpt_status begins_well(const void *user, const uint8_t *first, size_t n_first, size_t n_bytes,
                                  fastgpt_error *error) {
    const loading *l = user;
    state_header h = header_of(first, n_first);
    fastgpt_status status = check_header(&h, n_bytes, l->path, error);
    bool too_large = n_bytes > size_of_state(l->model, TYPE_F32, l->model->n_ctx);
    return status || !too_large ? status : check_shape(&h, n_bytes, l->model, l->path, error);
}

/* Puts what follows the header into an empty cache. */
static fastgpt_status read_positions(fastgpt_kv_cache *kv, const state_header *h, const uint8_t *at, int32_t n_vocab,
                                     const char *path, fastgpt_error *error) {
    int32_t n_past = (int32_t)h->n_past;
    size_t n_rows = (size_t)kv_cache_row_bytes(kv, n_past), n_tokens = (size_t)n_past * sizeof *kv->tokens;
    memcpy(kv->tokens, at, n_tokens);
    for (int32_t i = 0; i < n_past; i++)
        if (kv->tokens[i] < 0 || kv->tokens[i] >= n_vocab)
            return fail(error, FASTGPT_ERR_FORMAT, "%s: token %d is outside [0, %d)", path, kv->tokens[i], n_vocab);
    at += n_tokens;
    for (int32_t i = 0; i < 2 * kv->n_layer; i++, at += n_rows) memcpy(kv_cache_rows(kv, i / 2, i % 2, 0), at, n_rows);
    kv->n_past = n_past;
    kv->n_deterministic = (int32_t)h->n_deterministic;
    return FASTGPT_OK;
}

static fastgpt_status read_state(const os_file *file, const fastgpt_model *m, const char *path, int32_t n_ctx,
                                 fastgpt_kv_cache **out, fastgpt_error *error) {
    state_header h = header_of(file->data, file->n_bytes);
    fastgpt_status status = check_checksum(file, path, error);
    if (!status) status = check_shape(&h, file->n_bytes, m, path, error);
    if (status) return status;
    int32_t n_past = (int32_t)h.n_past, room = n_ctx ? n_ctx : m->n_ctx;
    if (n_past > room)
        return fail(error, FASTGPT_ERR_CONTEXT_FULL, "%s: has %d positions, n_ctx is %d", path, n_past, room);
    status = fastgpt_kv_cache_create_typed(m, n_ctx, (fastgpt_type)h.type, out);
    if (status) return fail(error, status, "%s: no memory for a KV cache of %d positions", path, room);
    return read_positions(*out, &h, file->data + sizeof h, m->n_vocab, path, error);
}

fastgpt_status fastgpt_kv_cache_load(const fastgpt_model *model, const char *path, int32_t n_ctx,
                                     fastgpt_kv_cache **out, fastgpt_error *error) {
    if (error) error->text[0] = 0;
    if (!out) return fail(error, FASTGPT_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (!model || !path) return fail(error, FASTGPT_ERR_ARGUMENT, "model or path is NULL");
    if (n_ctx < 0 || n_ctx > model->n_ctx)
        return fail(error, FASTGPT_ERR_ARGUMENT, "n_ctx is %d, not in [0, %d]", n_ctx, model->n_ctx);
    os_file file;
    const loading l = {.model = model, .path = path};
    fastgpt_status status = os_file_open(&file, path, &(os_file_check){begins_well, &l}, error);
    if (status) return status;
    status = read_state(&file, model, path, n_ctx, out, error);
    os_file_close(&file);
    if (!status) return FASTGPT_OK;
    fastgpt_kv_cache_free(*out);
    *out = NULL;
    return status;
}
