/* dispatch.c - which kernels run here. */
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "os.h"

const kernels *const *kernels_all(int *n) {
    static const kernels *const sets[] = {
        &kernels_portable,
#if defined(__x86_64__)
        &kernels_avx2,
        &kernels_avx512,
#elif defined(__aarch64__)
        &kernels_neon,
#endif
    };
#if defined(__x86_64__)
    *n = os_cpu_has_avx512() ? 3 : os_cpu_has_avx2() ? 2 : 1;
#else
    *n = sizeof sets / sizeof *sets;
#endif
    return sets;
}

static const kernels *choose(void) {
    int n;
    const kernels *const *all = kernels_all(&n);
    const char *wanted = getenv("FASTGPT_ISA");
    if (!wanted || !*wanted) return all[n - 1];
    for (int i = 0; i < n; i++)
        if (strcmp(all[i]->name, wanted) == 0) return all[i];
    return NULL;
}

const kernels *kernels_chosen(void) {
    static _Atomic(const kernels *) chosen;
    const kernels *k = atomic_load(&chosen);
    if (!k) atomic_store(&chosen, k = choose());
    return k;
}
