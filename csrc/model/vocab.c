/* vocab.c - see vocab.h. */
#include "model/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "model/byte_encoder.h"
#include "common/status.h"

/* ---- Lists ---- */

/* The strings of an array that gguf_parse has walked through already, in bytes that nobody changes: all of it is in
 * bounds. */
static fastgpt_status list_read(string_list *list, const gguf_value *array, fastgpt_error *error) {
    uint64_t n_bytes = 0;
    const uint8_t *at = array->data;
    for (uint64_t i = 0; i < array->n; i++) n_bytes += gguf_next_string(&at).n;
    if (!string_list_alloc(list, array->n, n_bytes))
        return fail(error, FASTGPT_ERR_MEMORY, "no memory for the vocabulary");
    at = array->data;
    for (uint64_t i = 0; i < array->n; i++) {
        gguf_string string = gguf_next_string(&at);
        memcpy(list->text + list->offsets[i], string.text, string.n);
        list->offsets[i + 1] = list->offsets[i] + string.n;
    }
    return FASTGPT_OK;
}

/* ---- Token -> bytes ---- */

/* Control and user-defined tokens are literal text, and so is a token outside the alphabet, as in Hugging
 * Face's ByteLevel decoder; unused tokens stand for nothing. */
bool vocab_decode(string_list *bytes, const fastgpt_strings *tokens, const int32_t *types) {
    if (!string_list_alloc(bytes, (uint64_t)tokens->n, tokens->offsets[tokens->n])) return false;
    for (int64_t i = 0; i < tokens->n; i++) {
        const char *text = tokens->text + tokens->offsets[i];
        uint64_t n = tokens->offsets[i + 1] - tokens->offsets[i];
        char *out = bytes->text + bytes->offsets[i];
        int32_t type = types ? types[i] : 1;
        int64_t n_out = type == TOKEN_UNUSED ? 0 : token_is_special(type) ? -1 : alphabet_decode(out, text, n);
        if (n_out < 0) memcpy(out, text, n);
        bytes->offsets[i + 1] = bytes->offsets[i] + (n_out < 0 ? n : (uint64_t)n_out);
    }
    return true;
}

/* ---- Keys ---- */

static fastgpt_status read_tokens(vocab *v, const gguf_file *gguf, int32_t n_vocab, fastgpt_error *error) {
    const char *key = "tokenizer.ggml.tokens";
    const gguf_value *array;
    fastgpt_status status = gguf_get_array(gguf, key, GGUF_STRING, &array, error);
    if (status) return status;
    if (!array) return fail(error, FASTGPT_ERR_FORMAT, "key %s is missing", key);
    if (array->n != (uint64_t)n_vocab)
        return fail(error, FASTGPT_ERR_FORMAT, "%s has %llu tokens, token_embd.weight has %d rows", key,
                    (unsigned long long)array->n, n_vocab);
    return list_read(&v->tokens, array, error);
}

/* A vocabulary without merges has no such key: writers of GGUF leave empty lists out. */
static fastgpt_status read_merges(vocab *v, const gguf_file *gguf, fastgpt_error *error) {
    const gguf_value *array;
    fastgpt_status status = gguf_get_array(gguf, "tokenizer.ggml.merges", GGUF_STRING, &array, error);
    return status || !array ? status : list_read(&v->merges, array, error);
}

static fastgpt_status read_types(vocab *v, const gguf_file *gguf, int32_t n_vocab, fastgpt_error *error) {
    const char *key = "tokenizer.ggml.token_type";
    const gguf_value *array;
    fastgpt_status status = gguf_get_array(gguf, key, GGUF_I32, &array, error);
    if (status || !array) return status;
    if (array->n != (uint64_t)n_vocab) return fail(error, FASTGPT_ERR_FORMAT, "%s does not have n_vocab entries", key);
    v->types = malloc((size_t)n_vocab * sizeof *v->types);
    if (!v->types) return fail(error, FASTGPT_ERR_MEMORY, "no memory for the vocabulary");
    for (int32_t i = 0; i < n_vocab; i++) {
        v->types[i] = (int32_t)gguf_u32(array->data + 4 * (size_t)i);
        if (v->types[i] < 1 || v->types[i] > TOKEN_LAST_TYPE)
            return fail(error, FASTGPT_ERR_FORMAT, "%s: token %d has type %d", key, i, v->types[i]);
    }
    return FASTGPT_OK;
}

