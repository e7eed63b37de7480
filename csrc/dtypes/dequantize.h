/* dequantize.h - number types that only files have: their rows become F32, or Q8_0, which kernels compute with. */
#ifndef FASTGPT_DEQUANTIZE_H
#define FASTGPT_DEQUANTIZE_H

#include "dtypes/dtype.h"

static inline bool is_recoded(number_type type) { return type >= N_NUMBER_TYPES; }

/* A row of n numbers of any type as F32, bit for bit what gguf.quants.dequantize of the package gguf makes of it. */
void widen_row(number_type type, float *out, const void *row, int32_t n);

/* n numbers of any type, whole blocks of it, rounded to Q8_0, 256 at a time: none is off by more than 1/254 of the
 * largest of its 32, and what the scale is off as an F16.  Returns false, with out half written, when a number is NaN,
 * infinite, or too large for the scale. */
bool recode_to_q8_0(block_q8_0 *out, number_type type, const void *numbers, int64_t n);

#endif
