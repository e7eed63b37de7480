/* build.c - from the strings of a vocabulary to the tables of a tokenizer. */
#include <limits.h>
#include <string.h>

#include "model/byte_encoder.h"
#include "model/model.h"
#include "common/status.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode_tables.h"

/* What is needed only while a tokenizer is made. */
typedef struct builder {
    fastgpt_tokenizer *tokenizer;
    const fastgpt_strings *tokens, *merges;
    const int32_t *types;
    char *merge; /* [longest merge] the bytes of one */
    fastgpt_error *error;
} builder;

static fastgpt_status memory_error(const builder *b) {
    return fail(b->error, FASTGPT_ERR_MEMORY, "no memory for the tokenizer");
}

static fastgpt_status collision_error(const builder *b) {
    return fail(b->error, FASTGPT_ERR_FORMAT, "the vocabulary was made to collide in a hash table");
}

static int shown_length(size_t n) { return n < 80 ? (int)n : 80; }

/* ---- Tokens ---- */

static fastgpt_status read_texts(builder *b) {
    const fastgpt_strings *tokens = b->tokens;
    string_list *texts = &b->tokenizer->texts;
    if (!string_list_alloc(texts, (uint64_t)tokens->n, tokens->offsets[tokens->n])) return memory_error(b);
    for (int64_t i = 0; i < tokens->n; i++) {
        uint64_t at = tokens->offsets[i], to = texts->offsets[i];
        int64_t n = alphabet_decode(texts->text + to, tokens->text + at, tokens->offsets[i + 1] - at);
        texts->offsets[i + 1] = to + (n < 0 ? 0 : (uint64_t)n);
    }
    return FASTGPT_OK;
}

static fastgpt_status index_texts(builder *b) {
    const string_list *texts = &b->tokenizer->texts;
    if (!text_table_alloc(&b->tokenizer->by_text, texts, (size_t)texts->n)) return memory_error(b);
    for (int32_t i = 0; i < texts->n; i++) {
        const char *text = texts->text + texts->offsets[i];
        size_t n = texts->offsets[i + 1] - texts->offsets[i];
        if (n == 0) continue;
        int32_t twin = text_table_find(&b->tokenizer->by_text, text, n);
        if (twin >= 0)
            return fail(b->error, FASTGPT_ERR_FORMAT, "the vocabulary has '%.*s' twice: tokens %d and %d",
                        shown_length(n), text, twin, i);
        if (!text_table_add(&b->tokenizer->by_text, i)) return collision_error(b);
    }
    for (int byte = 0; byte < 256; byte++) {
        char text = (char)byte;
        b->tokenizer->rules.byte_tokens[byte] = text_table_find(&b->tokenizer->by_text, &text, 1);
    }
    return FASTGPT_OK;
}

/* ---- Merges ---- */

/* "left right" -> the two tokens and the one they merge into. */
static fastgpt_status read_merge(const builder *b, int64_t rank, pair_slot *pair) {
    const char *text = b->merges->text + b->merges->offsets[rank];
    size_t n = b->merges->offsets[rank + 1] - b->merges->offsets[rank];
    const char *space = n ? memchr(text, ' ', n) : NULL;
    size_t n_left_text = space ? (size_t)(space - text) : 0;
    int64_t n_left = space ? alphabet_decode(b->merge, text, n_left_text) : 0;
    int64_t n_right = n_left > 0 ? alphabet_decode(b->merge + n_left, space + 1, n - n_left_text - 1) : 0;
    *pair = (pair_slot){-1, -1, (uint32_t)rank, -1};
    if (n_right > 0) {
        pair->left = text_table_find(&b->tokenizer->by_text, b->merge, (size_t)n_left);
        pair->right = text_table_find(&b->tokenizer->by_text, b->merge + n_left, (size_t)n_right);
        pair->joined = text_table_find(&b->tokenizer->by_text, b->merge, (size_t)(n_left + n_right));
    }
    if (pair->left >= 0 && pair->right >= 0 && pair->joined >= 0) return FASTGPT_OK;
    return fail(b->error, FASTGPT_ERR_FORMAT, "merge %lld, '%.*s', is not two tokens whose join is a token",
                (long long)rank, shown_length(n), text);
}

static uint64_t longest_length(const uint64_t *offsets, int64_t n) {
    uint64_t result = 0;
    for (int64_t i = 0; i < n; i++)
        if (offsets[i + 1] - offsets[i] > result) result = offsets[i + 1] - offsets[i];
    return result;
}

