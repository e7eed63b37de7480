/* test_failing_system.c - what the system may refuse at any time: memory, threads, mappings, reads.  The linker puts
 * the functions __wrap_* below before the real ones, for all of the library. */
#include "support/session.h"
#include "support/vocabulary.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>

/* ---- A system that fails on demand ---- */

static long calls_until_failure; /* counts down once an allocation; the one that reaches 0 fails */
static long n_blocks;            /* allocated and not freed, but for an offset: realloc is not counted */
static bool threads_fail, mmap_fails;
static int reads_until_odd;      /* the read that reaches 0 is interrupted, the next brings one byte only */
static bool file_shrinks;        /* reads end early */

static bool fails_now(void) { return calls_until_failure > 0 && --calls_until_failure == 0; }

static void *counted(void *block) {
    n_blocks += block != NULL;
    return block;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
int __real_posix_memalign(void **block, size_t alignment, size_t n);
void __real_free(void *block);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *arg);
void *__real_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset);
ssize_t __real_read(int fd, void *data, size_t n);

void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
int __wrap_posix_memalign(void **block, size_t alignment, size_t n);
void __wrap_free(void *block);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *arg);
void *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset);
ssize_t __wrap_read(int fd, void *data, size_t n);

void *__wrap_malloc(size_t n) { return fails_now() ? NULL : counted(__real_malloc(n)); }

void *__wrap_calloc(size_t n, size_t size) { return fails_now() ? NULL : counted(__real_calloc(n, size)); }

int __wrap_posix_memalign(void **block, size_t alignment, size_t n) {
    if (fails_now()) return ENOMEM;
    int error = __real_posix_memalign(block, alignment, n);
    n_blocks += error == 0;
    return error;
}

void __wrap_free(void *block) {
    n_blocks -= block != NULL;
    __real_free(block);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *arg) {
    return threads_fail ? EAGAIN : __real_pthread_create(thread, attributes, start, arg);
}

void *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset) {
    errno = ENODEV;
    return mmap_fails ? MAP_FAILED : __real_mmap(at, n, protection, flags, fd, offset);
}

ssize_t __wrap_read(int fd, void *data, size_t n) {
    if (file_shrinks) return 0;
    if (reads_until_odd > 0 && --reads_until_odd == 0) {
        errno = EINTR;
        return -1;
    }
    return __real_read(fd, data, n < 100 ? n : 100);
}

/* ---- Memory ---- */

static fastgpt_model *model;
static temporary_file file;

/* Creates one thing and frees it. */
typedef fastgpt_status creation(void);

static fastgpt_status load_with(bool copy, fastgpt_error *error) {
    fastgpt_load_options options = {.struct_size = sizeof options, .no_mmap = copy};
    fastgpt_model *m = model;
    fastgpt_status status = fastgpt_model_load(file.path, &options, &m, error);
    CHECK((status == FASTGPT_OK) == (m != NULL));
    fastgpt_model_free(m);
    return status;
}

static fastgpt_status load_model(bool copy) {
    fastgpt_error error;
    fastgpt_status status = load_with(copy, &error);
    CHECK_FOR(status == FASTGPT_OK || strstr(error.text, "no memory"), "\"%s\"", error.text);
    return status;
}

static fastgpt_status load_mapped(void) { return load_model(false); }
static fastgpt_status load_copied(void) { return load_model(true); }

static fastgpt_status create_pool(void) {
    fastgpt_pool *pool = (fastgpt_pool *)&file;
    fastgpt_status status = fastgpt_pool_create(2, &pool);
    CHECK((status == FASTGPT_OK) == (pool != NULL));
    fastgpt_pool_free(pool);
    return status;
}

static fastgpt_status create_context(void) {
    fastgpt_context *ctx = (fastgpt_context *)&file;
    fastgpt_status status = fastgpt_context_create(model, NULL, 0, &ctx);
    CHECK((status == FASTGPT_OK) == (ctx != NULL));
    fastgpt_context_free(ctx);
    return status;
}

static fastgpt_status create_cache(void) {
    fastgpt_kv_cache *kv = (fastgpt_kv_cache *)&file;
    fastgpt_error error;
    fastgpt_status status = fastgpt_kv_cache_create_checked(model, 0, FASTGPT_TYPE_F32, &kv, &error);
    CHECK((status == FASTGPT_OK) == (kv != NULL) && (kv || strstr(error.text, "no memory")));
    fastgpt_kv_cache_free(kv);
    return status;
}

/* A cache with something in it, and a file where it is saved. */
static fastgpt_kv_cache *memory;
static temporary_file saved;

static fastgpt_status copy_cache(void) {
    fastgpt_kv_cache *kv = memory;
    fastgpt_status status = fastgpt_kv_cache_copy(memory, &kv);
    CHECK((status == FASTGPT_OK) == (kv != NULL));
    fastgpt_kv_cache_free(kv);
    return status;
}

