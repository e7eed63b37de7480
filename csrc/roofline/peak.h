/* peak.h - loops that do nothing but what an instruction set is best at, to show its limits.  roofline.c times them;
 * no model runs through them. */
#ifndef FASTGPT_PEAK_H
#define FASTGPT_PEAK_H

#include <stddef.h>
#include <stdint.h>

/* The same operations on registers, again and again.  The result is of no use, but keeps the compiler from leaving
 * the loop out. */
typedef struct peak_rate {
    float (*loop)(int n_rounds); /* NULL where the instruction set has nothing of the kind */
    int n_operations;            /* of a round; a multiply-add is two */
    unsigned needs;              /* features of os_cpu_features, besides those of the family */
} peak_rate;

typedef struct peak {
    const char *family; /* of kernels; a rate that it leaves out is that of a plainer family */

    /* The sum of x, by whole registers; n_bytes is a multiple of PEAK_READ_STEP. */
    uint64_t (*read)(const uint64_t *x, size_t n_bytes);

    peak_rate f32;  /* fused multiply-adds */
    peak_rate bf16; /* dot products of pairs, summed in f32 */
    peak_rate int8; /* dot products of four, summed in int32 */
} peak;

enum { PEAK_READ_STEP = 512 };

extern const peak peak_portable;
extern const peak peak_avx2;
extern const peak peak_avx512;
extern const peak peak_amx;
extern const peak peak_neon;

#endif
