/* quantize.h - what kernels cannot compute with, in a type that they can. */
#ifndef FASTGPT_QUANTIZE_H
#define FASTGPT_QUANTIZE_H

#include "dtypes/dtype.h"

/* n values of any type, whole blocks of it, rounded to Q8_0.  The error of a value is at most 1/254 of the largest of
 * its 32, plus that of rounding the scale to F16.  Returns false, with out partly written, when a value is NaN,
 * infinite, or too large for the scale. */
bool requantize_to_q8_0(block_q8_0 *out, dtype type, const void *values, int64_t n);

#endif
