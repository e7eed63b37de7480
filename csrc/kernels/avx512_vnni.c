/* avx512_vnni.c - avx512.c with VNNI, which multiplies and adds bytes in one instruction. */
#define WIDTH 8
#define ROWS 4
#define TOKENS 4
#include "x86.h"

#include "avx512_math.h"
#include "simd.h"

#include "matrix_vnni.h"

#include "matrix_floats.h"

#include "stream_floats.h"

const kernels kernels_avx512_vnni = KERNELS("avx512-vnni", "avx512", NULL, matrix_bytes, &float_products);
