/* test_kv_cache_file.c - saved and copied KV caches: steps after a load or copy give the same bits; a damaged file, or
 * another model's, is refused by an error that names it; a file is written whole or stays as it was. */
#include "support/saved_state.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { N_TOKENS = 40, N_BEFORE = 30 };

static uint64_t seed = 5;
static fastgpt_model *model, *other;
static fastgpt_context *ctx;
static int32_t tokens[N_TOKENS];
static int64_t n_vocab;

static fastgpt_kv_cache *filled_cache(fastgpt_type type, int32_t n_ctx, int32_t n) {
    fastgpt_kv_cache *kv;
    if (!CHECK(fastgpt_kv_cache_create_typed(model, n_ctx, type, &kv) == FASTGPT_OK)) abort();
    if (n > 0) CHECK(fastgpt_prefill(ctx, kv, tokens, n, NULL) == FASTGPT_OK);
    return kv;
}

/* [2][n_vocab] logits of the remaining tokens: all but the last in one prefill, then the last. */
static float *run_rest(fastgpt_kv_cache *kv) {
    float *logits = new_floats(2 * n_vocab);
    int32_t n = fastgpt_kv_cache_n_past(kv);
    CHECK(fastgpt_prefill(ctx, kv, tokens + n, N_TOKENS - 1 - n, logits) == FASTGPT_OK);
    CHECK(fastgpt_decode(ctx, kv, tokens[N_TOKENS - 1], logits + n_vocab) == FASTGPT_OK);
    return logits;
}

/* ---- Same bits ---- */

static void check_tokens(const fastgpt_kv_cache *kv, int32_t n) {
    CHECK(fastgpt_kv_cache_n_past(kv) == n);
    CHECK(memcmp(fastgpt_kv_cache_tokens(kv), tokens, (size_t)n * sizeof *tokens) == 0);
}

/* Steps on the original and on a copy of it agree to the bit; both are freed. */
static void check_same(fastgpt_kv_cache *original, fastgpt_kv_cache *again, int32_t n) {
    check_tokens(again, n);
    float *expected = run_rest(original), *logits = run_rest(again);
    CHECK_FOR(same_floats(expected, logits, 2 * n_vocab), "type %d, n_past %d", fastgpt_kv_cache_type(original), n);
    check_tokens(again, N_TOKENS);
    free(expected);
    free(logits);
    fastgpt_kv_cache_free(original);
    fastgpt_kv_cache_free(again);
}

static const fastgpt_type types[] = {FASTGPT_TYPE_F32, FASTGPT_TYPE_F16, FASTGPT_TYPE_BF16};

static void test_steps_after_a_load_give_the_same_bits(void) {
    static const int32_t n_pasts[] = {0, 1, 17, N_BEFORE};
    for (int i = 0; i < 12; i++) {
        int32_t n = n_pasts[i / 3], n_ctx = i % 2 ? N_TOKENS : 0;
        fastgpt_kv_cache *kv = filled_cache(types[i % 3], 0, n), *loaded;
        buffer bytes = state_of(kv, model);
        CHECK(load_state(model, &bytes, n_ctx, &loaded, NULL) == FASTGPT_OK);
        CHECK(fastgpt_kv_cache_type(loaded) == types[i % 3]);
        CHECK(fastgpt_kv_cache_n_ctx(loaded) == (n_ctx ? n_ctx : fastgpt_model_n_ctx(model)));
        free(bytes.data);
        check_same(kv, loaded, n);
    }
}

