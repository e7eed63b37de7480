/* avx512.c - AVX-512 F, BW, DQ, VL: 32 registers of 16 floats. */
#define WIDTH 16
#define ROWS 4
#define TOKENS 4
#include "simd.h"

const kernels kernels_avx512 = {"avx512", dot_rows, weighted_sum, softmax, gelu, layer_norm};
