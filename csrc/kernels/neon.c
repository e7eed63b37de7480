/* neon.c - AArch64 Advanced SIMD: 32 registers of 4 floats. */
#define WIDTH 4
#define ROWS 4
#define TOKENS 4
#include "simd.h"

const kernels kernels_neon = {"neon", dot_rows, weighted_sum, softmax, gelu, layer_norm};