/* The original changes after the copy, which must not. */
static void test_steps_after_a_copy_give_the_same_bits(void) {
    for (int i = 0; i < 3; i++) {
        fastgpt_kv_cache *kv = filled_cache(types[i], 0, N_BEFORE), *again = filled_cache(types[i], 0, N_BEFORE), *copy;
        CHECK(fastgpt_kv_cache_copy(kv, &copy) == FASTGPT_OK);
        CHECK(fastgpt_kv_cache_sizeof(copy) == fastgpt_kv_cache_sizeof(kv));
        CHECK(fastgpt_kv_cache_truncate(kv, 3) == FASTGPT_OK);
        CHECK(fastgpt_decode(ctx, kv, tokens[9], NULL) == FASTGPT_OK);
        check_tokens(copy, N_BEFORE);
        fastgpt_kv_cache_free(kv);
        check_same(again, copy, N_BEFORE);
    }
}

/* A saved cache may be loaded with any other load of the same model file, mapped or not; its bytes depend on nothing
 * but the file and the tokens. */
static void test_another_load_of_the_same_file(void) {
    fastgpt_model *same = load_shape(small_shape, true);
    fastgpt_kv_cache *kv = filled_cache(FASTGPT_TYPE_F32, 0, N_BEFORE), *loaded;
    buffer bytes = state_of(kv, model);
    CHECK(load_state(same, &bytes, 0, &loaded, NULL) == FASTGPT_OK);
    buffer again = state_of(loaded, same);
    CHECK(bytes.n == again.n && memcmp(bytes.data, again.data, again.n) == 0);
    CHECK(fastgpt_kv_cache_save(kv, same, "/tmp/never", NULL) == FASTGPT_ERR_CACHE_MISMATCH);
    free(bytes.data);
    free(again.data);
    fastgpt_kv_cache_free(kv);
    fastgpt_kv_cache_free(loaded);
    fastgpt_model_free(same);
}

/* ---- Deterministic positions ---- */

static void run_step(fastgpt_kv_cache *kv, int32_t n, bool deterministic) {
    fastgpt_step_options options = {.struct_size = sizeof options, .deterministic = deterministic};
    fastgpt_span span = {.kv = kv, .tokens = tokens, .n_tokens = n};
    CHECK(fastgpt_step(ctx, &span, 1, &options, NULL) == FASTGPT_OK);
}

/* They count up to the first step that was not deterministic; a truncation removes them for good; a file and a copy
 * have them, too. */
static void test_deterministic_positions(void) {
    fastgpt_kv_cache *kv = new_cache(model, 0), *copy, *loaded;
    run_step(kv, 3, true);
    run_step(kv, 4, true);
    run_step(kv, 2, false);
    run_step(kv, 1, true);
    CHECK(fastgpt_kv_cache_n_past(kv) == 10 && fastgpt_kv_cache_n_deterministic(kv) == 7);
    buffer bytes = state_of(kv, model);
    CHECK(fastgpt_kv_cache_copy(kv, &copy) == FASTGPT_OK && load_state(model, &bytes, 0, &loaded, NULL) == FASTGPT_OK);
    CHECK(fastgpt_kv_cache_n_deterministic(copy) == 7 && fastgpt_kv_cache_n_deterministic(loaded) == 7);
    CHECK(fastgpt_kv_cache_truncate(kv, 5) == FASTGPT_OK && fastgpt_kv_cache_n_deterministic(kv) == 5);
    run_step(kv, 4, false);
    CHECK(fastgpt_kv_cache_n_past(kv) == 9 && fastgpt_kv_cache_n_deterministic(kv) == 5);
    CHECK(fastgpt_kv_cache_truncate(kv, 0) == FASTGPT_OK);
    run_step(kv, 6, true);
    CHECK(fastgpt_kv_cache_n_deterministic(kv) == 6);
    free(bytes.data);
    fastgpt_kv_cache_free(kv);
    fastgpt_kv_cache_free(copy);
    fastgpt_kv_cache_free(loaded);
}

/* ---- Refusals ---- */

static void check_refused(const fastgpt_model *m, const buffer *bytes, int32_t n_ctx, fastgpt_status expected,
                          const char *words) {
    fastgpt_kv_cache *kv = (fastgpt_kv_cache *)&model;
    fastgpt_error error;
    fastgpt_status status = load_state(m, bytes, n_ctx, &kv, &error);
    CHECK_FOR(status == expected && !kv && strstr(error.text, words), "%d, %s: %d, %s", expected, words, status,
              error.text);
}

