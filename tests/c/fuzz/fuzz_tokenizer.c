/* fuzz_tokenizer.c - random bytes through a tokenizer:  fuzz_tokenizer N SEED [MODEL]  encodes N byte strings, the same
 * ones for the same SEED, with the vocabulary of MODEL or else a small one; and makes N / 100 damaged vocabularies.
 *
 * Exits non-zero when anything is not as the header promises; a sanitizer, or the system, reports the rest.  String
 * number i of SEED is string number 0 of SEED + i. */
#include "support/random.h"
#include "support/vocabulary.h"

#include <inttypes.h>

#include "tokenizer/utf8.h"

enum { MAX_BYTES = 4096 };

static uint64_t random_state;
static uint64_t number; /* of the string: its seed */
static int n_unexpected;

static size_t pick(size_t n) { return (size_t)random_below(&random_state, n); }

static void expect(bool condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "fuzz_tokenizer 1 %" PRIu64 ": %s\n", number, what);
    n_unexpected++;
}

/* ---- Random strings ---- */

static const char *const fragments[] = {"the",          " the",
                                        "'s",           "'ll",
                                        "  ",           "\n",
                                        "\t ",          "123",
                                        "!?",           "<|endoftext|>",
                                        "<|end",        "\xC3\xA9",
                                        "\xE4\xBD\xA0", "\xF0\x9F\x98\x80",
                                        "\xCC\x81",     "\xC2\xA0",
                                        "\xE2\x80\x89", "\xC2\xBD",
                                        "\xED\xA0\x80", "\xF4\x90\x80\x80",
                                        "\xC0\x80",     "\xEF\xBB\xBF"};

static void put_random(char *text, size_t *n) {
    const char *fragment = fragments[pick(sizeof fragments / sizeof *fragments)];
    switch (pick(5)) {
    case 0:  text[(*n)++] = (char)pick(256); break;
    case 1:  text[(*n)++] = (char)('a' + pick(26)); break;
    case 2:  text[(*n)++] = (char)(0x80 + pick(128)); break;
    case 3:  text[(*n)++] = (char)pick(128); break;
    default: *n += (size_t)snprintf(text + *n, 16, "%s", fragment); break;
    }
}

/* A few parts, or one of them many times; then cut anywhere.  Returns its length. */
static size_t random_text(char *text) {
    size_t n = 0, n_parts = pick(24), n_times = pick(8) ? 1 : 1 + pick(100);
    while (n_parts-- > 0 && n < MAX_BYTES / 2) put_random(text, &n);
    size_t once = n;
    for (; n_times > 1 && n + once < MAX_BYTES; n_times--, n += once) memcpy(text + n, text, once);
    return n ? n - pick(2) : 0;
}

/* ---- What must hold ---- */

static bool is_utf8(const char *text, size_t n) {
    uint32_t code;
    for (size_t i = 0; i < n;) {
        int length = utf8_next((const uint8_t *)text + i, n - i, &code);
        if (length <= 0) return false;
        i += (size_t)length;
    }
    return true;
}

/* Streamed text is valid at every token, and is the text itself where that is valid. */
static void check_stream(fastgpt_stream *stream, const int32_t *tokens, int32_t n_tokens, const char *text, size_t n) {
    static char streamed[3 * MAX_BYTES + 4];
    size_t n_streamed = 0, length;
    const char *piece;
    for (int32_t i = 0; i <= n_tokens; i++) {
        if (i < n_tokens) expect(!fastgpt_stream_push(stream, tokens[i], &piece, &length), "push failed");
        else expect(!fastgpt_stream_finish(stream, &piece, &length), "finish failed");
        expect(is_utf8(piece, length) && piece[length] == '\0', "a piece is not UTF-8");
        memcpy(streamed + n_streamed, piece, length);
        n_streamed += length;
    }
    if (is_utf8(text, n)) expect(n_streamed == n && memcmp(streamed, text, n) == 0, "the stream changed the text");
}

