/* test_tokenizer_cost.c - the work of the tokenizer grows with the text and no faster, whatever the text and the
 * vocabulary; and threads may share a tokenizer.
 *
 * The linker puts __wrap_* before the library's own functions, so that the work can be counted. */
#include "support/check.h"
#include "support/random.h"
#include "support/vocabulary.h"

#include <pthread.h>

#include "tokenizer/pretokenize.h"
#include "tokenizer/tokenizer.h"

static long n_lookups, n_cut_bytes;

const pair_slot *__real_pair_table_find(const pair_table *table, int32_t left, int32_t right);
const pair_slot *__wrap_pair_table_find(const pair_table *table, int32_t left, int32_t right);
size_t __real_piece_length(const uint8_t *text, size_t n);
size_t __wrap_piece_length(const uint8_t *text, size_t n);

static bool counting; /* for one thread */

const pair_slot *__wrap_pair_table_find(const pair_table *table, int32_t left, int32_t right) {
    if (counting) n_lookups++;
    return __real_pair_table_find(table, left, right);
}

size_t __wrap_piece_length(const uint8_t *text, size_t n) {
    size_t length = __real_piece_length(text, n);
    if (counting) n_cut_bytes += (long)length;
    return length;
}

/* ---- Cost ---- */

static void count_work(const fastgpt_tokenizer *t, const char *text, size_t n, int32_t flags) {
    int32_t *tokens = malloc(n * sizeof *tokens), n_tokens = 0;
    if (!tokens) abort();
    n_lookups = n_cut_bytes = 0;
    counting = true;
    CHECK(fastgpt_encode(t, text, n, flags, tokens, (int32_t)n, &n_tokens) == FASTGPT_OK && n_tokens > 0);
    counting = false;
    free(tokens);
}

/* For one piece of a million bytes: a pair is looked up at most 3 times a byte, and the heap takes a pair at most as
 * often as one is found. */
static void test_merging_is_linear(void) {
    enum { N = 1000000 };
    static char text[N];
    static const char *const alphabets[] = {"a", "the", "thing", "ina", " ", "!", "\xC3\xA9"};
    fastgpt_tokenizer *t = new_tokenizer(english_vocabulary());
    uint64_t state = 1;
    for (size_t i = 0; i < sizeof alphabets / sizeof *alphabets; i++) {
        for (size_t k = 0; k < N; k++) text[k] = alphabets[i][random_below(&state, strlen(alphabets[i]))];
        count_work(t, text, N, FASTGPT_ENCODE_LITERAL);
        CHECK_FOR(n_lookups <= 3 * (long)N && n_cut_bytes == N, "\"%s\": %ld lookups", alphabets[i], n_lookups);
    }
    fastgpt_tokenizer_free(t);
}

/* Special tokens that nearly begin everywhere cost no more than their length at each byte. */
static void test_search_is_linear(void) {
    enum { N = 100000 };
    static char text[N];
    vocabulary *v = new_vocabulary();
    char almost[257] = {0};
    memset(almost, 'x', 256);
    almost[255] = 'y';
    add_token(v, almost, 4);
    fastgpt_tokenizer *t = new_tokenizer(v);
    memset(text, 'x', N);
    count_work(t, text, N, FASTGPT_ENCODE_SPECIAL);
    CHECK_FOR(n_lookups <= (256 + 3) * (long)N && n_lookups > 200 * (long)N, "%ld lookups", n_lookups);
    fastgpt_tokenizer_free(t);
}

/* A random text of 8 letters, and its hash. */
static uint32_t random_text(uint64_t *state, char text[9]) {
    uint64_t offsets[2] = {0, 8};
    text_slot slots[16];
    string_list list = {1, text, offsets};
    text_table table = {slots, 15, &list};
    for (int i = 0; i < 8; i++) text[i] = (char)('a' + random_below(state, 26));
    text[8] = 0;
    memset(slots, 0xFF, sizeof slots);
    CHECK(text_table_add(&table, 0));
    for (int i = 0; i < 16; i++)
        if (slots[i].token == 0) return slots[i].hash;
    abort();
}

/* A vocabulary made to collide is refused, not searched through again and again. */
static void test_collisions(void) {
    uint64_t state = 5;
    vocabulary *v = new_vocabulary();
    for (int i = 0; i < MAX_PROBES + 1; i++) {
        char text[9];
        while (random_text(&state, text) % 2048 != 0) continue; /* 513 tokens are in a table of 2048 */
        add_token(v, text, 1);
    }
    fastgpt_tokenizer *t;
    fastgpt_error error;
    CHECK(v->tokens.n == 513);
    CHECK(create_tokenizer(v, &t, &error) == FASTGPT_ERR_FORMAT && strstr(error.text, "collide"));
    free(v);
}

typedef struct hashed {
    uint32_t hash;
    char text[9];
} hashed;

static int by_hash(const void *a, const void *b) {
    uint32_t x = ((const hashed *)a)->hash, y = ((const hashed *)b)->hash;
    return (x > y) - (x < y);
}

/* Two texts with one hash are two texts: of 2^18, some pairs are such. */
static void test_same_hash(void) {
    enum { N = 1 << 18 };
    uint64_t state = 9;
    hashed *all = malloc(N * sizeof *all);
    if (!all) abort();
    for (int i = 0; i < N; i++) all[i].hash = random_text(&state, all[i].text);
    qsort(all, N, sizeof *all, by_hash);
    int n_pairs = 0;
    for (int i = 1; i < N; i++) {
        if (all[i].hash != all[i - 1].hash || strcmp(all[i].text, all[i - 1].text) == 0) continue;
        n_pairs++;
        vocabulary *v = new_vocabulary();
        add_token(v, all[i].text, 1);
        fastgpt_tokenizer *t = new_tokenizer(v);
        CHECK(text_table_find(&t->by_text, all[i].text, 8) == 256);
        CHECK(text_table_find(&t->by_text, all[i - 1].text, 8) == -1);
        fastgpt_tokenizer_free(t);
    }
    CHECK(n_pairs > 0);
    free(all);
}

/* ---- Threads ---- */

static const fastgpt_tokenizer *shared;

static void *encode_often(void *mismatches) {
    static const char text[] = "the thing in the a aaaa unmergeable it's 12!! <|endoftext|>\xC3\xA9";
    int32_t first[64], row[64], n_first, n;
    fastgpt_encode(shared, text, sizeof text - 1, 0, first, 64, &n_first);
    for (int i = 0; i < 200; i++) {
        fastgpt_encode(shared, text, sizeof text - 1, 0, row, 64, &n);
        *(int *)mismatches += n != n_first || memcmp(row, first, (size_t)n * sizeof *row) != 0;
    }
    return NULL;
}

/* Threads that share a new tokenizer get the same tokens; a sanitizer watches. */
static void test_threads(void) {
    fastgpt_tokenizer *t = new_tokenizer(english_vocabulary());
    shared = t;
    pthread_t threads[4];
    int mismatches[4] = {0};
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, encode_often, &mismatches[i]) == 0);
    for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0 && mismatches[i] == 0);
    fastgpt_tokenizer_free(t);
}

int main(void) {
    test_merging_is_linear();
    test_search_is_linear();
    test_collisions();
    test_same_hash();
    test_threads();
    return check_report();
}