/* A file in which one value is changed and the checksum fits. */
static void check_value(const buffer *bytes, size_t at, uint32_t value, fastgpt_status expected, const char *words) {
    buffer changed = {0};
    put(&changed, bytes->data, bytes->n);
    memcpy(changed.data + at, &value, sizeof value);
    mend_checksum(&changed);
    check_refused(model, &changed, 0, expected, words);
    free(changed.data);
}

static void test_every_field_of_the_header(const buffer *bytes) {
    check_value(bytes, 0, 0, FASTGPT_ERR_FORMAT, "not a saved KV cache");
    check_value(bytes, AT_VERSION, 2, FASTGPT_ERR_UNSUPPORTED, "version 2");
    check_value(bytes, AT_TYPE, FASTGPT_TYPE_Q8_0, FASTGPT_ERR_FORMAT, "type");
    check_value(bytes, AT_TYPE, FASTGPT_TYPE_F16, FASTGPT_ERR_FORMAT, "bytes");
    check_value(bytes, AT_FINGERPRINT, 7, FASTGPT_ERR_CACHE_MISMATCH, "another model");
    check_value(bytes, AT_N_LAYER, 1, FASTGPT_ERR_FORMAT, "n_layer 1");
    check_value(bytes, AT_N_EMBD, 0, FASTGPT_ERR_FORMAT, "n_embd 0");
    check_value(bytes, AT_N_PAST, 29, FASTGPT_ERR_FORMAT, "bytes");
    check_value(bytes, AT_N_PAST, 81, FASTGPT_ERR_FORMAT, "n_past 81");
    check_value(bytes, AT_N_PAST, UINT32_MAX, FASTGPT_ERR_FORMAT, "n_past");
    check_value(bytes, AT_N_DETERMINISTIC, N_BEFORE + 1, FASTGPT_ERR_FORMAT, "n_deterministic 31");
    check_value(bytes, AT_TOKENS, (uint32_t)n_vocab, FASTGPT_ERR_FORMAT, "token 41");
    check_value(bytes, AT_TOKENS + 4 * (N_BEFORE - 1), UINT32_MAX, FASTGPT_ERR_FORMAT, "token -1");
}

/* Any bit, any cut and any byte too many. */
static void test_damage(const buffer *bytes) {
    for (size_t at = 0; at < bytes->n; at += 1 + at / 4) {
        buffer flipped = {0}, cut = {.data = bytes->data, .n = at};
        fastgpt_kv_cache *kv;
        put(&flipped, bytes->data, bytes->n);
        flipped.data[at] ^= (uint8_t)(1 << at % 8);
        CHECK(load_state(model, &flipped, 0, &kv, NULL) != FASTGPT_OK && !kv);
        CHECK(load_state(model, &cut, 0, &kv, NULL) == FASTGPT_ERR_FORMAT && !kv);
        free(flipped.data);
    }
    buffer longer = {0};
    put(&longer, bytes->data, bytes->n);
    put(&longer, "12345678", 8);
    check_refused(model, &longer, 0, FASTGPT_ERR_FORMAT, "checksum");
    mend_checksum(&longer);
    check_refused(model, &longer, 0, FASTGPT_ERR_FORMAT, "bytes");
    free(longer.data);
}

