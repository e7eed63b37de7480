/* test_vocab.c - the tokenizer part of a model file: what it says can be read, and what is wrong is refused by name. */
#include "support/check.h"
#include "support/vocabulary.h"

#include "model/model.h"

static draft tiny(void) { return draft_of(tiny_shape); }

/* Frees the draft. */
static void refused(draft *d, fastgpt_status expected, const char *culprit) {
    fastgpt_model *model;
    fastgpt_error error;
    fastgpt_status status = load_draft(d, false, &model, &error);
    CHECK_FOR(status == expected && !model && strstr(error.text, culprit),
              "\"%s\" expected with status %d; status %d, \"%s\"", culprit, expected, status, error.text);
    if (status == FASTGPT_OK) fastgpt_model_free(model);
    draft_free(d);
}

/* ---- What a valid file says ---- */

static bool string_is(fastgpt_strings list, int64_t i, const char *text) {
    uint64_t n = list.offsets[i + 1] - list.offsets[i];
    return n == strlen(text) && memcmp(list.text + list.offsets[i], text, n) == 0;
}

static void test_strings(void) {
    fastgpt_model *m = load_shape(tiny_shape, false);
    fastgpt_strings tokens = fastgpt_model_tokens(m), merges = fastgpt_model_merges(m);
    CHECK(tokens.n == 11 && tokens.offsets[0] == 0);
    for (int i = 0; i < N_DRAFT_TOKENS; i++) CHECK_FOR(string_is(tokens, i, draft_tokens[i].text), "token %d", i);
    CHECK(string_is(tokens, 10, "t10"));
    CHECK(merges.n == 2 && string_is(merges, 0, "\xC4\xA0 a") && string_is(merges, 1, "a a"));
    const int32_t *types = fastgpt_model_token_types(m);
    for (int i = 0; i < 11; i++) CHECK(types[i] == (i < N_DRAFT_TOKENS ? draft_tokens[i].type : 1));
    fastgpt_model_free(m);
}

static void test_token_bytes(void) {
    static const int32_t outside[] = {-1, 11, INT32_MIN, INT32_MAX};
    fastgpt_model *m = load_shape(tiny_shape, false);
    for (int i = 0; i < N_DRAFT_TOKENS; i++) {
        size_t n = 77;
        const char *bytes = fastgpt_model_token_bytes(m, i, &n);
        CHECK_FOR(bytes && n == strlen(draft_tokens[i].bytes) && memcmp(bytes, draft_tokens[i].bytes, n) == 0,
                  "token %d: %zu bytes", i, n);
    }
    for (int i = 0; i < 4; i++) {
        size_t n = 77;
        CHECK(!fastgpt_model_token_bytes(m, outside[i], &n) && n == 0);
    }
    fastgpt_model_free(m);
}

/* GPT-2's alphabet: each byte has one character, and the token of that character stands for the byte. */
static void test_alphabet(void) {
    model_shape shape = tiny_shape;
    shape.n_vocab = 256;
    draft d = draft_of(shape);
    buffer *tokens = draft_set_array(&d, "tokenizer.ggml.tokens", GGUF_STRING, 256);
    for (int byte = 0; byte < 256; byte++) {
        char utf8[3];
        byte_character(byte, utf8);
        put_string(tokens, utf8);
    }
    draft_drop_key(&d, "tokenizer.ggml.token_type");
    fastgpt_model *m;
    CHECK(load_draft(&d, false, &m, NULL) == FASTGPT_OK);
    CHECK(!fastgpt_model_token_types(m));
    for (int byte = 0; byte < 256; byte++) {
        size_t n;
        const char *bytes = fastgpt_model_token_bytes(m, byte, &n);
        CHECK_FOR(n == 1 && (uint8_t)bytes[0] == byte, "byte %d", byte);
    }
    fastgpt_model_free(m);
    draft_free(&d);
}

/* Text that is not UTF-8, or not of the alphabet, stands for itself. */
static void test_odd_tokens(void) {
    static const char *const odd[] = {"",         "\xC4", "\xC4\x41", "\x80",     "\xFF\xFE", "\xC0\x80",
                                      "\xC1\xBF", " ",    "\xC5\x84", "\xC2\xAD", "a\xC4",    "\xE2\x82\xAC"};
    draft d = tiny();
    buffer *tokens = draft_set_array(&d, "tokenizer.ggml.tokens", GGUF_STRING, 11);
    for (int i = 0; i < 11; i++) put_string(tokens, odd[i]);
    draft_drop_key(&d, "tokenizer.ggml.token_type");
    fastgpt_model *m;
    CHECK(load_draft(&d, false, &m, NULL) == FASTGPT_OK);
    for (int i = 0; i < 11; i++) {
        size_t n;
        const char *bytes = fastgpt_model_token_bytes(m, i, &n);
        CHECK_FOR(n == strlen(odd[i]) && memcmp(bytes, odd[i], n) == 0, "odd token %d: %zu bytes", i, n);
    }
    fastgpt_model_free(m);
    draft_free(&d);
}

