/* model_file.h - makes GGUF files.  A draft lists the keys and tensors of a small valid GPT-2; a test spoils what it
 * wants to see refused, and draft_write gives the bytes.  Every weight is a multiple of 1/64 that F32, F16 and BF16
 * hold alike; blocks hold what they will. */
#ifndef FASTGPT_MODEL_FILE_H
#define FASTGPT_MODEL_FILE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/gguf.h"
#include "support/weights.h"

/* ---- Bytes ---- */

typedef struct buffer {
    uint8_t *data;
    size_t n, n_allocated;
} buffer;

static inline void put(buffer *b, const void *data, size_t n) {
    if (b->n + n > b->n_allocated) {
        b->n_allocated = 2 * (b->n + n);
        b->data = realloc(b->data, b->n_allocated);
        if (!b->data) abort();
    }
    if (n > 0) memcpy(b->data + b->n, data, n);
    b->n += n;
}

/* Little-endian. */
static inline void put_number(buffer *b, uint64_t value, int n_bytes) {
    uint8_t bytes[8];
    for (int i = 0; i < n_bytes; i++) bytes[i] = (uint8_t)(value >> 8 * i);
    put(b, bytes, (size_t)n_bytes);
}

static inline void put_u32(buffer *b, uint32_t value) { put_number(b, value, 4); }
static inline void put_u64(buffer *b, uint64_t value) { put_number(b, value, 8); }

static inline void put_f32(buffer *b, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_u32(b, bits);
}

static inline void put_string(buffer *b, const char *text) {
    put_u64(b, strlen(text));
    put(b, text, strlen(text));
}

static inline void put_zeros(buffer *b, uint64_t n) {
    while (n-- > 0) put(b, "", 1);
}

/* ---- A draft ---- */

/* Types of tensors, numbered as in the file. */
enum {
    FILE_F32 = 0,
    FILE_F16 = 1,
    FILE_BF16 = 30,
    FILE_Q8_0 = 8,
    FILE_Q4_0 = 2,
    FILE_Q4_1 = 3,
    FILE_Q5_0 = 6,
    FILE_Q5_1 = 7,
    FILE_Q4_K = 12,
    FILE_Q5_K = 13,
    FILE_Q6_K = 14,
    FILE_I8 = 24 /* tiles, with scales of their own */
};

enum { DRAFT_MAX_KEYS = 32, DRAFT_MAX_TENSORS = 64, DRAFT_MAX_RANK = 5 };

typedef struct draft_key {
    char name[64];
    uint32_t type; /* a GGUF_ value type */
    buffer value;  /* as in the file */
} draft_key;

typedef struct draft_tensor {
    char name[64];
    uint32_t rank, type;
    uint64_t shape[DRAFT_MAX_RANK]; /* fastest-running dimension first */
    int64_t offset_error;           /* added to the offset that would be right */
} draft_tensor;

typedef struct draft {
    char magic[5];
    uint32_t version;
    uint32_t alignment; /* of the data; the key general.alignment is the test's own affair */
    int64_t n_keys_error, n_tensors_error;
    draft_key keys[DRAFT_MAX_KEYS];
    draft_tensor tensors[DRAFT_MAX_TENSORS];
    int n_keys, n_tensors;
} draft;

typedef struct model_shape {
    uint32_t n_vocab, n_ctx, n_embd, n_head, n_layer, n_ff;
    uint32_t type; /* of all tensors of rank 2 */
    bool untied;   /* with an output.weight */
} model_shape;

/* The key of that name, NULL when the draft has none. */
static inline draft_key *draft_find_key(draft *d, const char *name) {
    for (int i = 0; i < d->n_keys; i++)
        if (strcmp(d->keys[i].name, name) == 0) return &d->keys[i];
    return NULL;
}

static inline draft_key *draft_append_key(draft *d, const char *name, uint32_t type) {
    if (d->n_keys == DRAFT_MAX_KEYS) abort();
    draft_key *key = &d->keys[d->n_keys++];
    *key = (draft_key){.type = type};
    snprintf(key->name, sizeof key->name, "%s", name);
    return key;
}

/* The value of a key, empty, for the caller to fill; a key of that name is replaced. */
static inline buffer *draft_set(draft *d, const char *name, uint32_t type) {
    draft_key *key = draft_find_key(d, name);
    if (!key) return &draft_append_key(d, name, type)->value;
    key->type = type;
    key->value.n = 0;
    return &key->value;
}

static inline void draft_set_u32(draft *d, const char *name, uint32_t value) {
    put_u32(draft_set(d, name, GGUF_U32), value);
}

static inline void draft_set_f32(draft *d, const char *name, float value) {
    put_f32(draft_set(d, name, GGUF_F32), value);
}

