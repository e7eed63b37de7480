/* guard.c - see guard.h. */
#include "extension/guard.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct guard_thread {
    guard *guard;
    pthread_t thread;
    pid_t process; /* a fork has no such thread */
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool has_ended;
};

/* ---- Claims ---- */

bool guard_claim(guard *g, claim *c) {
    if (__atomic_exchange_n(&c->taken, true, __ATOMIC_ACQUIRE)) return false;
    c->n_past = c->kv ? fastgpt_kv_cache_n_past(c->kv) : 0;
    c->next = g->claims;
    g->claims = c;
    return true;
}

static void release_claim(guard *g, claim *c) {
    if (!g->keep && c->kv && fastgpt_kv_cache_n_past(c->kv) > c->n_past) fastgpt_kv_cache_truncate(c->kv, c->n_past);
    g->claims = c->next;
    __atomic_store_n(&c->taken, false, __ATOMIC_RELEASE);
}

/* ---- The step ---- */

void guard_step(guard *g) {
    g->options.struct_size = sizeof g->options;
    g->options.stop = &g->stop;
    g->status = fastgpt_step(g->context, g->spans, g->n_spans, &g->options, g->logits);
}

static void *thread_main(void *arg) {
    struct guard_thread *t = arg;
    guard_step(t->guard);
    pthread_mutex_lock(&t->lock);
    t->has_ended = true;
    pthread_cond_signal(&t->ended);
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* A monotonic clock, where a condition variable can wait by one. */
#ifdef __APPLE__
static const clockid_t wait_clock = CLOCK_REALTIME;
static void init_ended(pthread_cond_t *ended) { pthread_cond_init(ended, NULL); }
#else
static const clockid_t wait_clock = CLOCK_MONOTONIC;
static void init_ended(pthread_cond_t *ended) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, wait_clock);
    pthread_cond_init(ended, &attributes);
    pthread_condattr_destroy(&attributes);
}
#endif

static void free_thread(struct guard_thread *t) {
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->ended);
    free(t);
}

/* The thread blocks all signals: they are for the threads of Python. */
bool guard_start(guard *g) {
    struct guard_thread *t = calloc(1, sizeof *t);
    if (!t) return false;
    t->guard = g;
    t->process = getpid();
    pthread_mutex_init(&t->lock, NULL);
    init_ended(&t->ended);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&t->thread, NULL, thread_main, t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        free_thread(t);
        return false;
    }
    g->thread = t;
    return true;
}

static struct timespec time_after(int32_t ms) {
    struct timespec at;
    clock_gettime(wait_clock, &at);
    at.tv_sec += ms / 1000;
    at.tv_nsec += ms % 1000 * 1000000L;
    if (at.tv_nsec >= 1000000000L) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000L;
    }
    return at;
}

bool guard_wait(guard *g, int32_t ms) {
    struct guard_thread *t = g->thread;
    if (t->process != getpid()) { /* a signal handler forked: in the child no thread runs this step */
        g->status = FASTGPT_ERR_CANCELLED;
        return true;
    }
    const struct timespec end = time_after(ms);
    int error = 0;
    pthread_mutex_lock(&t->lock);
    while (!t->has_ended && !error) error = pthread_cond_timedwait(&t->ended, &t->lock, &end);
    bool has_ended = t->has_ended;
    pthread_mutex_unlock(&t->lock);
    return has_ended;
}

/* In the child of a fork the thread's memory is not freed: its lock may be held by a thread that does not exist there.
 */
static void end_thread(guard *g) {
    struct guard_thread *t = g->thread;
    if (!t) return;
    g->thread = NULL;
    if (t->process != getpid()) return;
    __atomic_store_n(&g->stop, 1, __ATOMIC_RELAXED);
    pthread_join(t->thread, NULL);
    free_thread(t);
}

void guard_end(guard *g) {
    end_thread(g);
    while (g->claims) release_claim(g, g->claims);
}
