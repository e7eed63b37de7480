/* saved_state.h - saved KV caches as bytes, to be damaged and mended. */
#ifndef FASTGPT_SAVED_STATE_H
#define FASTGPT_SAVED_STATE_H

#include "common/hash.h"
#include "support/session.h"

/* Where the numbers of a header stand in the file. */
enum {
    AT_VERSION = 8,
    AT_TYPE = 12,
    AT_FINGERPRINT = 16,
    AT_N_LAYER = 24,
    AT_N_EMBD = 28,
    AT_N_PAST = 32,
    AT_N_DETERMINISTIC = 36,
    AT_TOKENS = 40
};

static inline buffer read_whole(const char *path) {
    buffer bytes = {0};
    uint8_t part[4096];
    FILE *file = fopen(path, "rb");
    if (!file) abort();
    for (size_t n; (n = fread(part, 1, sizeof part, file)) > 0;) put(&bytes, part, n);
    fclose(file);
    return bytes;
}

/* The bytes that save writes. */
static inline buffer state_of(const fastgpt_kv_cache *kv, const fastgpt_model *model) {
    temporary_file file = write_temporary("", 0);
    if (!CHECK(fastgpt_kv_cache_save(kv, model, file.path, NULL) == FASTGPT_OK)) abort();
    buffer bytes = read_whole(file.path);
    unlink(file.path);
    return bytes;
}

/* Loads bytes as a file, in a room of n_ctx positions. */
static inline fastgpt_status load_state(const fastgpt_model *model, const buffer *bytes, int32_t n_ctx,
                                        fastgpt_kv_cache **kv, fastgpt_error *error) {
    temporary_file file = write_temporary(bytes->data, bytes->n);
    fastgpt_status status = fastgpt_kv_cache_load(model, file.path, n_ctx, kv, error);
    unlink(file.path);
    return status;
}

/* Makes the checksum right again. */
static inline void mend_checksum(buffer *bytes) {
    if (bytes->n < sizeof(uint64_t)) return;
    size_t n = bytes->n - sizeof(uint64_t);
    uint64_t checksum = hash_bytes(bytes->data, n);
    memcpy(bytes->data + n, &checksum, sizeof checksum);
}

#endif
