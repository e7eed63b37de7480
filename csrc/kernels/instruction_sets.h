/* instruction_sets.h - every instruction set that has kernels of its own, in one list for each architecture.
 *
 * From the plainest to the best; a line is SET(set, kernels, family, needs): the table of kernels, the family that
 * FASTGPT_ISA names, and the features of os_cpu_features that it needs.  CMake defines FASTGPT_HAS_set as 1, or as 0
 * where it leaves the set out (FASTGPT_THIS_CPU_ONLY); a set that CMake does not know does not compile.
 *
 * A family has the name of its first set, and loops that show its ceilings (roofline/peak_FAMILY.c). */
#ifndef FASTGPT_INSTRUCTION_SETS_H
#define FASTGPT_INSTRUCTION_SETS_H

#include "kernels/kernels.h"
#include "common/os.h"

#define FASTGPT_HAS_portable 1

#if defined(__x86_64__)
#define NEEDS_VNNI (OS_CPU_AVX512 | OS_CPU_AVX512_VNNI)
#define NEEDS_BF16 (NEEDS_VNNI | OS_CPU_AVX512_BF16)
#define INSTRUCTION_SETS(SET)                                              \
    SET(portable, kernels_portable, portable, 0)                           \
    SET(avx2, kernels_avx2, avx2, OS_CPU_AVX2)                             \
    SET(avx2_vnni, kernels_avx2_vnni, avx2, OS_CPU_AVX2 | OS_CPU_AVX_VNNI) \
    SET(avx512, kernels_avx512, avx512, OS_CPU_AVX512)                     \
    SET(avx512_vnni, kernels_avx512_vnni, avx512, NEEDS_VNNI)              \
    SET(avx512_bf16, kernels_avx512_bf16, avx512, NEEDS_BF16)              \
    SET(amx, kernels_amx, amx, NEEDS_BF16 | OS_CPU_AMX_BF16)
#define FAMILIES(FAMILY) FAMILY(portable) FAMILY(avx2) FAMILY(avx512) FAMILY(amx)
#elif defined(__aarch64__)
#define INSTRUCTION_SETS(SET)                    \
    SET(portable, kernels_portable, portable, 0) \
    SET(neon, kernels_neon, neon, OS_CPU_NEON)   \
    SET(neon_dotprod, kernels_neon_dotprod, neon, OS_CPU_NEON | OS_CPU_DOTPROD)
#define FAMILIES(FAMILY) FAMILY(portable) FAMILY(neon)
#else
#define INSTRUCTION_SETS(SET) SET(portable, kernels_portable, portable, 0)
#define FAMILIES(FAMILY) FAMILY(portable)
#endif

/* IF_BUILT(set)(tokens): the tokens where the set is built, else nothing.  Of a family, its name. */
#define IF_BUILT(set) IF_BUILT_JOIN(IF_BUILT_, FASTGPT_HAS_##set)
#define IF_BUILT_JOIN(prefix, has) IF_BUILT_PASTE(prefix, has)
#define IF_BUILT_PASTE(prefix, has) prefix##has
#define IF_BUILT_1(...) __VA_ARGS__
#define IF_BUILT_0(...)

#define FAMILY_VALUE(family) FAMILY_##family,
typedef enum family { FAMILIES(FAMILY_VALUE) N_FAMILIES } family;

#define DECLARE_KERNELS(set, table, family, needs) extern const kernels table;
INSTRUCTION_SETS(DECLARE_KERNELS)

#endif
