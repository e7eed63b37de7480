/* os_x86.c - what an x86-64 CPU can do, for any operating system. */
#include <cpuid.h>

#include "common/os.h"

/* Bit of a register of CPUID (Intel SDM 2A, CPUID): leaf 7 describes the instruction sets. */
static bool leaf_7(unsigned subleaf, int which, int bit) {
    unsigned r[4];
    return __get_cpuid_count(7, subleaf, &r[0], &r[1], &r[2], &r[3]) && (r[which] >> bit & 1);
}

static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}

/* __builtin_cpu_supports also asks whether the system saves the registers. */
unsigned os_cpu_features(void) {
    enum { EAX, ECX = 2, EDX };
    unsigned found = 0;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c()) return found;
    found |= OS_CPU_AVX2;
    if (leaf_7(1, EAX, 4)) found |= OS_CPU_AVX_VNNI;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return found;
    found |= OS_CPU_AVX512;
    if (leaf_7(0, ECX, 11)) found |= OS_CPU_AVX512_VNNI;
    if (leaf_7(1, EAX, 5)) found |= OS_CPU_AVX512_BF16;
    if (leaf_7(0, EDX, 22) && leaf_7(0, EDX, 24) && os_may_use_tiles()) found |= OS_CPU_AMX_BF16;
    return found;
}
