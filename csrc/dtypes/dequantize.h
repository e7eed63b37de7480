/* dequantize.h - rows of weights of any type -> F32. */
#ifndef FASTGPT_DEQUANTIZE_H
#define FASTGPT_DEQUANTIZE_H

#include "dtypes/dtype.h"

/* A row of n values of any type as F32, bit for bit what gguf.quants.dequantize of the package gguf makes of it. */
void dequantize_row(dtype type, float *out, const void *row, int32_t n);

#endif
