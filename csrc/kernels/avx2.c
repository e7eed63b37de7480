/* avx2.c - AVX2 with FMA: 16 registers of 8 floats. */
#define WIDTH 8
#define ROWS 4
#define TOKENS 2
#include "simd.h"

const kernels kernels_avx2 = {"avx2", dot_rows, weighted_sum, softmax, gelu, layer_norm};
