/* avx2.c - AVX2 with FMA and F16C: 16 registers of 8 floats. */
#define WIDTH 8
#define ROWS 4
#define TOKENS 3
#define STREAMS 4
#define STREAMED(type, n_tokens) ((n_tokens) == 1 && (type) == TYPE_F32)
#define STREAM_AHEAD 0
#include "x86.h"

#include "simd.h"

#include "matrix_floats.h"

#include "stream_floats.h"

const kernels kernels_avx2 = KERNELS("avx2", "avx2", NULL, NULL, &float_products);