/* "none", "", and no tokenizer at all: no strings, but still an end token where there is one. */
static void test_without_tokenizer(void) {
    for (int way = 0; way < 3; way++) {
        draft d = tiny();
        if (way == 0) draft_drop_key(&d, "tokenizer.ggml.model");
        else draft_set_string(&d, "tokenizer.ggml.model", way == 1 ? "none" : "");
        fastgpt_model *m;
        size_t n = 77;
        CHECK(load_draft(&d, false, &m, NULL) == FASTGPT_OK);
        CHECK(fastgpt_model_tokens(m).n == 0 && fastgpt_model_tokens(m).offsets[0] == 0);
        CHECK(fastgpt_model_merges(m).n == 0 && fastgpt_model_merges(m).text != NULL);
        CHECK(!fastgpt_model_token_types(m) && !fastgpt_model_token_bytes(m, 0, &n) && n == 0);
        CHECK(fastgpt_model_eos_token(m) == DRAFT_EOS);
        fastgpt_model_free(m);
        draft_drop_key(&d, "tokenizer.ggml.eos_token_id");
        CHECK(load_draft(&d, false, &m, NULL) == FASTGPT_OK && fastgpt_model_eos_token(m) == -1);
        fastgpt_model_free(m);
        draft_free(&d);
    }
}

/* Writers of GGUF leave an empty list out: without the key, text becomes the tokens of its bytes. */
static void test_without_merges(void) {
    vocabulary *v = new_vocabulary();
    model_shape shape = tiny_shape;
    shape.n_vocab = 256;
    draft d = draft_of(shape);
    buffer *tokens = draft_set_array(&d, "tokenizer.ggml.tokens", GGUF_STRING, 256);
    for (int64_t i = 0; i < 256; i++) {
        put_u64(tokens, v->tokens.offsets[i + 1] - v->tokens.offsets[i]);
        put(tokens, v->tokens.text + v->tokens.offsets[i], v->tokens.offsets[i + 1] - v->tokens.offsets[i]);
    }
    draft_drop_key(&d, "tokenizer.ggml.token_type");
    draft_drop_key(&d, "tokenizer.ggml.merges");
    fastgpt_model *m = load_valid(&d, false);
    fastgpt_tokenizer *tokenizer;
    int32_t ids[4], n;
    CHECK(fastgpt_model_merges(m).n == 0 && fastgpt_model_tokens(m).n == 256);
    CHECK(fastgpt_tokenizer_create(m, &tokenizer, NULL) == FASTGPT_OK);
    CHECK(fastgpt_encode(tokenizer, "the", 3, FASTGPT_ENCODE_SPECIAL, ids, 4, &n) == FASTGPT_OK && n == 3);
    CHECK(ids[0] == 't' && ids[1] == 'h' && ids[2] == 'e');
    fastgpt_tokenizer_free(tokenizer);
    fastgpt_model_free(m);
    free(v);
}

/* Names that llama.cpp gives to GPT-2's pattern. */
static void test_names_of_the_pattern(void) {
    static const char *const names[] = {"gpt-2",  "gpt2",        "mpt",        "olmo",    "phi-2",
                                        "jais",   "roberta-bpe", "gigachat",   "exaone4", "jina-v2-code",
                                        "mellum", "trillion",    "modern-bert"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        draft d = tiny();
        draft_set_string(&d, "tokenizer.ggml.pre", names[i]);
        fastgpt_model *m;
        CHECK_FOR(load_draft(&d, false, &m, NULL) == FASTGPT_OK, "%s", names[i]);
        fastgpt_model_free(m);
        draft_free(&d);
    }
}

/* ---- The vocabulary alone ---- */

static fastgpt_status load_vocabulary(const draft *d, fastgpt_model **model, fastgpt_error *error) {
    fastgpt_load_options options = {.struct_size = sizeof options, .no_mmap = 1, .vocab_only = 1};
    buffer file = draft_write(d, NULL);
    fastgpt_status status = fastgpt_model_load_memory(file.data, file.n, &options, model, error);
    free(file.data);
    return status;
}