static void test_arguments(const buffer *bytes) {
    fastgpt_kv_cache *kv = filled_cache(FASTGPT_TYPE_F32, 0, 1), *out = kv;
    fastgpt_error error;
    CHECK(fastgpt_kv_cache_copy(NULL, &out) == FASTGPT_ERR_ARGUMENT && !out);
    CHECK(fastgpt_kv_cache_copy(kv, NULL) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_kv_cache_save(NULL, model, "x", &error) == FASTGPT_ERR_ARGUMENT && error.text[0]);
    CHECK(fastgpt_kv_cache_save(kv, NULL, "x", &error) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_kv_cache_save(kv, model, NULL, &error) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_kv_cache_load(model, "x", 0, NULL, &error) == FASTGPT_ERR_ARGUMENT);
    CHECK(fastgpt_kv_cache_load(NULL, "x", 0, &out, &error) == FASTGPT_ERR_ARGUMENT && !out);
    CHECK(fastgpt_kv_cache_load(model, NULL, 0, &out, &error) == FASTGPT_ERR_ARGUMENT);
    check_refused(model, bytes, -1, FASTGPT_ERR_ARGUMENT, "n_ctx");
    check_refused(model, bytes, fastgpt_model_n_ctx(model) + 1, FASTGPT_ERR_ARGUMENT, "n_ctx");
    check_refused(model, bytes, N_BEFORE - 1, FASTGPT_ERR_CONTEXT_FULL, "30 positions");
    check_refused(other, bytes, 0, FASTGPT_ERR_CACHE_MISMATCH, "another model");
    CHECK(fastgpt_kv_cache_load(model, "/nowhere/x", 0, &out, &error) == FASTGPT_ERR_IO && !out);
    fastgpt_kv_cache_free(kv);
}

/* ---- Files ---- */

static void write_fails(const fastgpt_kv_cache *kv, const char *path) {
    fastgpt_error error;
    CHECK_FOR(fastgpt_kv_cache_save(kv, model, path, &error) == FASTGPT_ERR_IO && strstr(error.text, path), "%s", path);
}

/* A full disk, as a limit on the size of files: the old file stays, and nothing else.  Then the new one replaces it. */
static void test_files_are_whole(void) {
    char folder[] = "/tmp/fastgpt-state-XXXXXX", path[64];
    struct rlimit usual;
    struct stat info;
    if (!mkdtemp(folder) || getrlimit(RLIMIT_FSIZE, &usual) != 0) abort();
    snprintf(path, sizeof path, "%s/state", folder);
    fastgpt_kv_cache *kv = filled_cache(FASTGPT_TYPE_F32, 0, N_BEFORE), *loaded;
    CHECK(fastgpt_kv_cache_save(kv, model, path, NULL) == FASTGPT_OK);
    CHECK(fastgpt_decode(ctx, kv, 1, NULL) == FASTGPT_OK);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){.rlim_cur = 1000, .rlim_max = usual.rlim_max});
    write_fails(kv, path);
    setrlimit(RLIMIT_FSIZE, &usual);
    CHECK(fastgpt_kv_cache_load(model, path, 0, &loaded, NULL) == FASTGPT_OK);
    check_tokens(loaded, N_BEFORE);
    fastgpt_kv_cache_free(loaded);
    CHECK(fastgpt_kv_cache_save(kv, model, path, NULL) == FASTGPT_OK);
    CHECK(fastgpt_kv_cache_load(model, path, 0, &loaded, NULL) == FASTGPT_OK);
    CHECK(fastgpt_kv_cache_n_past(loaded) == N_BEFORE + 1);
    CHECK(stat(path, &info) == 0 && (info.st_mode & 0777) == 0600);
    write_fails(kv, folder);
    write_fails(kv, "/nowhere/state");
    CHECK(unlink(path) == 0 && rmdir(folder) == 0); /* no other file is left in it */
    fastgpt_kv_cache_free(kv);
    fastgpt_kv_cache_free(loaded);
}

static void check_saves(const fastgpt_kv_cache *kv, const char *path, fastgpt_status expected, const char *words) {
    fastgpt_error error;
    fastgpt_status status = fastgpt_kv_cache_save(kv, model, path, &error);
    CHECK_FOR(status == expected && strstr(error.text, words), "%s: %d, %s", path, status, error.text);
}

