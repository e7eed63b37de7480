/* kv_cache_file.c - KV caches in files.  Everything is little-endian, and nothing follows the checksum:
 *
 *     header    kv_file_header
 *     tokens    int32 [n_past]
 *     values    [n_layer][2: keys, values][n_past] rows of the cache's type
 *     checksum  uint64, hash_bytes of all before
 *
 * A file is hostile until its header is compared with the model: then its size follows from the model's own sizes. */
#include <stdatomic.h>
#include <string.h>

#include "common/hash.h"
#include "common/status.h"
#include "kv_cache/kv_cache.h"

enum { FILE_VERSION = 1 };

static const char MAGIC[8] = "fgptkvs";

/* No padding: 40 bytes. */
typedef struct kv_file_header {
    char magic[8];
    uint32_t version;
    uint32_t type;        /* a fastgpt_type */
    uint64_t fingerprint; /* of the model */
    uint32_t n_layer, n_embd;
    uint32_t n_past;
    uint32_t n_deterministic;
} kv_file_header;

/* Hash of the whole file of a model, computed once: the cost of one pass over the weights. */
static uint64_t fingerprint_of(const fastgpt_model *model) {
    fastgpt_model *m = (fastgpt_model *)model; /* this field is all that ever changes in it */
    uint64_t known = atomic_load_explicit(&m->fingerprint, memory_order_relaxed);
    if (known) return known;
    known = hash_bytes(m->file.data, m->file.n_bytes) | 1; /* 0 = not computed yet */
    atomic_store_explicit(&m->fingerprint, known, memory_order_relaxed);
    return known;
}

static size_t kv_file_bytes(const fastgpt_model *m, dtype type, int32_t n_past) {
    size_t position = sizeof(int32_t) + 2 * (size_t)m->n_layer * (size_t)row_bytes(type, m->n_embd);
    return sizeof(kv_file_header) + (size_t)n_past * position + sizeof(uint64_t);
}

/* ---- Save ---- */

static void append_bytes(uint8_t **at, const void *data, size_t n) {
    memcpy(*at, data, n);
    *at += n;
}

/* out [kv_file_bytes] */
static void write_file_bytes(uint8_t *out, const fastgpt_kv_cache *kv, const fastgpt_model *m) {
    kv_file_header header = {.version = FILE_VERSION,
                             .type = dtype_infos[kv->type].gguf_type,
                             .fingerprint = fingerprint_of(m),
                             .n_layer = (uint32_t)kv->n_layer,
                             .n_embd = (uint32_t)kv->n_embd,
                             .n_past = (uint32_t)kv->n_past,
                             .n_deterministic = (uint32_t)fastgpt_kv_cache_n_deterministic(kv)};
    int64_t stride = kv_cache_row_bytes(kv, kv->n_past);
    uint8_t *at = out;
    memcpy(header.magic, MAGIC, sizeof MAGIC);
    append_bytes(&at, &header, sizeof header);
    append_bytes(&at, kv->tokens, (size_t)kv->n_past * sizeof *kv->tokens);
    kv_cache_read(kv, 0, kv->n_past, at, stride);
    at += 2 * kv->n_layer * stride;
    uint64_t checksum = hash_bytes(out, (size_t)(at - out));
    append_bytes(&at, &checksum, sizeof checksum);
}

