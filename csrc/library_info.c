/* library_info.c - what this build is, and what it runs on: version, BLAS, kernels. */
#include <stddef.h>

#include "fastgpt.h"
#include "kernels/kernels.h"
#include "matmul/blas.h"

const char *fastgpt_version(void) { return FASTGPT_VERSION; }

int32_t fastgpt_abi_version(void) { return FASTGPT_ABI_VERSION; }

const char *fastgpt_build_info(void) { return FASTGPT_BUILD_INFO; }

const char *fastgpt_blas_name(void) { return blas_name(); }

const char *fastgpt_kernels_name(void) {
    const kernels *k = kernels_chosen();
    return k ? k->name : "none";
}

const char *fastgpt_kernels_available(int32_t i) {
    int n;
    const kernels *const *all = kernels_all(&n);
    return i >= 0 && i < n ? all[i]->name : NULL;
}
