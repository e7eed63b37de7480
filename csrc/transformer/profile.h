/* profile.h - where the time of a context's steps goes.
 *
 * A step is cut into laps: each ends when an op ends, and is that op's time since the lap before.  So the laps of a
 * step add up to its wall time; the lap "other" is the time of no op. */
#ifndef FASTGPT_PROFILE_H
#define FASTGPT_PROFILE_H

#include <stdbool.h>

#include "fastgpt.h"
#include "model/model.h"

enum { N_PHASES = 2 };

typedef struct profile {
    bool on;
    const fastgpt_model *model;
    fastgpt_pool *pool;
    fastgpt_profile_record *records; /* [N_PHASES][n_rows], by phase, then in the order of a step */
    int32_t n_rows;
    fastgpt_profile_event *events; /* [n_kept] a ring buffer */
    int64_t n_kept;                /* its capacity */
    int64_t n_events;              /* events so far, overwritten ones too */
    fastgpt_profile_phase phases[N_PHASES];

    /* Of the current step, or the last one. */
    fastgpt_profile_event step;   /* what its events have in common; start_ns of the step */
    int64_t lap_ns, layer_ns;     /* when the lap, and the layer, began */
    int64_t cache_bytes_written;  /* by each layer of the current slice */
    int64_t cache_bytes_read;
    int64_t n_pairs;              /* of a query and a key that it sees, in each layer */
} profile;

void profile_free(profile *p);
size_t profile_bytes(const profile *p); /* that it has allocated */

/* The functions below do nothing unless p->on, and are called between pool_enter and pool_leave. */

void profile_begin_step(profile *p, const fastgpt_span *spans, int32_t n_spans);

/* counts [n_spans] tokens of each span in the slice. */
void profile_begin_slice(profile *p, const fastgpt_span *spans, const int32_t *counts, int32_t n_spans);

/* See profile_lap. */
void profile_end_lap(profile *p, int32_t layer, fastgpt_op op, int32_t n_rows);

/* Ends the lap of op, which computed n_rows tokens or rows of logits.  layer is -1 outside of layers. */
static inline void profile_lap(profile *p, int32_t layer, fastgpt_op op, int32_t n_rows) {
    if (p->on) profile_end_lap(p, layer, op, n_rows);
}

void profile_end_step(profile *p);

/* Around the sampling of n_rows tokens, outside of a step. */
void profile_begin_sampling(profile *p);
void profile_end_sampling(profile *p, int32_t n_rows);

/* One token, sampled by the calling thread without the pool; only while p->on. */
void profile_add_sample(profile *p, int64_t start_ns, int64_t end_ns);

#endif