fastgpt_status fastgpt_kv_cache_save(const fastgpt_kv_cache *kv, const fastgpt_model *model, const char *path,
                                     fastgpt_error *error) {
    if (error) error->text[0] = 0;
    if (!kv || !model || !path) return fail(error, FASTGPT_ERR_ARGUMENT, "cache, model or path is NULL");
    if (kv->model_id != model->id) return fail(error, FASTGPT_ERR_CACHE_MISMATCH, "the cache is another model's");
    const int32_t start_layer = fastgpt_kv_cache_start_layer(kv);
    if (start_layer)
        return fail(error, FASTGPT_ERR_ARGUMENT, "steps have skipped the layers below %d: truncate the cache first",
                    start_layer);
    if (os_file_begins(path, "GGUF", 4))
        return fail(error, FASTGPT_ERR_ARGUMENT, "%s: is a model file; name another file for the KV cache", path);
    size_t n = kv_file_bytes(model, kv->type, kv->n_past);
    uint8_t *bytes = os_alloc(n);
    if (!bytes) return fail(error, FASTGPT_ERR_MEMORY, "%s: no memory for its %zu bytes", path, n);
    write_file_bytes(bytes, kv, model);
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

static fastgpt_status check_header(const kv_file_header *h, size_t n_bytes, const char *path, fastgpt_error *error) {
    if (n_bytes < sizeof *h + sizeof(uint64_t) || memcmp(h->magic, MAGIC, sizeof MAGIC) != 0)
        return fail(error, FASTGPT_ERR_FORMAT, "%s: is not a saved KV cache", path);
    if (h->version != FILE_VERSION)
        return fail(error, FASTGPT_ERR_UNSUPPORTED, "%s: has version %u; %d is implemented", path, h->version,
                    FILE_VERSION);
    return FASTGPT_OK;
}

/* Whether the header fits this model, and the file has the size that follows from it. */
static fastgpt_status check_shape(const kv_file_header *h, size_t n_bytes, const fastgpt_model *m, const char *path,
                                  fastgpt_error *error) {
    dtype type;
    if (h->fingerprint != fingerprint_of(m))
        return fail(error, FASTGPT_ERR_CACHE_MISMATCH, "%s: was saved with another model", path);
    if (!dtype_of_gguf(h->type, &type) || !is_kv_type(type) || !kv_cache_holds_heads(type, m))
        return fail(error, FASTGPT_ERR_FORMAT, "%s: number type %u holds no KV cache", path, h->type);
    if (h->n_layer != (uint32_t)m->n_layer || h->n_embd != (uint32_t)m->n_embd || h->n_past > (uint32_t)m->n_ctx ||
        h->n_deterministic > h->n_past)
        return fail(error, FASTGPT_ERR_FORMAT,
                    "%s: n_layer %u, n_embd %u, n_past %u, n_deterministic %u are not this model's", path, h->n_layer,
                    h->n_embd, h->n_past, h->n_deterministic);
    size_t expected = kv_file_bytes(m, type, (int32_t)h->n_past);
    if (n_bytes != expected)
        return fail(error, FASTGPT_ERR_FORMAT, "%s: has %zu bytes, expected %zu", path, n_bytes, expected);
    return FASTGPT_OK;
}

/* What check_beginning needs to know. */
typedef struct loading {
    const fastgpt_model *model;
    const char *path;
} loading;

static kv_file_header header_of(const uint8_t *data, size_t n_bytes) {
    kv_file_header h = {.version = 0};
    memcpy(&h, data, n_bytes < sizeof h ? n_bytes : sizeof h);
    return h;
}

/* An os_file_check: refuses a file that is larger than any of this model's caches before the rest is read. */
static fastgpt_status check_beginning(const void *user, const uint8_t *first, size_t n_first, size_t n_bytes,
                                      fastgpt_error *error) {
    const loading *l = user;
    kv_file_header h = header_of(first, n_first);
    fastgpt_status status = check_header(&h, n_bytes, l->path, error);
    bool too_large = n_bytes > kv_file_bytes(l->model, TYPE_F32, l->model->n_ctx);
    return status || !too_large ? status : check_shape(&h, n_bytes, l->model, l->path, error);
}

/* Fills an empty cache with what follows the header. */
static fastgpt_status read_positions(fastgpt_kv_cache *kv, const kv_file_header *h, const uint8_t *at, int32_t n_vocab,
                                     const char *path, fastgpt_error *error) {
    int32_t n_past = (int32_t)h->n_past;
    size_t n_bytes = (size_t)kv_cache_row_bytes(kv, n_past), n_token_bytes = (size_t)n_past * sizeof *kv->tokens;
    memcpy(kv->tokens, at, n_token_bytes);
    for (int32_t i = 0; i < n_past; i++)
        if (kv->tokens[i] < 0 || kv->tokens[i] >= n_vocab)
            return fail(error, FASTGPT_ERR_FORMAT, "%s: token %d is outside [0, %d)", path, kv->tokens[i], n_vocab);
    at += n_token_bytes;
    for (int32_t i = 0; i < N_KV_PARTS * kv->n_layer; i++, at += n_bytes)
        memcpy(kv_cache_rows(kv, i / N_KV_PARTS, (kv_part)(i % N_KV_PARTS), 0), at, n_bytes);
    kv->n_past = n_past;
    kv->n_deterministic = (int32_t)h->n_deterministic;
    return FASTGPT_OK;
}

static fastgpt_status read_kv_cache(const os_file *file, const fastgpt_model *m, const char *path, int32_t n_ctx,
                                    fastgpt_kv_cache **out, fastgpt_error *error) {
    kv_file_header h = header_of(file->data, file->n_bytes);
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
    fastgpt_status status = os_file_open(&file, path, &(os_file_check){check_beginning, &l}, error);
    if (status) return status;
    status = read_kv_cache(&file, model, path, n_ctx, out, error);
    os_file_close(&file);
    if (!status) return FASTGPT_OK;
    fastgpt_kv_cache_free(*out);
    *out = NULL;
    return status;
}
