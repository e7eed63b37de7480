/* neon.c - AArch64 Advanced SIMD: 32 registers of 4 floats. */
#define WIDTH 4
#define ROWS 4
#define TOKENS 4
#include "kernels/arm/neon.inl.h"

#include "kernels/generic/simd.inl.h"

const kernels kernels_neon = KERNELS("neon", "neon", NULL, NULL, NULL);
