/* quantize.h - what kernels cannot compute with, in a type that they can. */
#ifndef FASTGPT_QUANTIZE_H
#define FASTGPT_QUANTIZE_H

#include "dtypes/dtype.h"

/* n numbers of any type, whole blocks of it, rounded to Q8_0, 256 at a time: none is off by more than 1/254 of the
 * largest of its 32, and what the scale is off as an F16.  Returns false, with out half written, when a number is NaN,
 * infinite, or too large for the scale. */
bool recode_to_q8_0(block_q8_0 *out, number_type type, const void *numbers, int64_t n);

#endif
