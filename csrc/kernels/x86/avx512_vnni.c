/* avx512_vnni.c - avx512.c with VNNI, which multiplies and adds bytes in one instruction. */
#define WIDTH 8
#define ROWS 4
#define TOKENS 4
#include "kernels/x86/x86.inl.h"

#include "kernels/x86/avx512_math.h"
#include "kernels/generic/simd.inl.h"

#include "kernels/x86/matrix_vnni.inl.h"

#include "kernels/x86/matrix_floats.inl.h"

#include "kernels/x86/stream_floats.inl.h"

const kernels kernels_avx512_vnni = KERNELS("avx512-vnni", "avx512", NULL, matrix_bytes, &float_products);