static fastgpt_status fork_cache(void) {
    fastgpt_kv_cache *kv = memory, *whole;
    fastgpt_status status = fastgpt_kv_cache_copy(memory, &whole);
    if (status) return status;
    status = fastgpt_kv_cache_fork(whole, 2, 0, &kv);
    CHECK((status == FASTGPT_OK) == (kv != NULL) && fastgpt_kv_cache_n_past(whole) == 3);
    if (kv) status = fastgpt_kv_cache_truncate(kv, 1);
    CHECK(!kv || fastgpt_kv_cache_n_past(kv) == (status ? 2 : 1));
    fastgpt_kv_cache_free(kv);
    fastgpt_kv_cache_free(whole);
    return status;
}

static fastgpt_status save_cache(void) { return fastgpt_kv_cache_save(memory, model, saved.path, NULL); }

static fastgpt_status load_cache(void) {
    fastgpt_kv_cache *kv = memory;
    fastgpt_error error;
    fastgpt_status status = fastgpt_kv_cache_load(model, saved.path, 0, &kv, &error);
    CHECK((status == FASTGPT_OK) == (kv != NULL) && (kv || strstr(error.text, "no memory")));
    fastgpt_kv_cache_free(kv);
    return status;
}

static fastgpt_status create_sampler(void) {
    fastgpt_sampler_params params = {.struct_size = sizeof params, .no_repeat_ngram_size = 2};
    fastgpt_sampler *s = (fastgpt_sampler *)&file;
    fastgpt_status status = fastgpt_sampler_create(100, &params, &s);
    CHECK((status == FASTGPT_OK) == (s != NULL));
    if (!status) status = fastgpt_sampler_accept(s, (int32_t[]){1, 2, 3}, 3); /* whose history grows */
    if (!status) status = fastgpt_sampler_set_eos_tokens(s, (int32_t[]){4, 5}, 2);
    fastgpt_sampler_free(s);
    return status;
}

static fastgpt_status measure_roofline(void) {
    fastgpt_roofline r;
    fastgpt_status status = fastgpt_measure_roofline(NULL, &r);
    CHECK((status == FASTGPT_OK) == (r.read_bytes_per_second > 0));
    return status;
}

static vocabulary *words;
static fastgpt_model *speaking;
static fastgpt_tokenizer *tokenizer;

static fastgpt_status create_text(void) {
    fastgpt_tokenizer *t = (fastgpt_tokenizer *)&file;
    fastgpt_error error;
    fastgpt_status status = create_tokenizer(words, &t, &error);
    CHECK((status == FASTGPT_OK) == (t != NULL) && (t || strstr(error.text, "no memory")));
    fastgpt_tokenizer_free(t);
    return status;
}

static fastgpt_status create_stream(void) {
    fastgpt_stream *s = (fastgpt_stream *)&file;
    fastgpt_status status = fastgpt_stream_create(tokenizer, &s);
    CHECK((status == FASTGPT_OK) == (s != NULL));
    fastgpt_stream_free(s);
    return status;
}

/* A turn that gets no memory leaves nothing said. */
static fastgpt_status talk_by_generator(void) {
    static const char *const stop[] = {"\n"};
    fastgpt_generator_options o = {.struct_size = sizeof o, .max_new_tokens = 2, .n_likeliest = 1, .n_stop = 1};
    o.stop = stop;
    fastgpt_generator *g = (fastgpt_generator *)&file;
    fastgpt_error error;
    int32_t n_tokens;
    fastgpt_status status = fastgpt_generator_create(speaking, &o, &g, &error);
    CHECK((status == FASTGPT_OK) == (g != NULL) && (g || error.text[0]));
    if (status) return status;
    status = fastgpt_generator_continue(g, "the", 3, NULL, NULL, &error);
    fastgpt_generator_tokens(g, &n_tokens);
    CHECK((status == FASTGPT_OK) == (n_tokens > 0) && (!status || error.text[0]));
    fastgpt_generator_free(g);
    return status;
}

/* A piece of 1000 bytes, and then a longer one. */
static fastgpt_status encode_long_pieces(void) {
    static char text[4000];
    static int32_t tokens[4000];
    memset(text, 'a', sizeof text);
    text[1000] = '\n';
    int32_t n = -1;
    fastgpt_status status = fastgpt_encode(tokenizer, text, sizeof text, 0, tokens, 4000, &n);
    CHECK((status == FASTGPT_OK) == (n > 0));
    return status;
}

static fastgpt_context *talking;
static fastgpt_kv_cache *talk;
static fastgpt_sampler *chooser;

