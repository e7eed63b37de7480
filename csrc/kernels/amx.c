/* amx.c - avx512_vnni.c with AMX tiles for many tokens. */
#define WIDTH 8
#define ROWS 4
#define TOKENS 4
#define FETCHES_F32 1
#include "x86.h"

#include "simd.h"

#include "amx_tiles.h"

#include "matrix_floats.h"

const kernels kernels_amx = KERNELS("amx", "amx", matrix, NULL, matrix_floats, LANES);
