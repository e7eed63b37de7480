/* test_tokenizer.c - text <-> tokens: cuts, merges, special tokens, streams, and every error. */
#include "support/check.h"
#include "support/vocabulary.h"

#include "tokenizer/pretokenize.h"

/* ---- Cuts ---- */

/* Pieces end where the text has a bar. */
static void test_cuts(void) {
    static const char *const texts[] = {"Hello| world|!",
                                        "it|'s| we|'ll| you|'re| I|'ve| I|'m| he|'d| can|'t",
                                        "'|S| '|s",
                                        "a|  | b|   ",
                                        "x| \t| y|\n|z",
                                        "\xC3\xA9t\xC3\xA9| 12|ab|!?| #$",
                                        "a|\xC2\xA0|b|\xC2\xA0|\xC2\xA0|c",
                                        "\xF0\x9F\x98\x80|x",
                                        "\xFF\xC3|a|\xE2\x82|1|\xC3",
                                        "   ",
                                        " ",
                                        "\n\n|\n|a",
                                        "''|s",
                                        "'|l",
                                        "'|r",
                                        "\xE0\xA0|a",
                                        "\xED\xA0\x80|z",
                                        " |\xE2\x80\x89|a",
                                        "3\xC2\xBD|x",
                                        "e|\xCC\x81|e"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char text[100];
        size_t n = 0, cuts[100], n_cuts = 0, at = 0;
        for (const char *c = texts[i]; *c; c++) {
            if (*c == '|') cuts[n_cuts++] = n;
            else text[n++] = *c;
        }
        cuts[n_cuts++] = n;
        for (size_t k = 0; at < n; k++) {
            at += piece_length((const uint8_t *)text + at, n - at);
            CHECK_FOR(k < n_cuts && at == cuts[k], "text %zu, piece %zu ends at %zu", i, k, at);
        }
    }
}

/* ---- Tokens ---- */

enum { MAX_TOKENS = 1 << 20 };
static int32_t tokens[MAX_TOKENS];

static int32_t encode(const fastgpt_tokenizer *t, const char *text, size_t n_bytes, int32_t flags) {
    int32_t n = -1;
    CHECK(fastgpt_encode(t, text, n_bytes, flags, tokens, MAX_TOKENS, &n) == FASTGPT_OK);
    return n;
}

static void test_tokens(void) {
    enum { LITERAL = FASTGPT_ENCODE_LITERAL };
    static const struct {
        const char *text;
        int32_t flags, n, ids[16];
    } cases[] = {{"", 0, 0, {0}},
                 {"the thething", 0, 4, {THE, S_THE, TH, ING}},
                 {" a aaaaaaaa", 0, 5, {S_A, S_A, AAAA, AA, 'a'}},
                 {"it's'll123!!!", 0, 8, {'i', 't', X_S, X_LL, N12, '3', EX2, '!'}},
                 {"\xC3\xA9\xC3", 0, 2, {E_ACUTE, 0xC3}},
                 {"never", 0, 5, {'n', 'e', 'v', 'e', 'r'}},
                 {"unmergeable", 0, 11, {'u', 'n', 'm', 'e', 'r', 'g', 'e', 'a', 'b', 'l', 'e'}},
                 {"a<|end<|endoftext|>", 0, 3, {'a', END, EOT}},
                 {"<|en", 0, 4, {'<', '|', 'e', 'n'}},
                 {"<|end", LITERAL, 5, {'<', '|', 'e', 'n', 'd'}},
                 {"   a", 0, 2, {SS_USER, S_A}},
                 {"   a", LITERAL, 2, {SS, S_A}},
                 {"[PAD]", 0, 5, {'[', 'P', 'A', 'D', ']'}}};
    fastgpt_tokenizer *t = new_tokenizer(english_vocabulary());
    CHECK(fastgpt_tokenizer_n_vocab(t) == NEVER + 1 && fastgpt_tokenizer_sizeof(t) > 5000);
    for (int again = 0; again < 2; again++) /* what was merged once is known the second time */
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            int32_t n = encode(t, cases[i].text, strlen(cases[i].text), cases[i].flags);
            CHECK_FOR(n == cases[i].n && memcmp(tokens, cases[i].ids, (size_t)n * sizeof *tokens) == 0,
                      "\"%s\": %d tokens", cases[i].text, n);
        }
    CHECK(encode(t, "a\0b", 3, 0) == 3 && tokens[1] == 0);
    CHECK(encode(t, NULL, 0, 0) == 0);
    fastgpt_tokenizer_free(t);
}

