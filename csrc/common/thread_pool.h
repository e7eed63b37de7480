/* thread_pool.h - a pool of threads that run a function over units of work. */
#ifndef FASTGPT_THREAD_POOL_H
#define FASTGPT_THREAD_POOL_H

#include <stdbool.h>

#include "fastgpt.h"

/* Does unit `unit` of the job that arg describes; `thread` in [0, n_threads) owns scratch memory. */
typedef void (*pool_job)(void *arg, int unit, int thread);

/* Locks the pool for one step and starts its threads unless they run already.  OK or THREADS.
 * NULL is the pool of the calling thread alone. */
fastgpt_status pool_enter(fastgpt_pool *pool);
void pool_leave(fastgpt_pool *pool);

/* Runs units 0 .. n_units - 1, each once, in any order and by any thread; returns when all are done.
 * Between pool_enter and pool_leave only.  What a unit computes must not depend on `thread`. */
void pool_run(fastgpt_pool *pool, pool_job job, void *arg, int n_units);

int pool_n_threads(const fastgpt_pool *pool); /* 1 for NULL */

/* Whether workers record when they begin and end work; between pool_enter and pool_leave. */
void pool_watch(fastgpt_pool *pool, bool on);

/* When a worker, thread in [1, n_threads), began its first unit and ended its last one since the previous call for it;
 * false if it had none.  Between jobs of the watched pool. */
bool pool_take_share(fastgpt_pool *pool, int thread, int64_t *start_ns, int64_t *end_ns);

#endif
