/* test_blas_memory.c - products where memory is short, where more threads multiply than there are buffers, and while
 * the process forks: an error has a name, nothing is printed, and the process lives on. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "support/session.h"

enum { N_TOKENS = 70 };

static const char *program; /* this one */
static const char *const families[] = {"portable", "avx2", "neon"};

static const int32_t some_tokens[N_TOKENS] = {1, 2, 3, 4, 5, 6}; /* the rest are 0 */

/* ---- Little memory ---- */

/* What a child did, as its exit code; 0 is for nobody. */
enum { STEP_DONE = 1, NO_MEMORY, NO_THREADS, NO_KERNELS, WRONG };

static int outcome(fastgpt_status status) {
    return status == FASTGPT_ERR_MEMORY ? NO_MEMORY : status == FASTGPT_ERR_THREADS ? NO_THREADS : WRONG;
}

/* All that has been mapped, in bytes. */
static size_t mapped_bytes(void) {
    unsigned long n_pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%lu", &n_pages) != 1) abort();
    fclose(file);
    return n_pages * (size_t)sysconf(_SC_PAGESIZE);
}

static int step_with(const fastgpt_model *model, int n_threads) {
    fastgpt_pool *pool;
    fastgpt_context *ctx;
    fastgpt_kv_cache *kv;
    fastgpt_status status = fastgpt_pool_create(n_threads, &pool);
    if (!status) status = fastgpt_context_create(model, pool, 0, &ctx);
    if (!status) status = fastgpt_kv_cache_create(model, 0, &kv);
    if (status) return outcome(status);
    status = fastgpt_prefill(ctx, kv, some_tokens, N_TOKENS, NULL);
    return status == FASTGPT_OK ? STEP_DONE : status == FASTGPT_ERR_THREADS ? NO_THREADS : WRONG;
}

/* A step, with so many bytes more than it takes to load. */
static int run_child(int n_threads, size_t n_more) {
    fastgpt_model *model;
    fastgpt_error error;
    draft d = draft_of(small_shape);
    fastgpt_status status = load_draft(&d, false, &model, &error);
    if (status) return status == FASTGPT_ERR_UNSUPPORTED ? NO_KERNELS : WRONG;
    size_t n = mapped_bytes() + n_more;
    if (setrlimit(RLIMIT_AS, &(struct rlimit){n, n}) != 0) return WRONG;
    return step_with(model, n_threads);
}

/* In a fresh process: kernels are chosen once, and OpenBLAS has free buffers after a fork. */
static int run_silently(const char *family, int n_threads, size_t n_more) {
    int ends[2], code = 0;
    char printed[200], threads[20], more[20];
    snprintf(threads, sizeof threads, "%d", n_threads);
    snprintf(more, sizeof more, "%zu", n_more);
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        setenv("FASTGPT_ISA", family, 1);
        execl(program, program, threads, more, (char *)NULL);
        _exit(WRONG);
    }
    close(ends[1]);
    ssize_t n = read(ends[0], printed, sizeof printed - 1);
    printed[n > 0 ? n : 0] = 0;
    close(ends[0]);
    CHECK(waitpid(child, &code, 0) == child);
    CHECK_FOR(n == 0, "%s, %d threads, %zu KB: printed \"%s\"", family, n_threads, n_more >> 10, printed);
    CHECK_FOR(WIFEXITED(code) && WEXITSTATUS(code) >= STEP_DONE && WEXITSTATUS(code) < WRONG,
              "%s, %d threads, %zu KB: status %x", family, n_threads, n_more >> 10, (unsigned)code);
    return WEXITSTATUS(code);
}

static void test_little_memory(const char *family, int n_threads) {
    const size_t step = (size_t)3 << 20, most = (size_t)400 << 20;
    bool refused = false;
    for (size_t n_more = 0; n_more <= most; n_more += step) {
        int result = run_silently(family, n_threads, n_more);
        if (result == NO_KERNELS) return;
        refused |= result == NO_MEMORY;
        if (result == STEP_DONE) {
            CHECK_FOR(refused, "%s", family);
            printf("%s, %d threads: a step in %zu MB\n", family, n_threads, n_more >> 20);
            return;
        }
    }
    CHECK_FOR(false, "%s: no step in %zu MB", family, most >> 20);
}