/* Control tokens are cut out first, so that no user-defined one takes a part of them; user-defined ones then compete
 * for what is left. */
static void test_passes(void) {
    static const struct {
        const char *text;
        int32_t n, ids[8];
    } cases[] = {{"a <end>", 3, {'a', ' ', 256}},
                 {" <<end>> ", 4, {257, 256, '>', ' '}},
                 {" <en <end", 7, {257, 'e', 'n', 257, 'e', 'n', 'd'}},
                 {"<end><end>>", 3, {256, 256, '>'}},
                 {"end> <end>", 2, {258, 256}},
                 {" <end> <", 3, {' ', 256, 257}}};
    vocabulary *v = new_vocabulary();
    add_token(v, "<end>", 3);
    add_token(v, " <", 4);
    add_token(v, "end> ", 4);
    fastgpt_tokenizer *t = new_tokenizer(v);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t n = encode(t, cases[i].text, strlen(cases[i].text), FASTGPT_ENCODE_SPECIAL);
        CHECK_FOR(n == cases[i].n && memcmp(tokens, cases[i].ids, (size_t)n * sizeof *tokens) == 0, "\"%s\": %d tokens",
                  cases[i].text, n);
    }
    fastgpt_tokenizer_free(t);
}

/* Pieces of every length about the one from which on memory is allocated. */
static void test_lengths(void) {
    enum { N = 300 };
    char text[N];
    memset(text, 'a', N);
    fastgpt_tokenizer *t = new_tokenizer(english_vocabulary());
    for (int32_t n = 1; n <= N; n++) {
        int32_t n_fours = n / 4, n_twos = n % 4 / 2, n_tokens = encode(t, text, (size_t)n, 0);
        CHECK_FOR(n_tokens == n_fours + n_twos + n % 2, "%d letters: %d tokens", n, n_tokens);
        for (int32_t i = 0; i < n_tokens; i++)
            CHECK_FOR(tokens[i] == (i < n_fours ? AAAA : i < n_fours + n_twos ? AA : 'a'), "%d letters", n);
    }
    fastgpt_tokenizer_free(t);
}

static void test_bytes(void) {
    static const int32_t ids[] = {EOT, S_THE, PAD, SS_USER, 0xC3, NEVER};
    static const char text[] = "<|endoftext|> the  \xC3unmergeable";
    fastgpt_tokenizer *t = new_tokenizer(english_vocabulary());
    char bytes[64];
    size_t n = 0;
    CHECK(fastgpt_detokenize(t, ids, 6, bytes, sizeof bytes, &n) == FASTGPT_OK);
    CHECK(n == sizeof text - 1 && memcmp(bytes, text, n) == 0);
    CHECK(fastgpt_detokenize(t, NULL, 0, NULL, 0, &n) == FASTGPT_OK && n == 0);
    fastgpt_tokenizer_free(t);
}