static fastgpt_status generate(void) {
    static const int32_t prompt[] = {1, 2};
    fastgpt_status status = fastgpt_generate(talking, talk, chooser, tokenizer, prompt, 2, 3, NULL, NULL, NULL);
    CHECK(status == FASTGPT_OK || fastgpt_kv_cache_n_past(talk) == 0);
    CHECK(fastgpt_kv_cache_truncate(talk, 0) == FASTGPT_OK);
    return status;
}

/* An earlier profile survives. */
static fastgpt_status start_profile(void) {
    fastgpt_profile_summary sum;
    fastgpt_kv_cache_truncate(talk, 0);
    CHECK(fastgpt_decode(talking, talk, 1, NULL) == FASTGPT_OK);
    fastgpt_status status = fastgpt_profile_start(talking, 10);
    CHECK(fastgpt_profile_summarize(talking, &sum) == FASTGPT_OK);
    CHECK((status == FASTGPT_OK) == (sum.decode.n_steps == 0));
    return status;
}

/* Each allocation in turn fails: always MEMORY, and nothing is left behind.  At least n_least of them are made. */
static void check_memory(const char *what, creation *create, int n_least) {
    long before = n_blocks;
    int k = 0;
    fastgpt_status status;
    do {
        calls_until_failure = ++k;
        status = create();
        bool reached = calls_until_failure == 0;
        calls_until_failure = 0;
        CHECK_FOR(status == (reached ? FASTGPT_ERR_MEMORY : FASTGPT_OK), "%s, allocation %d: status %d", what, k,
                  status);
        CHECK_FOR(n_blocks == before, "%s, allocation %d: %ld blocks lost", what, k, n_blocks - before);
    } while (status != FASTGPT_OK && k < 1000);
    CHECK_FOR(k > n_least, "%s makes %d allocations only", what, k - 1);
    printf("%s: %d allocations\n", what, k - 1);
}

static void test_caches(void) {
    static const int32_t tokens[] = {1, 2, 3};
    fastgpt_context *ctx = new_context(model, NULL, 0);
    saved = write_temporary("", 0);
    memory = new_cache(model, 0);
    CHECK(fastgpt_prefill(ctx, memory, tokens, 3, NULL) == FASTGPT_OK);
    check_memory("copied cache", copy_cache, 3);
    check_memory("forked cache", fork_cache, 14);
    check_memory("saved cache", save_cache, 2);
    check_memory("loaded cache", load_cache, 4);
    unlink(saved.path);
    fastgpt_kv_cache_free(memory);
    fastgpt_context_free(ctx);
}

static void test_text(void) {
    fastgpt_sampler_params params = {.struct_size = sizeof params};
    words = english_vocabulary();
    tokenizer = new_tokenizer(english_vocabulary());
    fastgpt_model *m = speaking = load_with_vocabulary(words, EOT);
    talking = new_context(m, NULL, 0);
    talk = new_cache(m, 0);
    CHECK(fastgpt_sampler_create(fastgpt_model_n_vocab(m), &params, &chooser) == FASTGPT_OK);
    check_memory("tokenizer", create_text, 10);
    check_memory("stream", create_stream, 3);
    check_memory("encode", encode_long_pieces, 4);
    check_memory("generate", generate, 4);
    check_memory("generator", talk_by_generator, 30);
    CHECK(fastgpt_profile_start(talking, 10) == FASTGPT_OK);
    check_memory("profile", start_profile, 2);
    calls_until_failure = 1;
    CHECK(fastgpt_decode(talking, talk, 1, NULL) == FASTGPT_OK && calls_until_failure == 1);
    calls_until_failure = 0;
    fastgpt_sampler_free(chooser);
    fastgpt_kv_cache_free(talk);
    fastgpt_context_free(talking);
    fastgpt_model_free(m);
    fastgpt_tokenizer_free(tokenizer);
    free(words);
}

/* "Allocates nothing." */
static void test_steps_allocate_nothing(void) {
    static const int32_t tokens[40] = {1, 2, 3};
    fastgpt_pool *pool = new_pool(2);
    fastgpt_context *ctx = new_context(model, pool, 0);
    fastgpt_kv_cache *kv = new_cache(model, 0), *other = new_cache(model, 0);
    float *logits = new_floats(2 * fastgpt_model_n_vocab(model));
    fastgpt_span spans[2] = {{kv, tokens, 40}, {other, tokens, 3}};
    calls_until_failure = 1;
    CHECK(fastgpt_step(ctx, spans, 2, NULL, logits) == FASTGPT_OK);
    CHECK(fastgpt_decode(ctx, kv, 1, logits) == FASTGPT_OK);
    CHECK(calls_until_failure == 1);
    calls_until_failure = 0;
    free(logits);
    fastgpt_kv_cache_free(kv);
    fastgpt_kv_cache_free(other);
    fastgpt_context_free(ctx);
    fastgpt_pool_free(pool);
}

/* ---- Threads ---- */