/* The ids of special tokens that are cut out of a text after the others, whatever their types.  Without the key these
 * are the user-defined ones. */
static const char NORMALIZED_KEY[] = "fastgpt.tokenizer.normalized_tokens";

static fastgpt_status read_normalized(vocab *v, const gguf_file *gguf, int32_t n_vocab, fastgpt_error *error) {
    const gguf_value *array;
    fastgpt_status status = gguf_get_array(gguf, NORMALIZED_KEY, GGUF_I32, &array, error);
    if (status || !array) return status;
    if (!v->types) return fail(error, FASTGPT_ERR_FORMAT, "%s stands without token types", NORMALIZED_KEY);
    v->encoding_types = malloc((size_t)n_vocab * sizeof *v->encoding_types);
    if (!v->encoding_types) return fail(error, FASTGPT_ERR_MEMORY, "no memory for the vocabulary");
    for (int32_t i = 0; i < n_vocab; i++)
        v->encoding_types[i] = token_is_special(v->types[i]) ? TOKEN_CONTROL : v->types[i];
    for (uint64_t i = 0; i < array->n; i++) {
        uint32_t token = gguf_u32(array->data + 4 * i);
        if (token >= (uint32_t)n_vocab || !token_is_special(v->types[token]))
            return fail(error, FASTGPT_ERR_FORMAT, "%s: %u is no control or user-defined token", NORMALIZED_KEY, token);
        v->encoding_types[token] = TOKEN_USER_DEFINED;
    }
    return FASTGPT_OK;
}

/* A token that ends a text, found under that key; one that is known already is not noted again. */
static fastgpt_status add_eos(vocab *v, const char *key, uint32_t token, int32_t n_vocab, fastgpt_error *error) {
    if (token >= (uint32_t)n_vocab)
        return fail(error, FASTGPT_ERR_FORMAT, "%s is %u, n_vocab is %d", key, token, n_vocab);
    for (int32_t i = 0; i < v->n_eos_tokens; i++)
        if (v->eos_tokens[i] == (int32_t)token) return FASTGPT_OK;
    if (v->n_eos_tokens == MAX_EOS_TOKENS)
        return fail(error, FASTGPT_ERR_FORMAT, "%s: more than %d tokens end a text", key, MAX_EOS_TOKENS);
    v->eos_tokens[v->n_eos_tokens++] = (int32_t)token;
    return FASTGPT_OK;
}

/* llama.cpp has a key each for the end of a text, of a turn and of a message; a model with more has a list of ours. */
static fastgpt_status read_eos(vocab *v, const gguf_file *gguf, int32_t n_vocab, fastgpt_error *error) {
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    static const char list_key[] = "fastgpt.eos_token_ids";
    const gguf_value *value;
    fastgpt_status status = FASTGPT_OK;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && !status; i++) {
        status = gguf_get(gguf, keys[i], GGUF_U32, &value, error);
        if (!status && value) status = add_eos(v, keys[i], gguf_u32(value->data), n_vocab, error);
    }
    if (!status) status = gguf_get_array(gguf, list_key, GGUF_U32, &value, error);
    for (uint64_t i = 0; !status && value && i < value->n; i++)
        status = add_eos(v, list_key, gguf_u32(value->data + 4 * i), n_vocab, error);
    return status;
}

/* Text under a key; n = 0 when absent. */
static fastgpt_status read_string(const gguf_file *gguf, const char *key, gguf_string *string, fastgpt_error *error) {
    const gguf_value *value;
    fastgpt_status status = gguf_get(gguf, key, GGUF_STRING, &value, error);
    const uint8_t *at = value ? value->data : NULL;
    *string = !status && at ? gguf_next_string(&at) : (gguf_string){"", 0};
    return status;
}

