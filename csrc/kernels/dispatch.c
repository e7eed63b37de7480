/* dispatch.c - which kernels run here. */
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "common/os.h"

typedef struct choice {
    const kernels *kernels;
    unsigned needs; /* features of os_cpu_features */
} choice;

/* From the plainest to the best; cmake/instruction_sets.cmake may leave some of x86-64 out. */
static const choice choices[] = {
    {&kernels_portable, 0},
#if defined(__x86_64__)
#ifndef FASTGPT_WITHOUT_AVX2
    {&kernels_avx2, OS_CPU_AVX2},
#endif
#ifndef FASTGPT_WITHOUT_AVX2_VNNI
    {&kernels_avx2_vnni, OS_CPU_AVX2 | OS_CPU_AVX_VNNI},
#endif
#ifndef FASTGPT_WITHOUT_AVX512
    {&kernels_avx512, OS_CPU_AVX512},
#endif
#ifndef FASTGPT_WITHOUT_AVX512_VNNI
    {&kernels_avx512_vnni, OS_CPU_AVX512 | OS_CPU_AVX512_VNNI},
#endif
#ifndef FASTGPT_WITHOUT_AVX512_BF16
    {&kernels_avx512_bf16, OS_CPU_AVX512 | OS_CPU_AVX512_VNNI | OS_CPU_AVX512_BF16},
#endif
#ifndef FASTGPT_WITHOUT_AMX
    {&kernels_amx, OS_CPU_AVX512 | OS_CPU_AVX512_VNNI | OS_CPU_AVX512_BF16 | OS_CPU_AMX_BF16},
#endif
#elif defined(__aarch64__)
    {&kernels_neon, OS_CPU_NEON},
    {&kernels_neon_dotprod, OS_CPU_NEON | OS_CPU_DOTPROD},
#endif
};

enum { N_CHOICES = sizeof choices / sizeof *choices };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const kernels *usable[N_CHOICES];
static int n_usable;
static const kernels *chosen;

static void choose(void) {
    const char *wanted = getenv("FASTGPT_ISA");
    bool any = !wanted || !*wanted;
    unsigned features = os_cpu_features();
    for (int i = 0; i < N_CHOICES; i++) {
        if (choices[i].needs & ~features) continue;
        const kernels *k = choices[i].kernels;
        usable[n_usable++] = k;
        if (any || strcmp(k->family, wanted) == 0) chosen = k;
    }
}

const kernels *const *kernels_all(int *n) {
    pthread_once(&once, choose);
    *n = n_usable;
    return usable;
}

const kernels *kernels_chosen(void) {
    pthread_once(&once, choose);
    return chosen;
}