static inline void draft_set_bool(draft *d, const char *name, bool value) {
    put_number(draft_set(d, name, GGUF_BOOL), value, 1);
}

static inline void draft_set_string(draft *d, const char *name, const char *text) {
    put_string(draft_set(d, name, GGUF_STRING), text);
}

/* An array of n elements, which the caller then puts. */
static inline buffer *draft_set_array(draft *d, const char *name, uint32_t element_type, uint64_t n) {
    buffer *value = draft_set(d, name, GGUF_ARRAY);
    put_u32(value, element_type);
    put_u64(value, n);
    return value;
}

static inline void draft_drop_key(draft *d, const char *name) {
    draft_key *key = draft_find_key(d, name);
    if (!key) abort();
    free(key->value.data);
    *key = d->keys[--d->n_keys];
}

static inline draft_tensor *draft_find_tensor(draft *d, const char *name) {
    for (int i = 0; i < d->n_tensors; i++)
        if (strcmp(d->tensors[i].name, name) == 0) return &d->tensors[i];
    abort();
}

static inline draft_tensor *draft_append_tensor(draft *d, const char *name) {
    if (d->n_tensors == DRAFT_MAX_TENSORS) abort();
    draft_tensor *t = &d->tensors[d->n_tensors++];
    *t = (draft_tensor){0};
    snprintf(t->name, sizeof t->name, "%s", name);
    return t;
}

/* Tiles of name, which ends in ".weight", and their scales. */
static inline void draft_add_tiles(draft *d, const char *name, uint32_t n_rows, uint32_t n_columns) {
    draft_tensor *tiles = draft_append_tensor(d, name), *scales = draft_append_tensor(d, "");
    tiles->rank = 3, tiles->type = FILE_I8;
    tiles->shape[0] = 64, tiles->shape[1] = n_columns / 4, tiles->shape[2] = (n_rows + 15) / 16;
    scales->rank = 1, scales->type = FILE_F32, scales->shape[0] = n_rows;
    snprintf(scales->name, sizeof scales->name, "%.*sscale", (int)(strlen(name) - strlen("weight")), name);
}

/* [n_rows][n_columns], n_rows 0 = a vector.  Of I8, tiles and scales; but the position embedding is F32. */
static inline void draft_add_tensor(draft *d, const char *name, uint32_t n_rows, uint32_t n_columns, uint32_t type) {
    const bool positions = strcmp(name, "position_embd.weight") == 0;
    if (type == FILE_I8 && n_rows && !positions) {
        draft_add_tiles(d, name, n_rows, n_columns);
        return;
    }
    draft_tensor *t = draft_append_tensor(d, name);
    t->rank = n_rows ? 2 : 1, t->type = n_rows && type != FILE_I8 ? type : FILE_F32;
    t->shape[0] = n_columns, t->shape[1] = n_rows;
}

static inline void draft_drop_tensor(draft *d, const char *name) {
    draft_tensor *t = draft_find_tensor(d, name);
    memmove(t, t + 1, (size_t)(d->tensors + d->n_tensors - t - 1) * sizeof *t);
    d->n_tensors--;
}

static inline void draft_free(draft *d) {
    for (int i = 0; i < d->n_keys; i++) free(d->keys[i].value.data);
}

/* ---- A valid GPT-2 ---- */

/* The first tokens of every draft: letters of the byte alphabet, text outside of it, a control token and an unused one.
 */
static const struct {
    const char *text, *bytes;
    int32_t type;
} draft_tokens[] = {{"a", "a", 1},
                    {"\xC4\xA0", " ", 1},                    /* U+0120 */
                    {"\xC4\xA0"
                     "a",
                     " a", 1},
                    {"\xC4\x8A", "\n", 1},                   /* U+010A */
                    {"\xC3\xA9", "\xE9", 1},                 /* U+00E9 stands for one byte of a character */
                    {"\xC5\x83", "\xAD", 1},                 /* U+0143, the last of the alphabet */
                    {"\xE6\x97\xA5", "\xE6\x97\xA5", 1},     /* not of the alphabet: itself */
                    {"<|endoftext|>", "<|endoftext|>", 3},
                    {"\xC4\xA0", "\xC4\xA0", 4},             /* user-defined: literal */
                    {"[PAD9]", "", 5}};
enum { N_DRAFT_TOKENS = sizeof draft_tokens / sizeof *draft_tokens, DRAFT_EOS = 7 };

