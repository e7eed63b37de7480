/* sites.h - the places of a model at which the values of a step are shown and changed: what is wanted of the current
 * step, and where its tokens are.  forward.c calls site_done where the values of a place are complete, and before
 * anything reads them; if nothing is wanted of a step, that is a branch. */
#ifndef FASTGPT_SITES_H
#define FASTGPT_SITES_H

#include <stdbool.h>

#include "fastgpt.h"
#include "model/model.h"
#include "transformer/slice.h"

/* What a site's values are. */
typedef enum site_kind { SITE_OF_EMBD, SITE_OF_HEADS, SITE_OF_FF, SITE_OF_KEYS } site_kind;

typedef struct site_info {
    const char *name;
    site_kind kind;
    bool has_layers;
} site_info;

extern const site_info site_infos[FASTGPT_N_SITES];

/* Of the current step. */
typedef struct sites {
    bool any;        /* something is wanted: of taps.h, too */
    uint32_t wanted; /* a bit for each site that has taps, edits or hooks */
    bool ended;      /* by a hook */
    const fastgpt_edit *edits; /* checked */
    int32_t n_edits;
    const fastgpt_hook *hooks;
    int32_t n_hooks;
    const fastgpt_start *starts; /* of the step's spans, NULL = all begin with embeddings */
    const slice *slice; /* whose tokens the current layer computes */
} sites;

static inline uint32_t site_bit(fastgpt_site site) { return 1u << site; }

static inline bool site_is_wanted(const sites *s, fastgpt_site site) { return (s->wanted & site_bit(site)) != 0; }

static inline bool site_has_heads(fastgpt_site site) {
    return site_infos[site].kind == SITE_OF_HEADS || site_infos[site].kind == SITE_OF_KEYS;
}

/* Checks edits, hooks and starts of a step, whose spans and taps are valid, and makes them current.  Returns OK,
 * ARGUMENT or NUMBERS, with the reason in options->error. */
fastgpt_status sites_begin(fastgpt_context *ctx, const fastgpt_step_options *options, const fastgpt_span *spans,
                           int32_t n_spans);

#endif