/* The array is filled as far as it goes and no further; how much is needed is told. */
static void test_capacity(void) {
    fastgpt_tokenizer *t = new_tokenizer(english_vocabulary());
    char bytes[16] = "unchanged";
    for (int32_t capacity = 0; capacity <= 5; capacity++) {
        int32_t n = 0, row[6] = {-7, -7, -7, -7, -7, -7};
        fastgpt_status status = fastgpt_encode(t, "the thething", 12, 0, row, capacity, &n);
        CHECK_FOR(status == (capacity < 4 ? FASTGPT_ERR_CAPACITY : FASTGPT_OK) && n == 4, "%d", capacity);
        CHECK_FOR(row[capacity < 4 ? capacity : 4] == -7, "%d", capacity);
    }
    int32_t n = 0, ids[] = {THE, S_THE};
    size_t n_bytes = 0;
    CHECK(fastgpt_encode(t, "the thething", 12, 0, NULL, 0, &n) == FASTGPT_ERR_CAPACITY && n == 4);
    CHECK(fastgpt_detokenize(t, ids, 2, bytes, 6, &n_bytes) == FASTGPT_ERR_CAPACITY && n_bytes == 7);
    CHECK(strcmp(bytes, "unchanged") == 0);
    CHECK(fastgpt_detokenize(t, ids, 2, NULL, 0, &n_bytes) == FASTGPT_ERR_CAPACITY && n_bytes == 7);
    CHECK(fastgpt_detokenize(t, ids, 2, bytes, 7, &n_bytes) == FASTGPT_OK && memcmp(bytes, "the theed", 9) == 0);
    fastgpt_tokenizer_free(t);
}

/* ---- Streams ---- */

static void test_stream(void) {
    static const struct {
        const char *bytes, *texts[8]; /* what each byte, and then the end, gives */
    } cases[] = {{"a\xC3\xA9", {"a", "", "\xC3\xA9", ""}},
                 {"\xF0\x9F\x98\x80", {"", "", "", "\xF0\x9F\x98\x80", ""}},
                 {"\xF0\x9F\x98", {"", "", "", "\xEF\xBF\xBD"}},
                 {"\xE2\x82z", {"", "", "\xEF\xBF\xBDz", ""}},
                 {"\xFF\xC3\xC3", {"\xEF\xBF\xBD", "", "\xEF\xBF\xBD", "\xEF\xBF\xBD"}},
                 {"\xF5\x80", {"\xEF\xBF\xBD", "\xEF\xBF\xBD", ""}},
                 {"\xED\xA0\x80", {"", "\xEF\xBF\xBD\xEF\xBF\xBD", "\xEF\xBF\xBD", ""}}};
    fastgpt_tokenizer *t = new_tokenizer(english_vocabulary());
    fastgpt_stream *s;
    CHECK(fastgpt_stream_create(t, &s) == FASTGPT_OK && fastgpt_stream_sizeof(s) > 50);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = strlen(cases[i].bytes), length;
        for (size_t k = 0; k <= n; k++) { /* the end leaves the stream as new for the next case */
            const char *text = NULL;
            fastgpt_status status = k < n ? fastgpt_stream_push(s, (uint8_t)cases[i].bytes[k], &text, &length)
                                          : fastgpt_stream_finish(s, &text, &length);
            CHECK_FOR(!status && length == strlen(text) && strcmp(text, cases[i].texts[k]) == 0,
                      "case %zu, step %zu: \"%s\"", i, k, text);
        }
    }
    fastgpt_stream_free(s);
    fastgpt_tokenizer_free(t);
}

/* ---- Errors ---- */

