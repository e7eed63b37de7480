/* peak_portable.c - what the compiler makes of plain vectors, on any CPU. */
#define WIDTH 4
#define ACCUMULATORS 8
#include "peak_simd.h"

const peak peak_portable = {.family = "portable", .read = read_words, .f32 = PEAK_F32};
