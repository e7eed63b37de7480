/* profile.h - where the time of a context's steps goes.
 *
 * A step is cut into laps: each ends when an op ends, and all time since the lap before it is that op's.  So the laps
 * of a step are its wall time, and what no op did is the lap "other". */
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
    fastgpt_profile_event *events; /* [n_kept] a ring */
    int64_t n_kept;                /* events that it has room for */
    int64_t n_events;              /* events so far, the lost ones among them */
    fastgpt_profile_phase phases[N_PHASES];

    /* The step that runs, or the last one. */
    fastgpt_profile_event step;   /* what its events have in common; start_ns of the step */
    int64_t lap_ns, layer_ns;     /* when the lap, and the layer, began */
    int64_t cache_bytes_written;  /* by a layer of the slice that runs */
    int64_t cache_bytes_read;
    int64_t n_pairs;              /* queries times the keys that they see */
} profile;

void profile_free(profile *p);
size_t profile_bytes(const profile *p); /* that it has allocated */

/* What follows does nothing unless p->on, and is called between pool_enter and pool_leave. */

void profile_begin_step(profile *p, const fastgpt_span *spans, int32_t n_spans);

/* counts [n_spans] tokens of each span in the slice. */
void profile_begin_slice(profile *p, const fastgpt_span *spans, const int32_t *counts, int32_t n_spans);

/* See profile_lap. */
void profile_end_lap(profile *p, int32_t layer, fastgpt_op op, int32_t n_rows);

/* The op has just ended; it worked on n_rows tokens, or rows of logits.  layer is -1 outside of layers. */
static inline void profile_lap(profile *p, int32_t layer, fastgpt_op op, int32_t n_rows) {
    if (p->on) profile_end_lap(p, layer, op, n_rows);
}

void profile_end_step(profile *p);

/* Around the draws of n_rows tokens, outside of a step; those that a draw leaves out do not count. */
void profile_begin_draw(profile *p);
void profile_end_draw(profile *p, int32_t n_rows);

/* A draw of one token by the calling thread alone, in no job of the pool; while p->on. */
void profile_add_draw(profile *p, int64_t start_ns, int64_t end_ns);

#endif
