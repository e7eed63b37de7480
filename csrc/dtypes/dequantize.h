/* dequantize.h - rows of weights of any type -> F32, and which types only files have. */
#ifndef FASTGPT_DEQUANTIZE_H
#define FASTGPT_DEQUANTIZE_H

#include "dtypes/dtype.h"

static inline bool is_recoded(number_type type) { return type >= N_NUMBER_TYPES; }

/* A row of n numbers of any type as F32, bit for bit what gguf.quants.dequantize of the package gguf makes of it. */
void widen_row(number_type type, float *out, const void *row, int32_t n);

#endif