static void test_arguments(void) {
    fastgpt_tokenizer *t = new_tokenizer(english_vocabulary()), *none = t;
    fastgpt_stream *s, *no_stream;
    CHECK(fastgpt_stream_create(t, &s) == FASTGPT_OK);
    const int32_t odd[] = {-1, NEVER + 1, INT32_MIN, INT32_MAX};
    int32_t row[4], n = -7;
    char bytes[4];
    const char *text = "untouched";
    size_t n_bytes = 77;
    const fastgpt_status refused = FASTGPT_ERR_ARGUMENT;

    CHECK(fastgpt_encode(NULL, "a", 1, 0, row, 4, &n) == refused);
    CHECK(fastgpt_encode(t, NULL, 1, 0, row, 4, &n) == refused);
    CHECK(fastgpt_encode(t, "a", (size_t)INT32_MAX + 1, 0, row, 4, &n) == refused);
    CHECK(fastgpt_encode(t, "a", 1, 2, row, 4, &n) == refused && fastgpt_encode(t, "a", 1, -1, row, 4, &n) == refused);
    CHECK(fastgpt_encode(t, "a", 1, 0, NULL, 4, &n) == refused && fastgpt_encode(t, "a", 1, 0, row, -1, &n) == refused);
    CHECK(n == -7 && fastgpt_encode(t, "a", 1, 0, row, 4, NULL) == refused);

    CHECK(fastgpt_detokenize(NULL, odd, 0, bytes, 4, &n_bytes) == refused);
    CHECK(fastgpt_detokenize(t, NULL, 1, bytes, 4, &n_bytes) == refused);
    CHECK(fastgpt_detokenize(t, odd, -1, bytes, 4, &n_bytes) == refused);
    CHECK(fastgpt_detokenize(t, odd, 0, NULL, 4, &n_bytes) == refused);
    CHECK(n_bytes == 77 && fastgpt_detokenize(t, odd, 0, bytes, 4, NULL) == refused);
    for (int i = 0; i < 4; i++) {
        CHECK(fastgpt_detokenize(t, odd + i, 1, bytes, 4, &n_bytes) == FASTGPT_ERR_TOKEN_RANGE && n_bytes == 77);
        CHECK(fastgpt_stream_push(s, odd[i], &text, &n_bytes) == FASTGPT_ERR_TOKEN_RANGE && n_bytes == 77);
    }

    CHECK(fastgpt_stream_create(NULL, &no_stream) == refused && !no_stream &&
          fastgpt_stream_create(t, NULL) == refused);
    CHECK(fastgpt_stream_push(NULL, 0, &text, &n_bytes) == refused &&
          fastgpt_stream_finish(NULL, &text, &n_bytes) == refused);
    CHECK(fastgpt_stream_push(s, 0, NULL, &n_bytes) == refused && fastgpt_stream_finish(s, NULL, &n_bytes) == refused);
    CHECK(fastgpt_stream_push(s, 0, &text, NULL) == refused && fastgpt_stream_finish(s, &text, NULL) == refused);
    CHECK(n_bytes == 77 && strcmp(text, "untouched") == 0);

    CHECK(fastgpt_tokenizer_create(NULL, &none, NULL) == refused && !none);
    fastgpt_stream_free(s);
    fastgpt_tokenizer_free(t);
    fastgpt_stream_free(NULL);
    fastgpt_tokenizer_free(NULL);
}

/* A refused token leaves the beginning of a character where it was. */
static void test_refusal_loses_nothing(void) {
    fastgpt_tokenizer *t = new_tokenizer(english_vocabulary());
    fastgpt_stream *s;
    const char *text;
    size_t n;
    CHECK(fastgpt_stream_create(t, &s) == FASTGPT_OK);
    CHECK(fastgpt_stream_push(s, 0xC3, &text, &n) == FASTGPT_OK && n == 0);
    CHECK(fastgpt_stream_push(s, -1, &text, &n) == FASTGPT_ERR_TOKEN_RANGE);
    CHECK(fastgpt_stream_push(s, 0xA9, &text, &n) == FASTGPT_OK && n == 2 && strcmp(text, "\xC3\xA9") == 0);
    fastgpt_stream_free(s);
    fastgpt_tokenizer_free(t);
}

/* A byte without a token is refused where it is text, not where it is part of a special token. */
static void test_missing_byte(void) {
    vocabulary *v = calloc(1, sizeof *v);
    if (!v) abort();
    add_token(v, "a", 1);
    add_token(v, "<b>", 3);
    fastgpt_tokenizer *t = new_tokenizer(v);
    int32_t row[8], n = 5;
    CHECK(fastgpt_encode(t, "aab", 3, 0, row, 8, &n) == FASTGPT_ERR_NO_TOKEN && n == 0);
    CHECK(fastgpt_encode(t, "a<b>a", 5, 0, row, 8, &n) == FASTGPT_OK && n == 3 && row[1] == 1);
    CHECK(fastgpt_encode(t, "a<b>a", 5, FASTGPT_ENCODE_LITERAL, row, 8, &n) == FASTGPT_ERR_NO_TOKEN);
    fastgpt_tokenizer_free(t);
}