/* A pipe gets the bytes of a file, and stays a pipe. */
static void check_pipe(const fastgpt_kv_cache *kv, const char *path, const buffer *expected) {
    uint8_t *bytes = malloc(expected->n);
    if (!bytes || mkfifo(path, 0600) != 0) abort();
    int fd = open(path, O_RDWR); /* so that neither end waits: a pipe holds that much */
    check_saves(kv, path, FASTGPT_OK, "");
    CHECK(read(fd, bytes, expected->n) == (ssize_t)expected->n && memcmp(bytes, expected->data, expected->n) == 0);
    close(fd);
    CHECK(unlink(path) == 0);
    free(bytes);
}

static void check_links(const fastgpt_kv_cache *kv, const buffer *expected) {
    struct stat info;
    CHECK(symlink("there/state", "link") == 0 && mkdir("there", 0700) == 0); /* where nothing is yet */
    check_saves(kv, "link", FASTGPT_OK, "");
    check_saves(kv, "link", FASTGPT_OK, "");
    buffer bytes = read_whole("there/state");
    CHECK(bytes.n == expected->n && lstat("link", &info) == 0 && S_ISLNK(info.st_mode));
    free(bytes.data);
    CHECK(unlink("link") == 0 && symlink("link", "link") == 0);
    check_saves(kv, "link", FASTGPT_ERR_IO, "cannot be written");
    CHECK(unlink("link") == 0 && unlink("there/state") == 0 && rmdir("there") == 0);
}

/* By whatever name: it stays, as does all that is no file. */
static void check_model_files(const fastgpt_kv_cache *kv) {
    temporary_file file = write_temporary("GGUF and more", 13);
    CHECK(symlink(file.path, "link") == 0 && link(file.path, "hard") == 0);
    check_saves(kv, "link", FASTGPT_ERR_ARGUMENT, "link: is a model file");
    check_saves(kv, "hard", FASTGPT_ERR_ARGUMENT, "hard: is a model file");
    buffer bytes = read_whole(file.path);
    CHECK(bytes.n == 13);
    free(bytes.data);
    CHECK(unlink("link") == 0 && unlink("hard") == 0 && unlink(file.path) == 0);
}

static void test_what_is_no_file(void) {
    char folder[] = "/tmp/fastgpt-state-XXXXXX";
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "socket"};
    struct stat info;
    if (!mkdtemp(folder) || chdir(folder) != 0) abort();
    fastgpt_kv_cache *kv = filled_cache(FASTGPT_TYPE_F16, 0, 2);
    buffer expected = state_of(kv, model);
    check_pipe(kv, "pipe", &expected);
    check_links(kv, &expected);
    check_model_files(kv);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(bind(fd, (struct sockaddr *)&name, sizeof name) == 0);
    check_saves(kv, "socket", FASTGPT_ERR_IO, "it is a socket");
    check_saves(kv, folder, FASTGPT_ERR_IO, "it is a folder");
    check_saves(kv, "/dev/null", FASTGPT_OK, "");
    if (stat("/dev/full", &info) == 0) check_saves(kv, "/dev/full", FASTGPT_ERR_IO, "No space left");
    CHECK(stat("/dev/null", &info) == 0 && S_ISCHR(info.st_mode));
    close(fd);
    CHECK(unlink("socket") == 0 && rmdir(folder) == 0); /* nothing else is left */
    free(expected.data);
    fastgpt_kv_cache_free(kv);
}

/* What cannot be a cache of the model is refused by its first bytes: there is no memory for the rest, 2^40 bytes of a
 * file with a hole.  So is what cannot be a model that is to be copied. */
