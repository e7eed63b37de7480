/* peak_portable.c - what the compiler makes of plain vectors, on any CPU. */
#define WIDTH 4
#define ACCUMULATORS 8
#include "roofline/peak_simd.inl.h"

const peak peak_portable = {.family = "portable", .read = read_words, .f32 = PEAK_F32};
