/* avx2.c - AVX2 with FMA and F16C: 16 registers of 8 floats. */
#define WIDTH 8
#define ROWS 4
#define TOKENS 3
#include "x86.h"

#include "simd.h"

const kernels kernels_avx2 = KERNELS("avx2", "avx2", NULL, NULL);
