/* thread_pool.c - see thread_pool.h.
 *
 * A job is published by one 64-bit ticket: its number in the upper half, its next free unit in the lower.
 * A thread claims a unit by raising the ticket with compare-and-swap.  A thread that wakes late finds another job
 * number or no unit left, so nobody ever waits for a sleeper: the step waits for units, not for threads. */
#include "common/thread_pool.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "common/os.h"

enum { MAX_THREADS = 1024, SPINS_BEFORE_SLEEP = 4000, SPINS_BEFORE_YIELD = 20000 };

typedef struct worker {
    fastgpt_pool *pool;
    os_thread thread;
    int index; /* 1 .. n_threads - 1; the caller of a step is 0 */
    int64_t start_ns, end_ns; /* see pool_take_share; written while the worker has units that are not counted as done */
} worker;

struct fastgpt_pool {
    os_mutex step; /* held from pool_enter to pool_leave */
    int n_threads;
    int n_started; /* workers that run in process process_id */
    bool watched;
    atomic_int_fast64_t process_id;
    worker *workers; /* [n_threads - 1] */

    /* Atomic, since a late thread may read them while the next job is written; it then fails to claim a unit. */
    _Atomic pool_job job;
    _Atomic(void *) arg;
    atomic_int n_units;
    atomic_int n_done;
    atomic_uint_fast64_t ticket;

    os_mutex sleep;
    os_condition wake;
    atomic_int n_sleeping;
    atomic_bool stop;
};

static uint32_t number_of(uint64_t ticket) { return (uint32_t)(ticket >> 32); }

/* ---- Work ---- */

static void record_start(fastgpt_pool *pool, int thread) {
    if (thread == 0 || !pool->watched) return;
    worker *w = &pool->workers[thread - 1];
    if (w->start_ns == 0) w->start_ns = os_nanoseconds();
}

static void record_end(fastgpt_pool *pool, int thread) {
    if (thread > 0 && pool->watched) pool->workers[thread - 1].end_ns = os_nanoseconds();
}

/* Claims and runs units of job `number` until none is left.  They count as done together, at the end: until then the
 * job is not over, and nobody else reads this thread's times. */
static void run_units(fastgpt_pool *pool, uint32_t number, int thread) {
    pool_job job = atomic_load(&pool->job);
    void *arg = atomic_load(&pool->arg);
    int n_units = atomic_load(&pool->n_units);
    uint64_t ticket = atomic_load(&pool->ticket);
    int n_claimed = 0;
    while (number_of(ticket) == number && (int)(uint32_t)ticket < n_units) {
        if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket + 1)) continue;
        if (n_claimed++ == 0) record_start(pool, thread);
        job(arg, (int)(uint32_t)ticket, thread);
        ticket = atomic_load(&pool->ticket);
    }
    if (n_claimed == 0) return;
    record_end(pool, thread);
    atomic_fetch_add(&pool->n_done, n_claimed);
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
    os_mutex_lock(&pool->sleep);
    atomic_fetch_add(&pool->n_sleeping, 1); /* before it reads the ticket: see wake_sleepers */
    while (nothing_new(pool, seen)) os_condition_wait(&pool->wake, &pool->sleep);
    atomic_fetch_sub(&pool->n_sleeping, 1);
    os_mutex_unlock(&pool->sleep);
}

/* Called after the new ticket is stored: a worker either counted itself as asleep before, or sees the ticket. */
static void wake_sleepers(fastgpt_pool *pool) {
    if (atomic_load(&pool->n_sleeping) == 0) return;
    os_mutex_lock(&pool->sleep);
    os_condition_wake_all(&pool->wake);
    os_mutex_unlock(&pool->sleep);
}

static void worker_main(void *arg) {
    worker *self = arg;
    uint32_t seen = 0;
    for (;;) {
        wait_for_job(self->pool, seen);
        if (atomic_load(&self->pool->stop)) return;
        seen = number_of(atomic_load(&self->pool->ticket));
        run_units(self->pool, seen, self->index);
    }
}

/* No unit of this job number is left, however many units a late thread believes it to have. */
static uint64_t exhausted(uint64_t ticket) { return ticket | UINT32_C(0x7FFFFFFF); }

/* The old job is closed before any field changes, and the new number is stored after all of them: who claims a unit of
 * the new job has seen its fields, and nobody can claim one of the old job. */
static void publish_job(fastgpt_pool *pool, pool_job job, void *arg, int n_units) {
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
    publish_job(pool, job, arg, n_units);
    run_units(pool, number_of(atomic_load(&pool->ticket)), 0);
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

/* ---- Create, fork and free ---- */

static void init_locks(fastgpt_pool *pool) {
    os_mutex_init(&pool->step);
    os_mutex_init(&pool->sleep);
    os_condition_init(&pool->wake);
    atomic_store(&pool->n_sleeping, 0);
}

static fastgpt_status start_threads(fastgpt_pool *pool) {
    while (pool->n_started < pool->n_threads - 1) {
        worker *w = &pool->workers[pool->n_started];
        *w = (worker){.pool = pool, .index = pool->n_started + 1};
        if (!os_thread_start(&w->thread, worker_main, w)) return FASTGPT_ERR_THREADS;
        pool->n_started++;
    }
    return FASTGPT_OK;
}

/* In the child of a fork there are no workers, locks may be held by threads that do not exist, and a job may be half
 * done.  One thread of the child resets all that; others wait for it. */
static void reset_after_fork(fastgpt_pool *pool) {
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
    reset_after_fork(pool);
    os_mutex_lock(&pool->step);
    fastgpt_status status = start_threads(pool);
    if (status) os_mutex_unlock(&pool->step);
    return status;
}

void pool_leave(fastgpt_pool *pool) {
    if (pool && pool->n_threads > 1) os_mutex_unlock(&pool->step);
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
    os_mutex_lock(&pool->sleep);
    os_condition_wake_all(&pool->wake);
    os_mutex_unlock(&pool->sleep);
    for (int i = 0; i < pool->n_started; i++) os_thread_join(&pool->workers[i].thread);
}

void fastgpt_pool_free(fastgpt_pool *pool) {
    if (!pool) return;
    reset_after_fork(pool);
    stop_threads(pool);
    os_mutex_destroy(&pool->step);
    os_mutex_destroy(&pool->sleep);
    os_condition_destroy(&pool->wake);
    free(pool->workers);
    free(pool);
}

int32_t fastgpt_pool_n_threads(const fastgpt_pool *pool) { return pool->n_threads; }