/* tokenizer.ggml.pre names a pattern that cuts text into pieces.  These are the names under which llama.cpp (in
 * llama-vocab.cpp) has GPT-2's; without the key it is taken to be GPT-2's, too. */
static bool is_gpt2_pattern(gguf_string name) {
    static const char *const names[] = {
        "gpt-2",       "gpt2",    "a.x-4.0",    "exaone4",      "gigachat",    "granite-docling", "jais",
        "jina-de",     "jina-es", "jina-v1-en", "jina-v2-code", "jina-v2-de",  "jina-v2-es",      "mellum",
        "modern-bert", "mpt",     "olmo",       "phi-2",        "roberta-bpe", "trillion"};
    bool found = name.n == 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) found |= gguf_string_is(name, names[i]);
    return found;
}

/* A tokenizer that would prepare text in another way than GPT-2's is refused, not imitated. */
static fastgpt_status refuse_other_kinds(const gguf_file *gguf, fastgpt_error *error) {
    static const char *const switches[] = {"tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token",
                                           "tokenizer.ggml.add_space_prefix"};
    gguf_string kind;
    fastgpt_status status = read_string(gguf, "tokenizer.ggml.pre", &kind, error);
    if (!status && !is_gpt2_pattern(kind))
        return fail(error, FASTGPT_ERR_UNSUPPORTED,
                    "tokenizer.ggml.pre is %.*s; gpt-2 and the names of the same pattern are implemented",
                    gguf_shown(kind), kind.text);
    for (size_t i = 0; i < sizeof switches / sizeof *switches && !status; i++) {
        const gguf_value *value;
        status = gguf_get(gguf, switches[i], GGUF_BOOL, &value, error);
        if (!status && value && value->data[0])
            return fail(error, FASTGPT_ERR_UNSUPPORTED, "%s is true, which is not implemented", switches[i]);
    }
    return status;
}

static fastgpt_status read_all(vocab *v, const gguf_file *gguf, int32_t n_vocab, fastgpt_error *error) {
    fastgpt_status status = refuse_other_kinds(gguf, error);
    if (!status) status = read_tokens(v, gguf, n_vocab, error);
    if (!status) status = read_merges(v, gguf, error);
    if (!status) status = read_types(v, gguf, n_vocab, error);
    if (!status) status = read_normalized(v, gguf, n_vocab, error);
    if (status) return status;
    fastgpt_strings tokens = {v->tokens.n, v->tokens.text, v->tokens.offsets};
    return vocab_decode(&v->bytes, &tokens, v->types) ? FASTGPT_OK
                                                      : fail(error, FASTGPT_ERR_MEMORY, "no memory for the vocabulary");
}

fastgpt_status vocab_read(vocab *v, const gguf_file *gguf, int32_t n_vocab, fastgpt_error *error) {
    memset(v, 0, sizeof *v);
    gguf_string kind;
    fastgpt_status status = read_eos(v, gguf, n_vocab, error);
    if (!status) status = read_string(gguf, "tokenizer.ggml.model", &kind, error);
    if (status || kind.n == 0 || gguf_string_is(kind, "none")) return status;
    if (!gguf_string_is(kind, "gpt2"))
        return fail(error, FASTGPT_ERR_UNSUPPORTED, "tokenizer.ggml.model is %.*s; gpt2 and none are implemented",
                    gguf_shown(kind), kind.text);
    return read_all(v, gguf, n_vocab, error);
}

void vocab_free(vocab *v) {
    string_list_free(&v->tokens);
    string_list_free(&v->merges);
    string_list_free(&v->bytes);
    free(v->types);
    free(v->encoding_types);
    memset(v, 0, sizeof *v);
}

size_t vocab_sizeof(const vocab *v) {
    size_t n_lists = (size_t)(v->types != NULL) + (v->encoding_types != NULL);
    size_t types = n_lists * (size_t)v->tokens.n * sizeof *v->types;
    return string_list_sizeof(&v->tokens) + string_list_sizeof(&v->merges) + string_list_sizeof(&v->bytes) + types;
}
