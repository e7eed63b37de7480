/* vocab.c - see vocab.h. */
#include "vocab.h"

#include <stdlib.h>
#include <string.h>

#include "status.h"

enum { TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_UNUSED = 5, TYPE_LAST = 6 };

/* ---- Lists ---- */

static void list_free(string_list *list) {
    free(list->text);
    free(list->offsets);
}

static size_t list_sizeof(const string_list *list) {
    if (!list->offsets) return 0;
    return list->offsets[list->n] + ((size_t)list->n + 1) * sizeof *list->offsets;
}

static bool list_alloc(string_list *list, uint64_t n, uint64_t n_bytes) {
    list->n = (int64_t)n;
    list->text = malloc(n_bytes + 1);
    list->offsets = calloc(n + 1, sizeof *list->offsets);
    return list->text && list->offsets;
}

/* The strings of an array that gguf_parse has walked through already, so that all of it is in bounds. */
static fastgpt_status list_read(string_list *list, const gguf_value *array, fastgpt_error *error) {
    uint64_t n_bytes = 0;
    const uint8_t *at = array->data;
    for (uint64_t i = 0; i < array->n; i++) n_bytes += gguf_next_string(&at).n;
    if (!list_alloc(list, array->n, n_bytes)) return fail(error, FASTGPT_ERR_MEMORY, "no memory for the vocabulary");
    at = array->data;
    for (uint64_t i = 0; i < array->n; i++) {
        gguf_string string = gguf_next_string(&at);
        memcpy(list->text + list->offsets[i], string.text, string.n);
        list->offsets[i + 1] = list->offsets[i] + string.n;
    }
    return FASTGPT_OK;
}

/* ---- Token -> bytes ---- */

/* The byte that a character of GPT-2's alphabet stands for, -1 for any other character.  Printable Latin-1
 * stands for itself; the other 68 bytes, in rising order, are U+0100, U+0101 ... (encoder.py of
 * https://github.com/openai/gpt-2). */
static int byte_of_character(uint32_t c) {
    if ((c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF)) return (int)c;
    if (c < 0x100 || c >= 0x100 + 68) return -1;
    uint32_t i = c - 0x100;
    if (i <= 0x20) return (int)i;                     /* 00..20 */
    if (i <= 0x20 + 34) return (int)(i - 0x21 + 0x7F); /* 7F..A0 */
    return 0xAD;
}

/* Every character of the alphabet has one or two bytes of UTF-8.  Returns the number of bytes written to
 * out, or -1 when the token has a character outside the alphabet. */
static int64_t decode_token(char *out, const char *text, uint64_t n) {
    int64_t n_out = 0;
    for (uint64_t i = 0; i < n; n_out++) {
        uint32_t c = (uint8_t)text[i++];
        if (c >= 0xC2 && c <= 0xDF && i < n && ((uint8_t)text[i] & 0xC0) == 0x80)
            c = (c & 0x1F) << 6 | ((uint8_t)text[i++] & 0x3F);
        else if (c >= 0x80) return -1;
        int byte = byte_of_character(c);
        if (byte < 0) return -1;
        out[n_out] = (char)byte;
    }
    return n_out;
}

/* Control and user-defined tokens are literal text, and so is a token outside the alphabet, as in Hugging
 * Face's ByteLevel decoder; unused tokens stand for nothing. */
static fastgpt_status decode_tokens(vocab *v, fastgpt_error *error) {
    uint64_t n_bytes = v->tokens.offsets[v->tokens.n];
    if (!list_alloc(&v->bytes, (uint64_t)v->tokens.n, n_bytes))
        return fail(error, FASTGPT_ERR_MEMORY, "no memory for the vocabulary");
    for (int64_t i = 0; i < v->tokens.n; i++) {
        const char *text = v->tokens.text + v->tokens.offsets[i];
        uint64_t n = v->tokens.offsets[i + 1] - v->tokens.offsets[i];
        char *out = v->bytes.text + v->bytes.offsets[i];
        int32_t type = v->types ? v->types[i] : 1;
        bool literal = type == TYPE_CONTROL || type == TYPE_USER_DEFINED;
        int64_t n_out = type == TYPE_UNUSED ? 0 : literal ? -1 : decode_token(out, text, n);
        if (n_out < 0) memcpy(out, text, n);
        v->bytes.offsets[i + 1] = v->bytes.offsets[i] + (n_out < 0 ? n : (uint64_t)n_out);
    }
    return FASTGPT_OK;
}

