/* avx2_vnni.c - avx2.c with AVX-VNNI, which multiplies and adds bytes in one instruction. */
#define WIDTH 8
#define ROWS 4
#define TOKENS 3
#define STREAMS 4
#define STREAMED(type, n_tokens) ((n_tokens) == 1 && (type) == TYPE_F32)
#define STREAM_AHEAD 0
#include "kernels/x86/x86.inl.h"

#include "kernels/generic/simd.inl.h"

#include "kernels/x86/gemm_f32.inl.h"

#include "kernels/x86/stream_f32.inl.h"

const kernels kernels_avx2_vnni = KERNELS("avx2-vnni", "avx2", NULL, NULL, &float_products);
