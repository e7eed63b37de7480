/* avx512_vnni.c - avx512.c with VNNI, which multiplies and adds bytes in one instruction. */
#define WIDTH 8
#define ROWS 4
#define TOKENS 4
#include "kernels/x86/x86.inl.h"

#include "kernels/x86/avx512_math.h"
#include "kernels/generic/simd.inl.h"

#include "kernels/x86/gemm_q8.inl.h"

#include "kernels/x86/gemm_f32.inl.h"

#include "kernels/x86/stream_f32.inl.h"

const kernels kernels_avx512_vnni = KERNELS("avx512-vnni", "avx512", NULL, gemm_q8, &float_products);