static fastgpt_status read_merges(builder *b) {
    pair_table *pairs = &b->tokenizer->rules.pairs;
    b->merge = malloc(longest_length(b->merges->offsets, b->merges->n) + 1);
    if (!b->merge || !pair_table_alloc(pairs, (size_t)b->merges->n)) return memory_error(b);
    fastgpt_status status = FASTGPT_OK;
    for (int64_t rank = 0; rank < b->merges->n && !status; rank++) {
        pair_slot pair;
        status = read_merge(b, rank, &pair);
        if (!status && !pair_table_put(pairs, pair)) status = collision_error(b);
    }
    return status;
}

/* ---- All of it ---- */

static fastgpt_status build_tables(builder *b) {
    fastgpt_tokenizer *t = b->tokenizer;
    if (!vocab_decode(&t->bytes, b->tokens, b->types)) return memory_error(b);
    t->n_longest = longest_length(t->bytes.offsets, t->bytes.n);
    t->is_whole = calloc((size_t)t->bytes.n + 1, sizeof *t->is_whole);
    if (!t->is_whole) return memory_error(b);
    fastgpt_status status = read_texts(b);
    if (!status) status = index_texts(b);
    if (!status) status = read_merges(b);
    return status ? status : special_tokens_create(&t->special, &t->bytes, b->types, b->error);
}

static bool is_sound(const fastgpt_strings *strings, int64_t limit) {
    if (!strings || strings->n < 0 || strings->n >= limit || !strings->text || !strings->offsets) return false;
    for (int64_t i = 0; i < strings->n; i++)
        if (strings->offsets[i] > strings->offsets[i + 1]) return false;
    return strings->offsets[strings->n] < INT32_MAX;
}

fastgpt_status fastgpt_tokenizer_create_from(const fastgpt_strings *tokens, const fastgpt_strings *merges,
                                             const int32_t *token_types, fastgpt_tokenizer **out,
                                             fastgpt_error *error) {
    if (!out) return fail(error, FASTGPT_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (!is_sound(tokens, INT32_MAX) || !is_sound(merges, INT32_MAX))
        return fail(error, FASTGPT_ERR_ARGUMENT, "a list of strings is missing, falls, or has 2 GiB or more");
    builder b = {.tokens = tokens, .merges = merges, .types = token_types, .error = error};
    b.tokenizer = calloc(1, sizeof *b.tokenizer);
    if (!b.tokenizer) return memory_error(&b);
    fastgpt_status status = build_tables(&b);
    free(b.merge);
    if (status) fastgpt_tokenizer_free(b.tokenizer);
    else *out = b.tokenizer;
    return status;
}

fastgpt_status fastgpt_tokenizer_create(const fastgpt_model *model, fastgpt_tokenizer **out, fastgpt_error *error) {
    if (!out) return fail(error, FASTGPT_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (!model) return fail(error, FASTGPT_ERR_ARGUMENT, "model is NULL");
    fastgpt_strings tokens = fastgpt_model_tokens(model), merges = fastgpt_model_merges(model);
    if (tokens.n == 0) return fail(error, FASTGPT_ERR_UNSUPPORTED, "the file has no tokenizer; work with token ids");
    const vocab *v = &model->vocab;
    const int32_t *types = v->encoding_types ? v->encoding_types : v->types;
    return fastgpt_tokenizer_create_from(&tokens, &merges, types, out, error);
}

void fastgpt_tokenizer_free(fastgpt_tokenizer *tokenizer) {
    if (!tokenizer) return;
    string_list_free(&tokenizer->bytes);
    string_list_free(&tokenizer->texts);
    text_table_free(&tokenizer->by_text);
    free(tokenizer->is_whole);
    pair_table_free(&tokenizer->rules.pairs);
    special_tokens_free(&tokenizer->special);
    free(tokenizer);
}

int32_t fastgpt_tokenizer_n_vocab(const fastgpt_tokenizer *tokenizer) { return (int32_t)tokenizer->bytes.n; }

size_t fastgpt_tokenizer_sizeof(const fastgpt_tokenizer *t) {
    return sizeof *t + string_list_sizeof(&t->bytes) + string_list_sizeof(&t->texts) + text_table_sizeof(&t->by_text) +
           (size_t)t->bytes.n * sizeof *t->is_whole + pair_table_sizeof(&t->rules.pairs) +
           special_tokens_sizeof(&t->special);
}

const char *fastgpt_unicode_version(void) { return UNICODE_VERSION; }
