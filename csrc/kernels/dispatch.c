/* dispatch.c - which kernels run here. */
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/instruction_sets.h"

typedef struct candidate {
    const kernels *kernels;
    unsigned needs; /* features of os_cpu_features */
} candidate;

/* From the plainest to the best. */
#define CANDIDATE(set, table, family, needs) IF_BUILT(set)({&table, needs}, )
static const candidate candidates[] = {INSTRUCTION_SETS(CANDIDATE)};
#define KNOWN_FAMILY(set, table, family, needs) static_assert(FAMILY_##family < N_FAMILIES, "FAMILIES lacks it");
INSTRUCTION_SETS(KNOWN_FAMILY)

enum { N_CANDIDATES = sizeof candidates / sizeof *candidates };

static os_once once = OS_ONCE_INIT;
static const kernels *usable[N_CANDIDATES];
static int n_usable;
static const kernels *chosen;

static void choose_kernels(void) {
    const char *wanted = getenv("FASTGPT_ISA");
    bool any = !wanted || !*wanted;
    unsigned features = os_cpu_features();
    for (int i = 0; i < N_CANDIDATES; i++) {
        if (candidates[i].needs & ~features) continue;
        const kernels *k = candidates[i].kernels;
        usable[n_usable++] = k;
        if (any || strcmp(k->family, wanted) == 0) chosen = k;
    }
}

const kernels *const *kernels_all(int *n) {
    os_call_once(&once, choose_kernels);
    *n = n_usable;
    return usable;
}

const kernels *kernels_chosen(void) {
    os_call_once(&once, choose_kernels);
    return chosen;
}