/* Without threads nothing is drawn, and no draw is used up. */
static void test_draw_without_threads(void) {
    fastgpt_sampler_params params = {.struct_size = sizeof params, .temperature = 1, .seed = 7};
    fastgpt_sampler *sampler = NULL, *other = NULL;
    fastgpt_pool *pool = new_pool(2);
    fastgpt_context *ctx = new_context(model, pool, 0);
    int32_t n_vocab = fastgpt_model_n_vocab(model), token = 77, expected;
    float *logits = new_floats(n_vocab);
    for (int32_t i = 0; i < n_vocab; i++) logits[i] = (float)(i % 5);
    CHECK(fastgpt_sampler_create(n_vocab, &params, &sampler) == FASTGPT_OK);
    CHECK(fastgpt_sampler_create(n_vocab, &params, &other) == FASTGPT_OK);
    threads_fail = true;
    CHECK(fastgpt_sample_rows(pool, &sampler, 1, n_vocab, logits, &token) == FASTGPT_ERR_THREADS && token == 77);
    CHECK(fastgpt_profile_sample_rows(ctx, &sampler, 1, logits, &token) == FASTGPT_ERR_THREADS && token == 77);
    threads_fail = false;
    CHECK(fastgpt_sample_rows(pool, &sampler, 1, n_vocab, logits, &token) == FASTGPT_OK);
    CHECK(fastgpt_sampler_sample(other, logits, &expected) == FASTGPT_OK && token == expected);
    fastgpt_sampler_free(sampler);
    fastgpt_sampler_free(other);
    fastgpt_context_free(ctx);
    fastgpt_pool_free(pool);
    free(logits);
}

/* A step that gets no thread changes nothing, and works once there are threads again. */
static void test_threads(void) {
    fastgpt_pool *pool = new_pool(3);
    fastgpt_context *ctx = new_context(model, pool, 0);
    fastgpt_kv_cache *kv = new_cache(model, 0);
    int32_t n_vocab = fastgpt_model_n_vocab(model);
    float *logits = new_floats(n_vocab), *untouched = new_floats(n_vocab);
    threads_fail = true;
    for (int i = 0; i < 3; i++) {
        CHECK(fastgpt_decode(ctx, kv, 1, logits) == FASTGPT_ERR_THREADS);
        CHECK(fastgpt_unembed(ctx, untouched, 1, logits) == FASTGPT_ERR_THREADS);
        CHECK(fastgpt_kv_cache_n_past(kv) == 0 && same_floats(logits, untouched, n_vocab));
    }
    threads_fail = false;
    CHECK(fastgpt_decode(ctx, kv, 1, logits) == FASTGPT_OK && fastgpt_kv_cache_n_past(kv) == 1);
    fastgpt_pool *another = new_pool(2);
    fastgpt_roofline r;
    threads_fail = true;
    CHECK(fastgpt_measure_roofline(another, &r) == FASTGPT_ERR_THREADS && r.read_bytes_per_second == 0);
    threads_fail = false;
    fastgpt_pool_free(another);
    free(logits);
    free(untouched);
    fastgpt_kv_cache_free(kv);
    fastgpt_context_free(ctx);
    fastgpt_pool_free(pool);
}

/* ---- Files ---- */

static void test_files(void) {
    fastgpt_error error;
    mmap_fails = true;
    CHECK(load_with(false, &error) == FASTGPT_ERR_IO && strstr(error.text, "cannot be mapped"));
    CHECK(load_with(true, &error) == FASTGPT_OK);
    mmap_fails = false;
    file_shrinks = true;
    CHECK(load_with(true, &error) == FASTGPT_ERR_IO && strstr(error.text, "became shorter"));
    file_shrinks = false;
    for (reads_until_odd = 3; reads_until_odd > 0;) CHECK(load_with(true, &error) == FASTGPT_OK);
}

int main(void) {
    model_shape five_bits = block_shape; /* requantized matrices and an F16 vector are an allocation each */
    five_bits.type = FILE_Q5_0;
    draft d = draft_of(five_bits);
    draft_find_tensor(&d, "output_norm.bias")->type = FILE_F16;
    buffer bytes = draft_write(&d, NULL);
    file = write_temporary(bytes.data, bytes.n);
    model = load_shape(small_shape, false);
    check_memory("mapped model", load_mapped, 15);
    check_memory("copied model", load_copied, 16);
    check_memory("pool", create_pool, 2);
    check_memory("context", create_context, 4);
    check_memory("cache", create_cache, 2);
    check_memory("sampler", create_sampler, 8);
    check_memory("roofline", measure_roofline, 1);
    test_caches();
    test_text();
    test_steps_allocate_nothing();
    test_threads();
    test_draw_without_threads();
    test_files();
    fastgpt_model_free(model);
    unlink(file.path);
    free(bytes.data);
    draft_free(&d);
    return check_report();
}
