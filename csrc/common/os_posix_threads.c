/* os_posix_threads.c - the threads of os.h by pthreads. */
#include <signal.h>

#include "common/os.h"

void os_mutex_init(os_mutex *mutex) { pthread_mutex_init(mutex, NULL); }
void os_mutex_lock(os_mutex *mutex) { pthread_mutex_lock(mutex); }
void os_mutex_unlock(os_mutex *mutex) { pthread_mutex_unlock(mutex); }
void os_mutex_destroy(os_mutex *mutex) { pthread_mutex_destroy(mutex); }

void os_condition_init(os_condition *condition) { pthread_cond_init(condition, NULL); }
void os_condition_wait(os_condition *condition, os_mutex *mutex) { pthread_cond_wait(condition, mutex); }
void os_condition_wake_all(os_condition *condition) { pthread_cond_broadcast(condition); }
void os_condition_destroy(os_condition *condition) { pthread_cond_destroy(condition); }

void os_call_once(os_once *once, void (*f)(void)) { pthread_once(once, f); }

/* ---- Threads ---- */

static void *thread_main(void *arg) {
    os_thread *self = arg;
    self->run(self->arg);
    return NULL;
}

/* A thread begins with the signals that its maker blocks. */
bool os_thread_start(os_thread *thread, void (*run)(void *arg), void *arg) {
    sigset_t all, before;
    thread->run = run;
    thread->arg = arg;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread->handle, NULL, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error == 0;
}

void os_thread_join(os_thread *thread) { pthread_join(thread->handle, NULL); }

/* ---- Forks ---- */

static pthread_rwlock_t fork_lock = PTHREAD_RWLOCK_INITIALIZER;

static void before_fork(void) { pthread_rwlock_wrlock(&fork_lock); }
static void after_fork_in_parent(void) { pthread_rwlock_unlock(&fork_lock); }

/* Only the thread that locked may unlock, and the child's thread is another one: so the lock is made anew. */
static void after_fork_in_child(void) { pthread_rwlock_init(&fork_lock, NULL); }

static void watch_forks(void) { pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child); }

void os_hold_forks(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    pthread_rwlock_rdlock(&fork_lock);
}

void os_allow_forks(void) { pthread_rwlock_unlock(&fork_lock); }
