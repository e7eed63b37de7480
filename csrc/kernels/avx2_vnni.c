/* avx2_vnni.c - avx2.c with AVX-VNNI, which multiplies and adds bytes in one instruction. */
#define WIDTH 8
#define ROWS 4
#define TOKENS 3
#define F32_STREAMS 4
#define FETCH_LEVEL 3
#define FETCH_BEYOND 0
#include "x86.h"

#include "simd.h"

#include "matrix_floats.h"

const kernels kernels_avx2_vnni = KERNELS("avx2-vnni", "avx2", NULL, NULL, matrix_floats, LANES);