/* Everything that needs weights refuses the model; its tokens are those of the file. */
static void check_vocabulary(const draft *d) {
    fastgpt_model *m;
    fastgpt_error error;
    if (!CHECK(load_vocabulary(d, &m, &error) == FASTGPT_OK)) return;
    CHECK(fastgpt_model_n_vocab(m) == 11 && fastgpt_model_eos_token(m) == DRAFT_EOS);
    CHECK(string_is(fastgpt_model_tokens(m), 10, "t10") && fastgpt_model_merges(m).n == 2);
    CHECK(fastgpt_model_n_layer(m) == 0 && fastgpt_model_n_ctx(m) == 0 && fastgpt_model_n_params(m) == 0);
    CHECK(fastgpt_model_step_bytes(m) == 0 && strcmp(fastgpt_model_type(m), "none") == 0);
    fastgpt_context *ctx;
    fastgpt_kv_cache *kv;
    CHECK(fastgpt_context_create(m, NULL, 0, &ctx) == FASTGPT_ERR_ARGUMENT && !ctx);
    CHECK(fastgpt_kv_cache_create(m, 0, &kv) == FASTGPT_ERR_ARGUMENT && !kv);
    CHECK(fastgpt_kv_cache_load(m, "/nonexistent", 1, &kv, &error) == FASTGPT_ERR_ARGUMENT && !kv);
    fastgpt_model_free(m);
}

/* With its weights, without them, and of an architecture that is not implemented. */
static void test_vocabulary_alone(void) {
    draft d = tiny();
    check_vocabulary(&d);
    while (d.n_tensors > 0) draft_drop_tensor(&d, d.tensors[0].name);
    check_vocabulary(&d);
    draft_set_string(&d, "general.architecture", "mpt");
    check_vocabulary(&d);
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "holds a vocabulary and no weights");
    d = tiny();
    while (d.n_tensors > 0) draft_drop_tensor(&d, d.tensors[0].name);
    draft_drop_key(&d, "tokenizer.ggml.tokens");
    fastgpt_model *m;
    fastgpt_error error;
    CHECK(load_vocabulary(&d, &m, &error) == FASTGPT_ERR_FORMAT && !m && strstr(error.text, "holds no vocabulary"));
    draft_free(&d);
}

/* Tokens that end a text, as llama.cpp names them and as our list does: each once, in that order. */
static void test_eos_tokens(void) {
    draft d = tiny();
    draft_set_u32(&d, "tokenizer.ggml.eot_token_id", 4);
    draft_set_u32(&d, "tokenizer.ggml.eom_token_id", DRAFT_EOS);
    buffer *list = draft_set_array(&d, "fastgpt.eos_token_ids", GGUF_U32, 3);
    put_u32(list, 2), put_u32(list, 4), put_u32(list, 10);
    const int32_t expected[] = {DRAFT_EOS, 4, 2, 10};
    fastgpt_model *m;
    CHECK(load_draft(&d, false, &m, NULL) == FASTGPT_OK);
    CHECK(fastgpt_model_n_eos_tokens(m) == 4 && fastgpt_model_eos_token(m) == DRAFT_EOS);
    CHECK(memcmp(fastgpt_model_eos_tokens(m), expected, sizeof expected) == 0);
    fastgpt_model_free(m);
    draft_free(&d);
}

/* ---- What is wrong ---- */

/* The key that says which tokens an encoder cuts out last names special tokens alone. */
static void test_normalized_tokens(void) {
    static const char key[] = "fastgpt.tokenizer.normalized_tokens";
    static const uint32_t wrong[] = {4, 11, UINT32_MAX};
    for (int i = 0; i < 4; i++) {
        draft d = tiny();
        buffer *types = draft_set_array(&d, "tokenizer.ggml.token_type", GGUF_I32, 11);
        for (int t = 0; t < 11; t++) put_u32(types, t == 5 ? 3 : t == 6 ? 4 : 1);
        buffer *named = draft_set_array(&d, key, GGUF_I32, 2);
        put_u32(named, 5);
        put_u32(named, i < 3 ? wrong[i] : 6);
        if (i < 3) {
            refused(&d, FASTGPT_ERR_FORMAT, key);
            continue;
        }
        fastgpt_model *m;
        CHECK(load_draft(&d, false, &m, NULL) == FASTGPT_OK);
        CHECK(fastgpt_model_token_types(m)[5] == 3 && m->vocab.encoding_types[5] == 4);
        fastgpt_model_free(m);
        draft_free(&d);
    }
    draft d = tiny();
    put_u32(draft_set_array(&d, key, GGUF_I32, 1), 5);
    draft_drop_key(&d, "tokenizer.ggml.token_type");
    refused(&d, FASTGPT_ERR_FORMAT, "stands without token types");
}

