/* encode.c - text -> tokens, tokens -> bytes. */
#include <string.h>

#include "tokenizer/pretokenize.h"
#include "tokenizer/tokenizer.h"

/* One call of fastgpt_encode. */
typedef struct encoding {
    const fastgpt_tokenizer *tokenizer;
    int32_t *tokens; /* [capacity] */
    int32_t capacity, n_tokens;
    bpe_scratch scratch;
} encoding;

static inline void put_token(encoding *e, int32_t token) {
    if (e->n_tokens < e->capacity) e->tokens[e->n_tokens] = token;
    e->n_tokens++;
}

/* token is the one with the text of the piece, -1 when there is none. */
static fastgpt_status encode_by_merging(encoding *e, const uint8_t *piece, uint32_t n, int32_t token) {
    fastgpt_status status = bpe_merge(&e->tokenizer->rules, piece, n, &e->scratch);
    if (status) return status;
    const bpe_symbol *symbols = e->scratch.symbols;
    for (uint32_t i = 0; i < n; i = symbols[i].after) put_token(e, symbols[i].token);
    if (token >= 0 && symbols[0].token == token)
        atomic_store_explicit(&e->tokenizer->is_whole[token], 1, memory_order_relaxed);
    return FASTGPT_OK;
}

/* Text without special tokens. */
static fastgpt_status encode_literal(encoding *e, const uint8_t *text, size_t n) {
    const fastgpt_tokenizer *t = e->tokenizer;
    fastgpt_status status = FASTGPT_OK;
    for (size_t i = 0, length; i < n && !status; i += length) {
        length = piece_length(text + i, n - i);
        int32_t token = text_table_find(&t->by_text, (const char *)text + i, length);
        if (token >= 0 && atomic_load_explicit(&t->is_whole[token], memory_order_relaxed)) put_token(e, token);
        else status = encode_by_merging(e, text + i, (uint32_t)length, token);
    }
    return status;
}

/* Cuts the tokens of this pass out of text; what lies between them is for the passes that follow. */
static fastgpt_status encode_from_pass(encoding *e, special_pass pass, const uint8_t *text, size_t n) {
    if (pass == N_SPECIAL_PASSES) return encode_literal(e, text, n);
    fastgpt_status status = FASTGPT_OK;
    while (n > 0 && !status) {
        int32_t token = 0;
        size_t length = 0, at = special_tokens_find(&e->tokenizer->special, pass, text, n, &token, &length);
        status = encode_from_pass(e, pass + 1, text, at);
        if (at < n) put_token(e, token);
        text += at + length;
        n -= at + length;
    }
    return status;
}

fastgpt_status fastgpt_encode(const fastgpt_tokenizer *tokenizer, const char *text, size_t n_bytes, int32_t flags,
                              int32_t *tokens, int32_t capacity, int32_t *n_tokens) {
    if (!tokenizer || (!text && n_bytes > 0) || n_bytes > INT32_MAX || !n_tokens) return FASTGPT_ERR_ARGUMENT;
    if ((!tokens && capacity > 0) || capacity < 0) return FASTGPT_ERR_ARGUMENT;
    if (flags != FASTGPT_ENCODE_SPECIAL && flags != FASTGPT_ENCODE_LITERAL) return FASTGPT_ERR_ARGUMENT;
    encoding e = {.tokenizer = tokenizer, .tokens = tokens, .capacity = capacity};
    bpe_scratch_init(&e.scratch);
    special_pass first_pass = flags == FASTGPT_ENCODE_LITERAL ? N_SPECIAL_PASSES : CONTROL_PASS;
    fastgpt_status status = encode_from_pass(&e, first_pass, (const uint8_t *)text, n_bytes);
    bpe_scratch_free(&e.scratch);
    *n_tokens = status ? 0 : e.n_tokens;
    return status || e.n_tokens <= capacity ? status : FASTGPT_ERR_CAPACITY;
}

fastgpt_status fastgpt_detokenize(const fastgpt_tokenizer *tokenizer, const int32_t *tokens, int32_t n_tokens,
                                  char *bytes, size_t capacity, size_t *n_bytes) {
    if (!tokenizer || n_tokens < 0 || (!tokens && n_tokens > 0) || !n_bytes) return FASTGPT_ERR_ARGUMENT;
    if (!bytes && capacity > 0) return FASTGPT_ERR_ARGUMENT;
    const string_list *list = &tokenizer->bytes;
    size_t n = 0;
    for (int32_t i = 0; i < n_tokens; i++) {
        if (tokens[i] < 0 || tokens[i] >= list->n) return FASTGPT_ERR_TOKEN_RANGE;
        n += list->offsets[tokens[i] + 1] - list->offsets[tokens[i]];
    }
    *n_bytes = n;
    if (n > capacity) return FASTGPT_ERR_CAPACITY;
    for (int32_t i = 0; i < n_tokens; i++) {
        const uint64_t *at = list->offsets + tokens[i];
        memcpy(bytes, list->text + at[0], at[1] - at[0]);
        bytes += at[1] - at[0];
    }
    return FASTGPT_OK;
}
