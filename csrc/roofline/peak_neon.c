/* peak_neon.c - AArch64 Advanced SIMD, and where the CPU has it its dot product of int8. */
#define WIDTH 4
#define ACCUMULATORS 16
#include "roofline/peak_simd.inl.h"

#include <arm_neon.h>

#include "common/os.h"

__attribute__((target("arch=armv8.2-a+dotprod"))) static float dot_int8(int n_rounds) {
    int32x4_t sum[ACCUMULATORS];
    int8x16_t x = vdupq_n_s8(1);
    for (int i = 0; i < ACCUMULATORS; i++) sum[i] = vdupq_n_s32(i);
    for (int round = 0; round < n_rounds; round++)
#pragma GCC unroll 16
        for (int i = 0; i < ACCUMULATORS; i++) sum[i] = vdotq_s32(sum[i], x, x);
    for (int i = 1; i < ACCUMULATORS; i++) sum[0] = vaddq_s32(sum[0], sum[i]);
    return (float)vgetq_lane_s32(sum[0], 0);
}

const peak peak_neon = {
    .family = "neon", .read = read_words, .f32 = PEAK_F32, .int8 = {dot_int8, 2 * 16 * ACCUMULATORS, OS_CPU_DOTPROD}};
