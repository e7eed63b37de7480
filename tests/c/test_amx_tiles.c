/* test_amx_tiles.c - the matrix kernel of AMX on emulated tiles; where the CPU has tiles, test_products.c runs the real
 * ones. */
#include "matrix_law.h"

#if defined(__x86_64__)
#include "emulated_tiles.h"

#include "kernels/amx_tiles.h"

int main(void) {
    check_matrix_kernel("emulated AMX", matrix);
    CHECK(!tiles_configured); /* released, so that the process does not carry them through every switch */
    return check_report();
}
#else
int main(void) {
    puts("left out: AMX belongs to x86-64");
    return 0;
}
#endif