/* ---- Keys ---- */

static fastgpt_status require_strings(const gguf_file *gguf, const char *key, const gguf_value **array,
                                      fastgpt_error *error) {
    fastgpt_status status = gguf_get_array(gguf, key, GGUF_STRING, array, error);
    if (!status && !*array) return fail(error, FASTGPT_ERR_FORMAT, "key %s is missing", key);
    return status;
}

static fastgpt_status read_tokens(vocab *v, const gguf_file *gguf, int32_t n_vocab, fastgpt_error *error) {
    const gguf_value *array;
    fastgpt_status status = require_strings(gguf, "tokenizer.ggml.tokens", &array, error);
    if (status) return status;
    if (array->n != (uint64_t)n_vocab)
        return fail(error, FASTGPT_ERR_FORMAT, "tokenizer.ggml.tokens has %llu tokens, token_embd.weight has %d rows",
                    (unsigned long long)array->n, n_vocab);
    return list_read(&v->tokens, array, error);
}

static fastgpt_status read_merges(vocab *v, const gguf_file *gguf, fastgpt_error *error) {
    const gguf_value *array;
    fastgpt_status status = require_strings(gguf, "tokenizer.ggml.merges", &array, error);
    return status ? status : list_read(&v->merges, array, error);
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
        if (v->types[i] < 1 || v->types[i] > TYPE_LAST)
            return fail(error, FASTGPT_ERR_FORMAT, "%s: token %d has type %d", key, i, v->types[i]);
    }
    return FASTGPT_OK;
}

static fastgpt_status read_eos(vocab *v, const gguf_file *gguf, int32_t n_vocab, fastgpt_error *error) {
    const char *key = "tokenizer.ggml.eos_token_id";
    const gguf_value *value;
    fastgpt_status status = gguf_get(gguf, key, GGUF_U32, &value, error);
    if (status || !value) return status;
    uint32_t token = gguf_u32(value->data);
    if (token >= (uint32_t)n_vocab)
        return fail(error, FASTGPT_ERR_FORMAT, "%s is %u, n_vocab is %d", key, token, n_vocab);
    v->eos_token = (int32_t)token;
    return FASTGPT_OK;
}

/* Text under a key; n = 0 when absent. */
static fastgpt_status read_string(const gguf_file *gguf, const char *key, gguf_string *string, fastgpt_error *error) {
    const gguf_value *value;
    fastgpt_status status = gguf_get(gguf, key, GGUF_STRING, &value, error);
    const uint8_t *at = value ? value->data : NULL;
    *string = !status && at ? gguf_next_string(&at) : (gguf_string){"", 0};
    return status;
}

/* A tokenizer that would prepare text in another way than GPT-2's is refused, not imitated. */
static fastgpt_status refuse_other_kinds(const gguf_file *gguf, fastgpt_error *error) {
    static const char *const switches[] = {"tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token",
                                           "tokenizer.ggml.add_space_prefix"};
    gguf_string kind;
    fastgpt_status status = read_string(gguf, "tokenizer.ggml.pre", &kind, error);
    if (!status && kind.n > 0 && !gguf_string_is(kind, "gpt-2") && !gguf_string_is(kind, "gpt2"))
        return fail(error, FASTGPT_ERR_UNSUPPORTED, "tokenizer.ggml.pre is %.*s; gpt-2 is implemented",
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
    return status ? status : decode_tokens(v, error);
}

fastgpt_status vocab_read(vocab *v, const gguf_file *gguf, int32_t n_vocab, fastgpt_error *error) {
    memset(v, 0, sizeof *v);
    v->eos_token = -1;
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
    list_free(&v->tokens);
    list_free(&v->merges);
    list_free(&v->bytes);
    free(v->types);
    memset(v, 0, sizeof *v);
}

size_t vocab_sizeof(const vocab *v) {
    size_t types = v->types ? (size_t)v->tokens.n * sizeof *v->types : 0;
    return list_sizeof(&v->tokens) + list_sizeof(&v->merges) + list_sizeof(&v->bytes) + types;
}