static inline void draft_add_tokenizer(draft *d, uint32_t n_vocab) {
    draft_set_string(d, "tokenizer.ggml.model", "gpt2");
    draft_set_string(d, "tokenizer.ggml.pre", "gpt-2");
    draft_set_u32(d, "tokenizer.ggml.eos_token_id", DRAFT_EOS);
    draft_set_bool(d, "tokenizer.ggml.add_bos_token", false);
    buffer *tokens = draft_set_array(d, "tokenizer.ggml.tokens", GGUF_STRING, n_vocab);
    for (uint32_t i = 0; i < n_vocab; i++) {
        char text[16];
        snprintf(text, sizeof text, "t%u", (unsigned)i);
        put_string(tokens, i < N_DRAFT_TOKENS ? draft_tokens[i].text : text);
    }
    buffer *types = draft_set_array(d, "tokenizer.ggml.token_type", GGUF_I32, n_vocab);
    for (uint32_t i = 0; i < n_vocab; i++) put_u32(types, i < N_DRAFT_TOKENS ? (uint32_t)draft_tokens[i].type : 1);
    buffer *merges = draft_set_array(d, "tokenizer.ggml.merges", GGUF_STRING, 2);
    put_string(merges, "\xC4\xA0 a");
    put_string(merges, "a a");
}