typedef void damage(vocabulary *v);

static void add_twin(vocabulary *v) { add_token(v, "th", 1); }
static void add_special_twin(vocabulary *v) { add_token(v, "  ", 3); }
static void merge_of_no_token(vocabulary *v) { add_merge(v, "q q"); }
static void merge_of_one(vocabulary *v) { add_merge(v, "th"); }
static void merge_of_nothing(vocabulary *v) { add_merge(v, ""); }
static void merge_without_left(vocabulary *v) { add_merge(v, " th"); }
static void merge_without_right(vocabulary *v) { add_merge(v, "th "); }
static void merge_not_utf8(vocabulary *v) { add_merge(v, "\xFF \xFE"); }
static void falling_offsets(vocabulary *v) { v->tokens.offsets[3] = 0; }
static void negative_length(vocabulary *v) { v->merges.n = -1; }

static void add_long_special(vocabulary *v) {
    char text[258];
    memset(text, 'x', 257);
    text[257] = 0;
    add_token(v, text, 4);
}

static void test_damaged(void) {
    static const struct {
        damage *apply;
        fastgpt_status status;
        const char *words;
    } cases[] = {{add_twin, FASTGPT_ERR_FORMAT, "'th' twice: tokens 256 and 276"},
                 {add_special_twin, FASTGPT_ERR_FORMAT, "'  ' twice: tokens 273 and 276"},
                 {merge_of_no_token, FASTGPT_ERR_FORMAT, "merge 15, 'q q', is not two tokens whose join is a token"},
                 {merge_of_one, FASTGPT_ERR_FORMAT, "merge 15, 'th'"},
                 {merge_of_nothing, FASTGPT_ERR_FORMAT, "merge 15, ''"},
                 {merge_without_left, FASTGPT_ERR_FORMAT, "merge 15, ' th'"},
                 {merge_without_right, FASTGPT_ERR_FORMAT, "merge 15, 'th '"},
                 {merge_not_utf8, FASTGPT_ERR_FORMAT, "merge 15, "},
                 {add_long_special, FASTGPT_ERR_FORMAT, "token 276 is a control or user-defined token of 257 bytes"},
                 {falling_offsets, FASTGPT_ERR_ARGUMENT, "falls"},
                 {negative_length, FASTGPT_ERR_ARGUMENT, "missing"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vocabulary *v = english_vocabulary();
        cases[i].apply(v);
        fastgpt_error error = {""};
        fastgpt_tokenizer *t = (fastgpt_tokenizer *)v;
        fastgpt_status status = create_tokenizer(v, &t, &error);
        CHECK_FOR(status == cases[i].status && !t && strstr(error.text, cases[i].words), "case %zu: %d \"%s\"", i,
                  status, error.text);
        CHECK(create_tokenizer(v, &t, NULL) == cases[i].status && !t);
        free(v);
    }
}

static void test_model_without_tokenizer(void) {
    draft d = draft_of(tiny_shape);
    draft_set_string(&d, "tokenizer.ggml.model", "none");
    fastgpt_model *m;
    fastgpt_tokenizer *t;
    fastgpt_error error;
    CHECK(load_draft(&d, false, &m, NULL) == FASTGPT_OK);
    CHECK(fastgpt_tokenizer_create(m, &t, &error) == FASTGPT_ERR_UNSUPPORTED && !t);
    CHECK(strstr(error.text, "no tokenizer") != NULL);
    fastgpt_model_free(m);
    draft_free(&d);
}

int main(void) {
    CHECK(strlen(fastgpt_unicode_version()) >= 6);
    test_cuts();
    test_tokens();
    test_passes();
    test_lengths();
    test_bytes();
    test_capacity();
    test_stream();
    test_arguments();
    test_refusal_loses_nothing();
    test_missing_byte();
    test_damaged();
    test_model_without_tokenizer();
    return check_report();
}
