/* thread_pool.c - see thread_pool.h.
 *
 * A job is published by one 64-bit ticket: its number in the upper half, its next free unit in the lower.
 * Whoever wants a unit raises the ticket by compare-and-swap.  A thread that wakes late finds another job
 * number or no unit left, so nobody ever waits for a sleeper: the step waits for units, not for threads. */
#include "common/thread_pool.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "common/os.h"

enum { MAX_THREADS = 1024, SPINS_BEFORE_SLEEP = 4000, SPINS_BEFORE_YIELD = 20000 };

typedef struct worker {
    fastgpt_pool *pool;
    pthread_t thread;
    int index; /* 1 .. n_threads - 1; the caller of a step is 0 */
    int64_t start_ns, end_ns; /* see pool_take_share; written while the worker has a unit that is not counted as done */
} worker;

struct fastgpt_pool {
    pthread_mutex_t step; /* held from pool_enter to pool_leave */
    int n_threads;
    int n_started; /* workers that run in process process_id */
    bool watched;
    atomic_int_fast64_t process_id;
    worker *workers; /* [n_threads - 1] */

    /* Atomic, since a late thread may read them while the next job is written; its ticket then fails. */
    _Atomic pool_job job;
    _Atomic(void *) arg;
    atomic_int n_units;
    atomic_int n_done;
    atomic_uint_fast64_t ticket;

    pthread_mutex_t sleep;
    pthread_cond_t wake;
    atomic_int n_sleeping;
    atomic_bool stop;
};

static uint32_t number_of(uint64_t ticket) { return (uint32_t)(ticket >> 32); }

/* ---- Work ---- */

static void note_start(fastgpt_pool *pool, int thread) {
    if (thread == 0 || !pool->watched) return;
    worker *w = &pool->workers[thread - 1];
    if (w->start_ns == 0) w->start_ns = os_nanoseconds();
}

static void note_end(fastgpt_pool *pool, int thread) {
    if (thread > 0 && pool->watched) pool->workers[thread - 1].end_ns = os_nanoseconds();
}

/* Takes units of job `number` until none is left.  They count as done together, at the end: until then the job is not
 * over, and nobody else looks at what this thread notes. */
static void work(fastgpt_pool *pool, uint32_t number, int thread) {
    pool_job job = atomic_load(&pool->job);
    void *arg = atomic_load(&pool->arg);
    int n_units = atomic_load(&pool->n_units);
    uint64_t ticket = atomic_load(&pool->ticket);
    int n_taken = 0;
    while (number_of(ticket) == number && (int)(uint32_t)ticket < n_units) {
        if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket + 1)) continue;
        if (n_taken++ == 0) note_start(pool, thread);
        job(arg, (int)(uint32_t)ticket, thread);
        ticket = atomic_load(&pool->ticket);
    }
    if (n_taken == 0) return;
    note_end(pool, thread);
    atomic_fetch_add(&pool->n_done, n_taken);
}

static bool nothing_new(fastgpt_pool *pool, uint32_t seen) {
    return number_of(atomic_load(&pool->ticket)) == seen && !atomic_load(&pool->stop);
}

/* Returns when there is a job other than `seen`, or the pool stops. */
static void wait_for_job(fastgpt_pool *pool, uint32_t seen) {
    for (int i = 0; i < SPINS_BEFORE_SLEEP; i++) {
        if (!nothing_new(pool, seen)) return;
        os_pause();
    }
    pthread_mutex_lock(&pool->sleep);
    atomic_fetch_add(&pool->n_sleeping, 1); /* before the look at the ticket: see wake_sleepers */
    while (nothing_new(pool, seen)) pthread_cond_wait(&pool->wake, &pool->sleep);
    atomic_fetch_sub(&pool->n_sleeping, 1);
    pthread_mutex_unlock(&pool->sleep);
}

/* After the new ticket is out: a worker either counted itself asleep before, or sees the ticket. */
static void wake_sleepers(fastgpt_pool *pool) {
    if (atomic_load(&pool->n_sleeping) == 0) return;
    pthread_mutex_lock(&pool->sleep);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->sleep);
}

static void *worker_main(void *arg) {
    worker *self = arg;
    uint32_t seen = 0;
    for (;;) {
        wait_for_job(self->pool, seen);
        if (atomic_load(&self->pool->stop)) return NULL;
        seen = number_of(atomic_load(&self->pool->ticket));
        work(self->pool, seen, self->index);
    }
}

/* No unit of this job number is left, however many units a late thread believes it to have. */
static uint64_t exhausted(uint64_t ticket) { return ticket | UINT32_C(0x7FFFFFFF); }

/* The old job is closed before any field changes, and the new number comes out after all of them: whoever
 * takes a unit of the new job has seen its fields, and nobody takes one of the old job any more. */
static void publish(fastgpt_pool *pool, pool_job job, void *arg, int n_units) {
    uint64_t old = atomic_load(&pool->ticket);
    atomic_store(&pool->ticket, exhausted(old));
    atomic_store(&pool->job, job);
    atomic_store(&pool->arg, arg);
    atomic_store(&pool->n_units, n_units);
    atomic_store(&pool->n_done, 0);
    atomic_store(&pool->ticket, (uint64_t)(uint32_t)(number_of(old) + 1) << 32);
    wake_sleepers(pool);
}