/* Tokens of a text of its own size in memory, so that reading past its end shows. */
static void check_text(const fastgpt_tokenizer *t, fastgpt_stream *stream, const char *bytes, size_t n, int32_t flags) {
    static int32_t tokens[MAX_BYTES];
    static char back[MAX_BYTES];
    char *text = malloc(n + (n == 0));
    if (!text) abort();
    memcpy(text, bytes, n);
    int32_t n_tokens = -1, n_again = -1;
    size_t n_back = 0;
    expect(!fastgpt_encode(t, text, n, flags, tokens, (int32_t)n, &n_tokens), "encode failed");
    fastgpt_status status = fastgpt_encode(t, text, n, flags, NULL, 0, &n_again);
    expect(status == (n ? FASTGPT_ERR_CAPACITY : FASTGPT_OK) && n_again == n_tokens, "the number differs");
    expect(!fastgpt_detokenize(t, tokens, n_tokens, back, MAX_BYTES, &n_back), "detokenize failed");
    expect(n_back == n && memcmp(back, text, n) == 0, "the bytes do not come back");
    check_stream(stream, tokens, n_tokens, text, n);
    free(text);
}

/* ---- Damaged vocabularies ---- */

static void damage_list(strings *list) {
    size_t n = list->offsets[list->n], times = 1 + pick(4);
    while (n > 0 && times-- > 0) {
        if (pick(2)) list->text[pick(n)] = (char)(pick(3) ? pick(256) : ' ');
        else {
            size_t i = 1 + pick((size_t)list->n);
            list->offsets[i] = list->offsets[i - 1];
        }
    }
}

/* What is made of it is refused in words, or encodes without harm.  Returns whether it was refused. */
static bool try_damaged(uint64_t seed) {
    random_state = number = seed;
    vocabulary *v = english_vocabulary();
    if (pick(2)) damage_list(&v->tokens);
    else damage_list(&v->merges);
    v->types[pick((size_t)v->tokens.n)] = (int32_t)pick(8);
    fastgpt_tokenizer *t;
    fastgpt_error error = {""};
    fastgpt_status status = create_tokenizer(v, &t, &error);
    expect(status == FASTGPT_OK || ((status == FASTGPT_ERR_FORMAT || status == FASTGPT_ERR_ARGUMENT) && error.text[0]),
           "an odd refusal");
    char text[MAX_BYTES];
    int32_t tokens[MAX_BYTES], n_tokens;
    for (int i = 0; i < 20 && t; i++) {
        size_t n = random_text(text);
        status = fastgpt_encode(t, text, n, (int32_t)pick(2), tokens, MAX_BYTES, &n_tokens);
        expect(status == FASTGPT_OK || status == FASTGPT_ERR_NO_TOKEN, "an odd status");
        for (int32_t k = 0; k < n_tokens; k++) expect(tokens[k] >= 0 && tokens[k] < v->tokens.n, "not a token");
    }
    fastgpt_tokenizer_free(t);
    free(v);
    return !t;
}

/* ---- All of it ---- */

static fastgpt_tokenizer *tokenizer_of(const char *path) {
    fastgpt_model *model;
    fastgpt_tokenizer *t;
    fastgpt_error error;
    if (!path) return new_tokenizer(english_vocabulary());
    if (fastgpt_model_load(path, NULL, &model, &error) || fastgpt_tokenizer_create(model, &t, &error)) {
        fprintf(stderr, "%s\n", error.text);
        exit(2);
    }
    fastgpt_model_free(model); /* the tokenizer must not need it */
    return t;
}

int main(int argc, char **argv) {
    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: fuzz_tokenizer N SEED [MODEL]\n");
        return 2;
    }
    uint64_t n = strtoull(argv[1], NULL, 10), seed = strtoull(argv[2], NULL, 10), n_bytes = 0, n_refused = 0;
    fastgpt_tokenizer *t = tokenizer_of(argc == 4 ? argv[3] : NULL);
    fastgpt_stream *stream;
    if (fastgpt_stream_create(t, &stream)) return 2;
    for (uint64_t i = 0; i < n; i++) {
        char text[MAX_BYTES];
        random_state = number = seed + i;
        size_t length = random_text(text);
        check_text(t, stream, text, length, (int32_t)(i % 2));
        n_bytes += length;
    }
    for (uint64_t i = 0; i < n / 100; i++) n_refused += try_damaged(seed + i);
    if (n >= 10000)
        expect(n_refused > n / 1000 && n_refused < n / 100 - n / 1000, "the damage is too strong or too weak");
    fastgpt_stream_free(stream);
    fastgpt_tokenizer_free(t);
    printf("%" PRIu64 " strings of %" PRIu64 " bytes; %" PRIu64 " vocabularies, %" PRIu64 " refused; %d unexpected\n",
           n, n_bytes, n / 100, n_refused, n_unexpected);
    return n_unexpected > 0 || n_bytes < n;
}
