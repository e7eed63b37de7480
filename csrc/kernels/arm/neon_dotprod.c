/* neon_dotprod.c - neon.c with the dot product instructions of Armv8.2. */
#define WIDTH 4
#define ROWS 4
#define TOKENS 4
#include "kernels/arm/neon.inl.h"

#include "kernels/generic/simd.inl.h"

const kernels kernels_neon_dotprod = KERNELS("neon-dotprod", "neon", NULL, NULL, NULL);