static void test_first_bytes(const buffer *state) {
    static const uint8_t gguf[8] = "GGUF\2";
    fastgpt_error error;
    fastgpt_kv_cache *kv;
    fastgpt_model *m;
    fastgpt_load_options options = {.struct_size = sizeof options, .no_mmap = 1};
    temporary_file files[] = {write_temporary("no", 2), write_temporary(state->data, AT_TOKENS),
                              write_temporary(gguf, 8)};
    for (int i = 0; i < 3; i++) CHECK(truncate(files[i].path, (off_t)1 << 40) == 0);
    CHECK(fastgpt_kv_cache_load(model, files[0].path, 0, &kv, &error) == FASTGPT_ERR_FORMAT);
    CHECK_FOR(strstr(error.text, "is not a saved KV cache"), "%s", error.text);
    CHECK(fastgpt_kv_cache_load(model, files[1].path, 0, &kv, &error) == FASTGPT_ERR_FORMAT);
    CHECK_FOR(strstr(error.text, "has 1099511627776 bytes"), "%s", error.text);
    CHECK(fastgpt_model_load(files[0].path, &options, &m, &error) == FASTGPT_ERR_FORMAT);
    CHECK_FOR(strstr(error.text, "not a GGUF file"), "%s", error.text);
    CHECK(fastgpt_model_load(files[2].path, &options, &m, &error) == FASTGPT_ERR_UNSUPPORTED);
    CHECK_FOR(strstr(error.text, "version"), "%s", error.text);
    for (int i = 0; i < 3; i++) unlink(files[i].path);
}

/* A bare name is a file of the current folder. */
static void test_a_bare_name(void) {
    char folder[] = "/tmp/fastgpt-state-XXXXXX";
    if (!mkdtemp(folder) || chdir(folder) != 0) abort();
    fastgpt_kv_cache *kv = filled_cache(FASTGPT_TYPE_F16, 0, 2), *loaded;
    CHECK(fastgpt_kv_cache_save(kv, model, "state", NULL) == FASTGPT_OK);
    CHECK(fastgpt_kv_cache_load(model, "state", 0, &loaded, NULL) == FASTGPT_OK);
    CHECK(unlink("state") == 0 && rmdir(folder) == 0);
    fastgpt_kv_cache_free(kv);
    fastgpt_kv_cache_free(loaded);
}

/* ---- The hash ---- */

/* Every bit of every length changes it, and so does a zero more. */
static void test_hash(void) {
    uint8_t bytes[200];
    for (int i = 0; i < 200; i++) bytes[i] = (uint8_t)random_u64(&seed);
    for (size_t n = 0; n < 150; n++) {
        uint64_t hash = hash_bytes(bytes, n);
        for (size_t bit = 0; bit < 8 * n; bit++) {
            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            CHECK(hash_bytes(bytes, n) != hash);
            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        uint8_t next = bytes[n];
        bytes[n] = 0;
        CHECK(hash_bytes(bytes, n + 1) != hash);
        bytes[n] = next;
    }
    CHECK(hash_bytes("fastgpt", 7) == UINT64_C(0x00C23B76F08CB893)); /* files hold it: it must never change */
}

int main(void) {
    model_shape shape = small_shape;
    shape.untied = true;
    model = load_shape(small_shape, false);
    other = load_shape(shape, false);
    ctx = new_context(model, NULL, 0);
    n_vocab = fastgpt_model_n_vocab(model);
    random_tokens(&seed, tokens, N_TOKENS, (int32_t)n_vocab);
    test_steps_after_a_load_give_the_same_bits();
    test_steps_after_a_copy_give_the_same_bits();
    test_another_load_of_the_same_file();
    test_deterministic_positions();
    fastgpt_kv_cache *kv = filled_cache(FASTGPT_TYPE_F32, 0, N_BEFORE);
    buffer bytes = state_of(kv, model);
    test_every_field_of_the_header(&bytes);
    test_damage(&bytes);
    test_arguments(&bytes);
    test_files_are_whole();
    test_what_is_no_file();
    test_first_bytes(&bytes);
    test_a_bare_name();
    test_hash();
    free(bytes.data);
    fastgpt_kv_cache_free(kv);
    fastgpt_context_free(ctx);
    fastgpt_model_free(model);
    fastgpt_model_free(other);
    return check_report();
}