static inline void draft_add_keys(draft *d, const model_shape *s) {
    const char *architecture = s->type == FILE_I8 ? "fastgpt-gpt2" : "gpt2";
    const struct {
        const char *last;
        uint32_t value;
    } sizes[] = {{"block_count", s->n_layer},
                 {"context_length", s->n_ctx},
                 {"embedding_length", s->n_embd},
                 {"feed_forward_length", s->n_ff},
                 {"attention.head_count", s->n_head}};
    char key[64];
    draft_set_string(d, "general.architecture", architecture);
    draft_set_string(d, "general.name", "a tiny model");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        snprintf(key, sizeof key, "%s.%s", architecture, sizes[i].last);
        draft_set_u32(d, key, sizes[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_epsilon", architecture);
    draft_set_f32(d, key, 1e-5f);
    draft_add_tokenizer(d, s->n_vocab);
}

static inline void draft_add_layer(draft *d, const model_shape *s, uint32_t layer) {
    const struct {
        const char *part;
        uint32_t n_rows, n_columns;
    } tensors[] = {{"attn_norm.weight", 0, s->n_embd},
                   {"attn_norm.bias", 0, s->n_embd},
                   {"attn_qkv.weight", 3 * s->n_embd, s->n_embd},
                   {"attn_qkv.bias", 0, 3 * s->n_embd},
                   {"attn_output.weight", s->n_embd, s->n_embd},
                   {"attn_output.bias", 0, s->n_embd},
                   {"ffn_norm.weight", 0, s->n_embd},
                   {"ffn_norm.bias", 0, s->n_embd},
                   {"ffn_up.weight", s->n_ff, s->n_embd},
                   {"ffn_up.bias", 0, s->n_ff},
                   {"ffn_down.weight", s->n_embd, s->n_ff},
                   {"ffn_down.bias", 0, s->n_embd}};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%u.%s", (unsigned)layer, tensors[i].part);
        draft_add_tensor(d, name, tensors[i].n_rows, tensors[i].n_columns, s->type);
    }
}

/* To be freed with draft_free. */
static inline draft draft_of(model_shape s) {
    draft d = {.magic = "GGUF", .version = 3, .alignment = 32};
    draft_add_keys(&d, &s);
    draft_add_tensor(&d, "token_embd.weight", s.n_vocab, s.n_embd, s.type);
    draft_add_tensor(&d, "position_embd.weight", s.n_ctx, s.n_embd, s.type);
    for (uint32_t i = 0; i < s.n_layer; i++) draft_add_layer(&d, &s, i);
    draft_add_tensor(&d, "output_norm.weight", 0, s.n_embd, s.type);
    draft_add_tensor(&d, "output_norm.bias", 0, s.n_embd, s.type);
    if (s.untied) draft_add_tensor(&d, "output.weight", s.n_vocab, s.n_embd, s.type);
    return d;
}

/* Small enough to be spoiled in every way; no size equals another one. */
static const model_shape tiny_shape = {.n_vocab = 11, .n_ctx = 8, .n_embd = 6, .n_head = 3, .n_layer = 2, .n_ff = 10};

/* The smallest whose rows are whole blocks of 32 numbers, and of 256. */
static const model_shape block_shape = {.n_vocab = 11, .n_ctx = 8, .n_embd = 32, .n_head = 4, .n_layer = 1, .n_ff = 64};
static const model_shape wide_shape = {
    .n_vocab = 11, .n_ctx = 8, .n_embd = 256, .n_head = 4, .n_layer = 1, .n_ff = 256};

/* The smallest in tiles of I8. */
static const model_shape tiled_shape = {
    .n_vocab = 19, .n_ctx = 8, .n_embd = 64, .n_head = 4, .n_layer = 1, .n_ff = 128, .type = FILE_I8, .untied = true};

/* ---- Draft -> bytes ---- */

static inline uint64_t draft_n_elements(const draft_tensor *t) {
    enum { MORE_THAN_ANYBODY_WRITES = 1 << 20 };
    uint64_t n = 1;
    for (uint32_t i = 0; i < t->rank && i < DRAFT_MAX_RANK; i++) {
        if (t->shape[i] > MORE_THAN_ANYBODY_WRITES) return 0;
        n *= t->shape[i];
    }
    return n <= MORE_THAN_ANYBODY_WRITES ? n : 0;
}

/* Element i of a tensor: in [-1/4, 1/4], about 1 for the weights of a norm; a hash (FNV-1a) of name and i. */
static inline float draft_weight(const char *name, uint64_t i) {
    uint32_t hash = 2166136261u ^ (uint32_t)(i * 2654435761u);
    for (const char *c = name; *c; c++) hash = (hash ^ (uint8_t)*c) * 16777619u;
    float value = (float)((int32_t)(hash >> 15 & 0x1F) - 16) / 64.0f;
    if (strstr(name, ".scale")) return (1 + value) / 256;
    return strstr(name, "norm.weight") ? 1 + value : value;
}

/* For numbers that the 16-bit formats hold exactly and that are normal there. */
static inline void put_weight(buffer *b, uint32_t type, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t magnitude = bits & 0x7FFFFFFF;
    if (type == FILE_BF16) put_number(b, bits >> 16, 2);
    else if (type == FILE_F16)
        put_number(b, (bits >> 16 & 0x8000) | (magnitude ? (magnitude >> 13) - ((127 - 15) << 10) : 0), 2);
    else put_u32(b, bits);
}

/* Blocks of any numbers, with scales that leave weights of a common size. */
static inline void put_blocks(buffer *b, dtype type, uint64_t n) {
    uint64_t state = n;
    const dtype_info *format = &dtype_infos[type];
    const uint16_t scale = f16_of_f32(type == TYPE_Q8_0 ? 0x1p-9f : type == TYPE_Q4_0 ? 0x1p-5f : 0x1p-14f);
    uint8_t block[sizeof(block_q6_k)];
    for (uint64_t i = 0; i < n; i += (uint64_t)format->block_values) {
        random_row(&state, type, block, format->block_values);
        if (!has_row_scales(type)) memcpy(block + scale_offset(type), &scale, sizeof scale);
        if (has_minimum(type)) memcpy(block + sizeof scale, &scale, sizeof scale);
        put(b, block, (size_t)format->block_bytes);
    }
}

static inline void put_weights(buffer *b, const draft_tensor *t) {
    uint64_t n = draft_n_elements(t);
    dtype type;
    if (dtype_of_gguf(t->type, &type) && !is_float(type)) {
        put_blocks(b, type, n);
        return;
    }
    for (uint64_t i = 0; i < n; i++) put_weight(b, t->type, draft_weight(t->name, i));
}

static inline void pad(buffer *b, uint32_t alignment) { put_zeros(b, (alignment - b->n % alignment) % alignment); }

static inline void put_tensor_entry(buffer *b, const draft_tensor *t, uint64_t offset) {
    put_string(b, t->name);
    put_u32(b, t->rank);
    for (uint32_t i = 0; i < t->rank && i < DRAFT_MAX_RANK; i++) put_u64(b, t->shape[i]);
    put_u32(b, t->type);
    put_u64(b, offset + (uint64_t)t->offset_error);
}

/* The file; the last byte is the last tensor's.  *data_at, unless NULL: where the tensors' data begin. */
static inline buffer draft_write(const draft *d, size_t *data_at) {
    buffer file = {0}, data = {0};
    put(&file, d->magic, 4);
    put_u32(&file, d->version);
    put_u64(&file, (uint64_t)(d->n_tensors + d->n_tensors_error));
    put_u64(&file, (uint64_t)(d->n_keys + d->n_keys_error));
    for (int i = 0; i < d->n_keys; i++) {
        put_string(&file, d->keys[i].name);
        put_u32(&file, d->keys[i].type);
        put(&file, d->keys[i].value.data, d->keys[i].value.n);
    }
    for (int i = 0; i < d->n_tensors; i++) {
        pad(&data, d->alignment);
        put_tensor_entry(&file, &d->tensors[i], data.n);
        put_weights(&data, &d->tensors[i]);
    }
    pad(&file, d->alignment);
    if (data_at) *data_at = file.n;
    put(&file, data.data, data.n);
    free(data.data);
    return file;
}

#endif