/* ---- Many threads ---- */

enum { N_WRITERS = 9, N_ROUNDS = 10 };

typedef struct writer {
    pthread_t thread;
    fastgpt_context *ctx;
    fastgpt_kv_cache *kv;
    float *logits; /* [n_vocab] */
} writer;

static fastgpt_model *model;
static atomic_bool stop;

static writer new_writer(void) {
    return (writer){.ctx = new_context(model, NULL, 0),
                    .kv = new_cache(model, 0),
                    .logits = new_floats(fastgpt_model_n_vocab(model))};
}

static void free_writer(writer *w) {
    fastgpt_context_free(w->ctx);
    fastgpt_kv_cache_free(w->kv);
    free(w->logits);
}

static bool prefill_again(writer *w) {
    return fastgpt_kv_cache_truncate(w->kv, 0) == FASTGPT_OK &&
           fastgpt_prefill(w->ctx, w->kv, some_tokens, N_TOKENS, w->logits) == FASTGPT_OK;
}

static void *write_rounds(void *arg) {
    bool done = true;
    for (int i = 0; i < N_ROUNDS; i++) done &= prefill_again(arg);
    return done ? arg : NULL;
}

/* Each has a context of its own. */
static void test_many_threads(void) {
    writer writers[N_WRITERS];
    for (int i = 0; i < N_WRITERS; i++) writers[i] = new_writer();
    for (int i = 1; i < N_WRITERS; i++) CHECK(pthread_create(&writers[i].thread, NULL, write_rounds, &writers[i]) == 0);
    CHECK(write_rounds(&writers[0]) != NULL);
    for (int i = 1; i < N_WRITERS; i++) {
        void *result;
        CHECK(pthread_join(writers[i].thread, &result) == 0 && result != NULL);
        CHECK(same_floats(writers[i].logits, writers[0].logits, fastgpt_model_n_vocab(model)));
    }
    for (int i = 0; i < N_WRITERS; i++) free_writer(&writers[i]);
}

/* ---- Forks ---- */

static void *write_until_stopped(void *arg) {
    while (!atomic_load(&stop) && prefill_again(arg)) {
    }
    return NULL;
}

/* The child of a fork multiplies, whatever the other threads were at. */
static void test_forks(void) {
    enum { N_FORKS = 20, SECONDS = 100 };
    writer busy[3] = {new_writer(), new_writer(), new_writer()}, own = new_writer();
    for (int i = 0; i < 3; i++) CHECK(pthread_create(&busy[i].thread, NULL, write_until_stopped, &busy[i]) == 0);
    for (int i = 0; i < N_FORKS; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(SECONDS); /* ends one that hangs */
            _exit(prefill_again(&own) ? STEP_DONE : WRONG);
        }
        int code = 0;
        CHECK(waitpid(child, &code, 0) == child);
        CHECK_FOR(WIFEXITED(code) && WEXITSTATUS(code) == STEP_DONE, "fork %d: status %x", i, (unsigned)code);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 3; i++) {
        CHECK(pthread_join(busy[i].thread, NULL) == 0);
        free_writer(&busy[i]);
    }
    free_writer(&own);
}

/* A BLAS of the system prints and exits as it likes, a sanitizer maps terabytes and forbids threads in a child, and
 * QEMU applies no limit to what runs in it. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(FASTGPT_TESTS_IN_QEMU)
static const bool memory_can_be_limited = false;
#else
static const bool memory_can_be_limited = true;
#endif

static bool owns_its_blas(void) {
#ifdef FASTGPT_OPENBLAS_IS_PRIVATE
    return true;
#else
    return strcmp(fastgpt_blas_name(), "Native") == 0;
#endif
}

int main(int argc, char **argv) {
    if (argc == 3) return run_child(atoi(argv[1]), (size_t)atoll(argv[2]));
    program = argv[0];
    for (size_t i = 0; memory_can_be_limited && owns_its_blas() && i < sizeof families / sizeof *families; i++)
        for (int n_threads = 1; n_threads <= 3; n_threads += 2) test_little_memory(families[i], n_threads);
    model = load_shape(small_shape, false);
    test_many_threads();
    if (memory_can_be_limited) test_forks();
    fastgpt_model_free(model);
    return check_report();
}
