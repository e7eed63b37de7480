/* peak.h - loops of nothing but the fastest instructions of an instruction set, to show its ceilings.  roofline.c times
 * them; no model runs through them. */
#ifndef FASTGPT_PEAK_H
#define FASTGPT_PEAK_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/instruction_sets.h"

/* The same operations on registers, again and again.  The result means nothing; it keeps the compiler from removing the
 * loop. */
typedef struct peak_rate {
    float (*loop)(int n_rounds); /* NULL where the instruction set has no such instruction */
    int n_operations; /* of a round; a multiply-add is two */
    unsigned needs; /* features of os_cpu_features, besides those of the family */
} peak_rate;

typedef struct peak {
    const char *family; /* of kernels; a rate that is NULL is that of a plainer family */

    /* The sum of x, by whole registers; n_bytes is a multiple of PEAK_READ_STEP. */
    uint64_t (*read)(const uint64_t *x, size_t n_bytes);

    peak_rate f32; /* fused multiply-adds */
    peak_rate bf16; /* dot products of pairs, summed in f32 */
    peak_rate int8; /* dot products of four, summed in int32 */
} peak;

enum { PEAK_READ_STEP = 512 };

#define DECLARE_PEAK(family) extern const peak peak_##family;
FAMILIES(DECLARE_PEAK)

#endif