/* A key of each kind, given a value of another kind. */
static void test_wrong_types(void) {
    static const char *const keys[] = {"tokenizer.ggml.model",        "tokenizer.ggml.pre",
                                       "tokenizer.ggml.eos_token_id", "tokenizer.ggml.add_bos_token",
                                       "tokenizer.ggml.eot_token_id", "fastgpt.eos_token_ids",
                                       "tokenizer.ggml.tokens",       "tokenizer.ggml.token_type",
                                       "tokenizer.ggml.merges",       "fastgpt.tokenizer.normalized_tokens"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        draft d = tiny();
        put_number(draft_set(&d, keys[i], GGUF_U16), 1, 2);
        refused(&d, FASTGPT_ERR_FORMAT, keys[i]);
        d = tiny();
        put_zeros(draft_set_array(&d, keys[i], GGUF_U16, 11), 22);
        refused(&d, FASTGPT_ERR_FORMAT, keys[i]);
    }
}

static void test_lengths(void) {
    static const uint64_t lengths[] = {0, 10, 12};
    for (int i = 0; i < 3; i++) {
        draft d = tiny();
        put_zeros(draft_set_array(&d, "tokenizer.ggml.tokens", GGUF_STRING, lengths[i]), 8 * lengths[i]);
        refused(&d, FASTGPT_ERR_FORMAT, "tokenizer.ggml.tokens has ");
        d = tiny();
        put_zeros(draft_set_array(&d, "tokenizer.ggml.token_type", GGUF_I32, lengths[i]), 4 * lengths[i]);
        refused(&d, FASTGPT_ERR_FORMAT, "tokenizer.ggml.token_type does not have n_vocab entries");
    }
    draft d = tiny();
    draft_drop_key(&d, "tokenizer.ggml.tokens");
    refused(&d, FASTGPT_ERR_FORMAT, "tokenizer.ggml.tokens is missing");
}

static void test_values(void) {
    static const uint32_t types[] = {0, 7, (uint32_t)-1}, eos[] = {11, 1u << 31, UINT32_MAX};
    for (int i = 0; i < 3; i++) {
        draft d = tiny();
        buffer *value = draft_set_array(&d, "tokenizer.ggml.token_type", GGUF_I32, 11);
        for (int t = 0; t < 11; t++) put_u32(value, t == 4 ? types[i] : 1);
        refused(&d, FASTGPT_ERR_FORMAT, "tokenizer.ggml.token_type: token 4 has type");
        d = tiny();
        draft_set_u32(&d, "tokenizer.ggml.eos_token_id", eos[i]);
        refused(&d, FASTGPT_ERR_FORMAT, "tokenizer.ggml.eos_token_id is ");
        d = tiny();
        put_u32(draft_set_array(&d, "fastgpt.eos_token_ids", GGUF_U32, 1), eos[i]);
        refused(&d, FASTGPT_ERR_FORMAT, "fastgpt.eos_token_ids is ");
    }
}

static void test_too_many_eos_tokens(void) {
    model_shape shape = tiny_shape;
    shape.n_vocab = 100;
    draft d = draft_of(shape);
    buffer *list = draft_set_array(&d, "fastgpt.eos_token_ids", GGUF_U32, 65);
    for (uint32_t i = 0; i < 65; i++) put_u32(list, i + 20);
    refused(&d, FASTGPT_ERR_FORMAT, "fastgpt.eos_token_ids: more than 64 tokens");
}

static void test_unsupported(void) {
    static const char *const switches[] = {"tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token",
                                           "tokenizer.ggml.add_space_prefix"};
    draft d = tiny();
    draft_set_string(&d, "tokenizer.ggml.model", "llama");
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "tokenizer.ggml.model is llama");
    d = tiny();
    draft_set_string(&d, "tokenizer.ggml.pre", "llama-bpe");
    refused(&d, FASTGPT_ERR_UNSUPPORTED, "tokenizer.ggml.pre is llama-bpe");
    for (int i = 0; i < 3; i++) {
        d = tiny();
        draft_set_bool(&d, switches[i], true);
        refused(&d, FASTGPT_ERR_UNSUPPORTED, switches[i]);
    }
}

int main(void) {
    test_strings();
    test_token_bytes();
    test_alphabet();
    test_odd_tokens();
    test_without_tokenizer();
    test_without_merges();
    test_names_of_the_pattern();
    test_vocabulary_alone();
    test_eos_tokens();
    test_normalized_tokens();
    test_wrong_types();
    test_lengths();
    test_values();
    test_too_many_eos_tokens();
    test_unsupported();
    return check_report();
}
