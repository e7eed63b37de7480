/* test_amx_tiles.c - the loop of AMX on emulated tiles; where the CPU has tiles, test_products.c runs the real ones. */
#include "check.h"

#if defined(__x86_64__)
#include <float.h>
#include <math.h>

#include "emulated_tiles.h"
#include "random.h"

#include "kernels/amx_tiles.h"

static uint64_t seed = 7;
static float sums[MATRIX_ROWS * MATRIX_TOKENS];
static uint16_t w[MATRIX_ROWS * PIECE], x[2][PIECE * MATRIX_LANES];

static void fill(uint16_t *numbers, int n) {
    for (int i = 0; i < n; i++) numbers[i] = bf16_of_f32(random_float(&seed));
}

/* Numbers [first, end) of row r times those of token t; *absolute: the sum of absolute products. */
static double product_of(int r, int t, int first, int end, double *absolute) {
    const uint16_t *panel = x[t / MATRIX_LANES];
    double sum = 0;
    for (int k = first; k < end; k++) {
        double product = (double)f32_of_bf16(w[r * PIECE + k]) *
                         f32_of_bf16(panel[k / 2 * 2 * MATRIX_LANES + t % MATRIX_LANES * 2 + k % 2]);
        sum += product;
        *absolute += fabs(product);
    }
    return sum;
}

/* n numbers in two calls, the second of which goes on from the first, or in one. */
static void check_loop(int n_tokens, int n, int first) {
    fill(w, MATRIX_ROWS * PIECE);
    fill(x[0], PIECE * MATRIX_LANES);
    fill(x[1], PIECE * MATRIX_LANES);
    for (int i = 0; i < MATRIX_ROWS * MATRIX_TOKENS; i++) sums[i] = NAN;
    fetching nothing = {0};
    begin_products();
    if (first) add_piece(sums, x[0], x[1], w, n_tokens, MATRIX_ROWS, first, true, &nothing);
    add_piece(sums, x[0] + first * MATRIX_LANES, x[1] + first * MATRIX_LANES, w + first, n_tokens, MATRIX_ROWS,
              n - first, !first, &nothing);
    end_products();
    double worst = 0;
    for (int r = 0; r < MATRIX_ROWS; r++)
        for (int t = 0; t < n_tokens; t++) {
            double absolute = FLT_MIN, error = fabs(product_of(r, t, 0, n, &absolute) - sums[r * MATRIX_TOKENS + t]);
            error /= (n + 2) * (double)FLT_EPSILON * absolute;
            worst = error <= worst ? worst : error;
        }
    CHECK_FOR(worst <= 1, "%d tokens, n %d from %d on: %g times the bound", n_tokens, n, first, worst);
}

int main(void) {
    static const int tokens[] = {1, 8, 15, 16, 17, 31, 32};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
        for (int n = MATRIX_K; n <= PIECE; n += MATRIX_K)
            for (int first = 0; first < n; first += 3 * MATRIX_K) check_loop(tokens[i], n, first);
    CHECK(!tiles_configured); /* released, so that the process does not carry them through every switch */
    return check_report();
}
#else
int main(void) {
    puts("left out: AMX belongs to x86-64");
    return 0;
}
#endif
