/* avx512.c - AVX-512 F, BW, DQ, VL: 32 registers, used 8 floats wide, which was faster than 16 on Zen 4 in cache
 * and from memory; the gain over avx2.c is room for twice the accumulators.  Only the products of floats use registers
 * of 16. */
#define WIDTH 8
#define ROWS 4
#define TOKENS 4
#include "kernels/x86/x86.inl.h"

#include "kernels/x86/avx512_math.h"
#include "kernels/generic/simd.inl.h"

#include "kernels/x86/gemm_f32.inl.h"

#include "kernels/x86/stream_f32.inl.h"

const kernels kernels_avx512 = KERNELS("avx512", "avx512", NULL, NULL, &float_products);
