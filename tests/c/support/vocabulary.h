/* vocabulary.h - vocabularies for the tests: the 256 bytes, then whatever a test adds. */
#ifndef FASTGPT_TEST_VOCABULARY_H
#define FASTGPT_TEST_VOCABULARY_H

#include "support/load.h"

enum { VOCABULARY_MAX = 4096, VOCABULARY_MAX_BYTES = 1 << 20 };

/* Lists in the making; add_* appends to one. */
typedef struct strings {
    int64_t n;
    char text[VOCABULARY_MAX_BYTES];
    uint64_t offsets[VOCABULARY_MAX + 1];
} strings;

typedef struct vocabulary {
    strings tokens, merges;
    int32_t types[VOCABULARY_MAX];
} vocabulary;

/* The character of GPT-2's alphabet that stands for a byte, in UTF-8: itself where it prints, else U+0100 and up. */
static inline void byte_character(int byte, char utf8[3]) {
    int next = 0x100, c = 0;
    for (int b = 0; b <= byte; b++) {
        bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b != 0xAD);
        c = printable ? b : next++;
    }
    utf8[0] = (char)(c < 0x80 ? c : 0xC0 | c >> 6);
    utf8[1] = (char)(c < 0x80 ? 0 : 0x80 | (c & 0x3F));
    utf8[2] = 0;
}

static inline void add_string(strings *list, const char *text, size_t n) {
    if (list->n == VOCABULARY_MAX || list->offsets[list->n] + n > VOCABULARY_MAX_BYTES) abort();
    memcpy(list->text + list->offsets[list->n], text, n);
    list->offsets[list->n + 1] = list->offsets[list->n] + n;
    list->n++;
}

static inline void add_token(vocabulary *v, const char *text, int32_t type) {
    v->types[v->tokens.n] = type;
    add_string(&v->tokens, text, strlen(text));
}

static inline void add_merge(vocabulary *v, const char *text) { add_string(&v->merges, text, strlen(text)); }

/* A merge of two texts in the alphabet, and the token that it makes. */
static inline void add_rule(vocabulary *v, const char *left, const char *right) {
    char text[512];
    snprintf(text, sizeof text, "%s %s", left, right);
    add_merge(v, text);
    snprintf(text, sizeof text, "%s%s", left, right);
    add_token(v, text, 1);
}

/* Token i is byte i.  To be freed with free. */
static inline vocabulary *new_vocabulary(void) {
    vocabulary *v = calloc(1, sizeof *v);
    if (!v) abort();
    for (int byte = 0; byte < 256; byte++) {
        char utf8[3];
        byte_character(byte, utf8);
        add_token(v, utf8, 1);
    }
    return v;
}

static inline fastgpt_status create_tokenizer(const vocabulary *v, fastgpt_tokenizer **out, fastgpt_error *error) {
    fastgpt_strings tokens = {v->tokens.n, v->tokens.text, v->tokens.offsets};
    fastgpt_strings merges = {v->merges.n, v->merges.text, v->merges.offsets};
    return fastgpt_tokenizer_create_from(&tokens, &merges, v->types, out, error);
}

/* One that cannot fail; frees v. */
static inline fastgpt_tokenizer *new_tokenizer(vocabulary *v) {
    fastgpt_tokenizer *tokenizer;
    fastgpt_error error;
    if (create_tokenizer(v, &tokenizer, &error) != FASTGPT_OK) {
        fprintf(stderr, "%s\n", error.text);
        abort();
    }
    free(v);
    return tokenizer;
}

/* The tokens of english_vocabulary() after the bytes. */
enum {
    TH = 256,
    S_A,
    THE,
    S_THE,
    IN,
    ING,
    E_ACUTE,
    AA,
    AAAA,
    SS,
    X_S,
    LL,
    X_LL,
    N12,
    EX2,
    EOT,
    END,
    SS_USER,
    PAD,
    NEVER
};

/* A small vocabulary with merges over words, spaces, a character of two bytes, and tokens that overlap. */
static inline vocabulary *english_vocabulary(void) {
    static const char *const rules[][2] = {{"t", "h"},
                                           {"\xC4\xA0", "a"},
                                           {"th", "e"},
                                           {"\xC4\xA0", "the"},
                                           {"i", "n"},
                                           {"in", "g"},
                                           {"\xC3\x83", "\xC2\xA9"},
                                           {"a", "a"},
                                           {"aa", "aa"},
                                           {"\xC4\xA0", "\xC4\xA0"},
                                           {"'", "s"},
                                           {"l", "l"},
                                           {"'", "ll"},
                                           {"1", "2"},
                                           {"!", "!"}};
    vocabulary *v = new_vocabulary();
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) add_rule(v, rules[i][0], rules[i][1]);
    add_token(v, "<|endoftext|>", 3);
    add_token(v, "<|end", 4);
    add_token(v, "  ", 4);
    add_token(v, "[PAD]", 5);
    add_token(v, "unmergeable", 1);
    return v;
}

/* A loaded model with this vocabulary and weights of small_shape; eos is one of its tokens, which ends a text, and so
 * does the first token. */
static inline fastgpt_model *load_with_vocabulary(const vocabulary *v, uint32_t eos) {
    model_shape shape = small_shape;
    shape.n_vocab = (uint32_t)v->tokens.n;
    draft d = draft_of(shape);
    const struct {
        const char *key;
        const strings *list;
    } lists[] = {{"tokenizer.ggml.tokens", &v->tokens}, {"tokenizer.ggml.merges", &v->merges}};
    for (int i = 0; i < 2; i++) {
        const strings *list = lists[i].list;
        buffer *array = draft_set_array(&d, lists[i].key, GGUF_STRING, (uint64_t)list->n);
        for (int64_t k = 0; k < list->n; k++) {
            put_u64(array, list->offsets[k + 1] - list->offsets[k]);
            put(array, list->text + list->offsets[k], list->offsets[k + 1] - list->offsets[k]);
        }
    }
    buffer *types = draft_set_array(&d, "tokenizer.ggml.token_type", GGUF_I32, (uint64_t)v->tokens.n);
    for (int64_t k = 0; k < v->tokens.n; k++) put_u32(types, (uint32_t)v->types[k]);
    draft_set_u32(&d, "tokenizer.ggml.eos_token_id", eos);
    draft_set_u32(&d, "tokenizer.ggml.eot_token_id", 0);
    return load_valid(&d, false);
}

#endif