void pool_run(fastgpt_pool *pool, pool_job job, void *arg, int n_units) {
    if (!pool || pool->n_threads == 1 || n_units <= 1) {
        for (int i = 0; i < n_units; i++) job(arg, i, 0);
        return;
    }
    publish(pool, job, arg, n_units);
    work(pool, number_of(atomic_load(&pool->ticket)), 0);
    for (int i = 0; atomic_load(&pool->n_done) < n_units; i++) {
        if (i < SPINS_BEFORE_YIELD) os_pause();
        else os_yield();
    }
}

void pool_watch(fastgpt_pool *pool, bool on) {
    if (!pool || pool->n_threads == 1) return;
    pool->watched = on;
    for (int i = 0; on && i < pool->n_threads - 1; i++) pool->workers[i].start_ns = 0;
}

bool pool_take_share(fastgpt_pool *pool, int thread, int64_t *start_ns, int64_t *end_ns) {
    worker *w = &pool->workers[thread - 1];
    *start_ns = w->start_ns;
    *end_ns = w->end_ns;
    w->start_ns = 0;
    return *start_ns != 0;
}

/* ---- Life ---- */

static void init_locks(fastgpt_pool *pool) {
    pthread_mutex_init(&pool->step, NULL);
    pthread_mutex_init(&pool->sleep, NULL);
    pthread_cond_init(&pool->wake, NULL);
    atomic_store(&pool->n_sleeping, 0);
}

/* Workers leave signals to the threads of the host. */
static fastgpt_status start_thread(worker *w) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&w->thread, NULL, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error ? FASTGPT_ERR_THREADS : FASTGPT_OK;
}

static fastgpt_status start_threads(fastgpt_pool *pool) {
    while (pool->n_started < pool->n_threads - 1) {
        worker *w = &pool->workers[pool->n_started];
        *w = (worker){.pool = pool, .index = pool->n_started + 1};
        if (start_thread(w)) return FASTGPT_ERR_THREADS;
        pool->n_started++;
    }
    return FASTGPT_OK;
}

/* In the child of a fork the threads are gone, the locks may be held by nobody, and a job may be half done.
 * One thread of the child puts that right; others wait for it. */
static void start_afresh_after_fork(fastgpt_pool *pool) {
    enum { BUSY = -1 };
    int64_t id = os_process_id(), before = atomic_load(&pool->process_id);
    while (before != id) {
        if (before != BUSY && atomic_compare_exchange_strong(&pool->process_id, &before, BUSY)) {
            pool->n_started = 0;
            init_locks(pool);
            atomic_store(&pool->ticket, exhausted(atomic_load(&pool->ticket)));
            atomic_store(&pool->process_id, id);
            return;
        }
        before = atomic_load(&pool->process_id);
    }
}

fastgpt_status pool_enter(fastgpt_pool *pool) {
    if (!pool || pool->n_threads == 1) return FASTGPT_OK;
    start_afresh_after_fork(pool);
    pthread_mutex_lock(&pool->step);
    fastgpt_status status = start_threads(pool);
    if (status) pthread_mutex_unlock(&pool->step);
    return status;
}

void pool_leave(fastgpt_pool *pool) {
    if (pool && pool->n_threads > 1) pthread_mutex_unlock(&pool->step);
}

int pool_n_threads(const fastgpt_pool *pool) { return pool ? pool->n_threads : 1; }

fastgpt_cores fastgpt_core_counts(void) { return os_cores(); }

void fastgpt_get_core_counts(fastgpt_cores *out) { *out = os_cores(); }

int32_t fastgpt_usable_cores(void) { return os_cores().usable; }

static int32_t default_n_threads(void) {
    int32_t n = fastgpt_usable_cores();
    return n < MAX_THREADS ? n : MAX_THREADS;
}

fastgpt_status fastgpt_pool_create(int32_t n_threads, fastgpt_pool **out) {
    if (!out) return FASTGPT_ERR_ARGUMENT;
    *out = NULL;
    if (n_threads < 0 || n_threads > MAX_THREADS) return FASTGPT_ERR_ARGUMENT;
    if (n_threads == 0) n_threads = default_n_threads();
    fastgpt_pool *pool = calloc(1, sizeof *pool);
    worker *workers = calloc((size_t)n_threads, sizeof *workers);
    if (!pool || !workers) {
        free(pool);
        free(workers);
        return FASTGPT_ERR_MEMORY;
    }
    pool->n_threads = n_threads;
    pool->workers = workers;
    atomic_store(&pool->process_id, os_process_id());
    init_locks(pool);
    *out = pool;
    return FASTGPT_OK;
}

static void stop_threads(fastgpt_pool *pool) {
    atomic_store(&pool->stop, true);
    pthread_mutex_lock(&pool->sleep);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->sleep);
    for (int i = 0; i < pool->n_started; i++) pthread_join(pool->workers[i].thread, NULL);
}

void fastgpt_pool_free(fastgpt_pool *pool) {
    if (!pool) return;
    start_afresh_after_fork(pool);
    stop_threads(pool);
    pthread_mutex_destroy(&pool->step);
    pthread_mutex_destroy(&pool->sleep);
    pthread_cond_destroy(&pool->wake);
    free(pool->workers);
    free(pool);
}

int32_t fastgpt_pool_n_threads(const fastgpt_pool *pool) { return pool->n_threads; }
