/* test_pool.c - a pool does each unit of each job exactly once, whoever asks for it. */
#include "support/check.h"
#include "common/os.h"
#include "common/thread_pool.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_UNITS = 300 };

typedef struct counting_job {
    atomic_int n_done[MAX_UNITS];
    atomic_int n_out_of_range; /* units and threads that do not exist */
    int n_units, n_threads;
} counting_job;

static void count(void *arg, int unit, int thread) {
    counting_job *job = arg;
    if (unit < 0 || unit >= job->n_units || thread < 0 || thread >= job->n_threads)
        atomic_fetch_add(&job->n_out_of_range, 1);
    else atomic_fetch_add(&job->n_done[unit], 1);
}

/* True when a job of n_units was done as promised. */
static bool runs_each_once(fastgpt_pool *pool, int n_units) {
    counting_job job = {.n_units = n_units, .n_threads = pool_n_threads(pool)};
    pool_run(pool, count, &job, n_units);
    bool once = atomic_load(&job.n_out_of_range) == 0;
    for (int i = 0; i < n_units; i++) once &= atomic_load(&job.n_done[i]) == 1;
    return once;
}

/* n_jobs jobs of many lengths, as one step. */
static bool step(fastgpt_pool *pool, int n_jobs) {
    if (pool_enter(pool) != FASTGPT_OK) return false;
    bool right = true;
    for (int i = 0; i < n_jobs; i++) right &= runs_each_once(pool, i * 7 % MAX_UNITS);
    pool_leave(pool);
    return right;
}

/* ---- All threads at once ---- */

typedef struct meeting {
    atomic_int n_arrived;
    atomic_bool missed;
    int n_expected;
} meeting;

/* Waits for all other units, for ten seconds at most. */
static void meet(void *arg, int unit, int thread) {
    meeting *m = arg;
    (void)unit;
    (void)thread;
    atomic_fetch_add(&m->n_arrived, 1);
    for (int ms = 0; atomic_load(&m->n_arrived) < m->n_expected; ms++) {
        if (ms == 10000) atomic_store(&m->missed, true);
        if (atomic_load(&m->missed)) return;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

/* As many units as threads, none of which ends before all have begun: every thread must have come. */
static bool all_threads_come(fastgpt_pool *pool) {
    meeting m = {.n_expected = pool_n_threads(pool)};
    if (pool_enter(pool) != FASTGPT_OK) return false;
    pool_run(pool, meet, &m, m.n_expected);
    pool_leave(pool);
    return !atomic_load(&m.missed);
}

static void test_every_size(void) {
    CHECK(step(NULL, 100) && pool_n_threads(NULL) == 1);
    for (int n_threads = 1; n_threads <= 5; n_threads++) {
        fastgpt_pool *pool;
        CHECK(fastgpt_pool_create(n_threads, &pool) == FASTGPT_OK && pool_n_threads(pool) == n_threads);
        for (int i = 0; i < 20; i++) CHECK_FOR(step(pool, 100), "%d threads", n_threads);
        CHECK_FOR(all_threads_come(pool), "%d threads", n_threads);
        fastgpt_pool_free(pool);
    }
}

/* Workers that fell asleep between two steps wake for the next one. */
static void test_sleepers(void) {
    fastgpt_pool *pool;
    CHECK(fastgpt_pool_create(3, &pool) == FASTGPT_OK);
    for (int i = 0; i < 20; i++) {
        CHECK(step(pool, 10));
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    fastgpt_pool_free(pool);
}

/* ---- One pool, several callers ---- */

typedef struct caller {
    pthread_t thread;
    fastgpt_pool *pool;
    bool right;
} caller;

static void *caller_main(void *arg) {
    caller *self = arg;
    self->right = true;
    for (int i = 0; i < 50; i++) self->right &= step(self->pool, 20);
    return NULL;
}

static void test_callers_take_turns(void) {
    enum { N_CALLERS = 3 };
    caller callers[N_CALLERS];
    fastgpt_pool *pool;
    CHECK(fastgpt_pool_create(3, &pool) == FASTGPT_OK);
    for (int i = 0; i < N_CALLERS; i++) {
        callers[i].pool = pool;
        CHECK(pthread_create(&callers[i].thread, NULL, caller_main, &callers[i]) == 0);
    }
    for (int i = 0; i < N_CALLERS; i++) {
        pthread_join(callers[i].thread, NULL);
        CHECK_FOR(callers[i].right, "caller %d", i);
    }
    fastgpt_pool_free(pool);
}

/* ---- Fork ---- */

#if defined(__SANITIZE_THREAD__) || defined(FASTGPT_TESTS_IN_QEMU)

/* ThreadSanitizer forbids new threads in the child of a fork; QEMU's user mode dies of them. */
static void test_fork(void) { puts("left out: a pool in the child of a fork"); }

#else

/* 0 when the pool works in this process and can be freed here. */
static int use_in_child(fastgpt_pool *pool) {
    bool right = step(pool, 50) && step(pool, 50) && all_threads_come(pool);
    fastgpt_pool_free(pool);
    return right ? 0 : 1;
}

static void check_child(fastgpt_pool *pool) {
    int status = -1;
    pid_t child = fork();
    if (child == 0) _exit(use_in_child(pool));
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK_FOR(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
}

/* Before the first step, between steps, and in the middle of one. */
static void test_fork(void) {
    fastgpt_pool *pool;
    CHECK(fastgpt_pool_create(3, &pool) == FASTGPT_OK);
    check_child(pool);
    CHECK(step(pool, 50));
    check_child(pool);
    CHECK(pool_enter(pool) == FASTGPT_OK);
    check_child(pool);
    pool_leave(pool);
    CHECK(step(pool, 50));
    fastgpt_pool_free(pool);
}

#endif

int main(void) {
    test_every_size();
    test_sleepers();
    test_callers_take_turns();
    test_fork();
    return check_report();
}
