/* guard.h - for the Python extension alone: work in the library that has ended before Python goes on, whatever signal
 * handlers raise meanwhile, and however often.
 *
 * Python looks for signals after every call, so whatever is to be put right in Python itself may be skipped by the
 * next exception.  Thus a guard is ended by C, as the destructor of ffi.gc in a "with" statement:
 *
 *     guard = ffi.new("guard *")
 *     with ffi.gc(guard, lib.guard_end):              # no name: nothing but this block owns the end
 *         if not lib.guard_claim(guard, claim): ...
 *         lib.guard_step(guard), or lib.guard_start(guard) and lib.guard_wait(guard, ms) until it is true
 *         guard.keep = True
 *
 * An exception in the block, or one that keeps Python from calling __exit__ and so drops the object, runs guard_end.
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

    bool keep; /* or else guard_end takes back what was appended to the claimed caches */

    claim *claims;
    int32_t stop; /* the step's, see fastgpt_step_options */
    struct guard_thread *thread; /* while the step runs in one */
} guard;

/* Claims a cache for this guard, until guard_end; false when another one has it. */
bool guard_claim(guard *g, claim *c);

/* Runs the step in the calling thread. */
void guard_step(guard *g);

/* Runs the step in a thread of its own; false, and nothing has begun, where there is none to be had. */
bool guard_start(guard *g);

/* Waits for the end of the step that guard_start began, for so many milliseconds at most; true when it has ended. */
bool guard_wait(guard *g, int32_t ms);

/* Stops a step that still runs and waits for it, takes back what is not to be kept, and lets go of the caches. */
void guard_end(guard *g);

/* cdef:end */

#endif
