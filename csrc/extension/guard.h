/* guard.h - for the Python extension alone: a step that has ended before Python goes on, even if signal handlers raise
 * exceptions during it, and however often.
 *
 * Python runs signal handlers after every call, so any cleanup written in Python may be skipped by the next exception.
 * Thus C ends a guard, as the destructor of ffi.gc in a "with" statement:
 *
 *     guard = ffi.new("guard *")
 *     with ffi.gc(guard, lib.guard_end):              # no name: only this block owns the guard's end
 *         if not lib.guard_claim(guard, claim): ...
 *         lib.guard_step(guard), or lib.guard_start(guard) and lib.guard_wait(guard, ms) until it is true
 *         guard.keep = True
 *
 * An exception in the block runs guard_end, and so does one that keeps Python from calling __exit__: the object is
 * freed.
 */
#ifndef FASTGPT_GUARD_H
#define FASTGPT_GUARD_H

#include <stdbool.h>

#include <fastgpt.h>

/* cdef:begin */

/* A cache that one guard at a time may use. */
typedef struct claim {
    fastgpt_kv_cache *kv; /* NULL once it is closed */
    bool taken;
    int32_t n_past;     /* when it was claimed */
    struct claim *next; /* of the same guard */
} claim;

typedef struct guard {
    /* A step, as fastgpt_step takes it: everything lives until guard_end. */
    fastgpt_context *context;
    const fastgpt_span *spans;
    int32_t n_spans;
    fastgpt_step_options options;
    float *logits;
    fastgpt_status status; /* of the step, once it has ended */

    bool keep; /* else guard_end truncates the claimed caches to where they were */

    claim *claims;
    int32_t stop; /* the step's, see fastgpt_step_options */
    struct guard_thread *thread; /* while the step runs in one */
} guard;

/* Claims a cache for this guard, until guard_end; false when another one has it. */
bool guard_claim(guard *g, claim *c);

/* Runs the step in the calling thread. */
void guard_step(guard *g);

/* Runs the step in a thread of its own; false, and nothing has begun, if no thread is available. */
bool guard_start(guard *g);

/* Waits at most ms milliseconds for the end of the step that guard_start began; true when it has ended. */
bool guard_wait(guard *g, int32_t ms);

/* Stops a step that still runs and waits for it, rolls the caches back unless `keep`, and releases them. */
void guard_end(guard *g);

/* cdef:end */

#endif
