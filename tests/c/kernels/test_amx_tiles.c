/* test_amx_tiles.c - the loop of AMX on emulated tiles; where the CPU has tiles, test_products.c runs the real ones. */
#include "support/check.h"

#if defined(__x86_64__)
#include <float.h>
#include <math.h>

#include "support/emulated_tiles.h"
#include "support/random.h"

#include "kernels/x86/amx_tiles.inl.h"

enum { MAX_N = 256 }; /* values of a row */

static uint64_t seed = 7;
static int n_stored;
static float sums[2][2][MATRIX_LANES][MATRIX_LANES];
static uint16_t w[MAX_N / MATRIX_K][2][MATRIX_K / 2][MATRIX_LANES][2], x[2][MAX_N / MATRIX_K][MATRIX_LANES][MATRIX_K];

/* Whether sums are stored while others are multiplied: a token for every step. */
static void store_rows(const pending_store *p, int first, int n) {
    CHECK(p->t == 3 && first == n_stored);
    n_stored += n;
}

static void fill_random(void *values, size_t n_bytes) {
    uint16_t *at = values;
    for (size_t i = 0; i < n_bytes / sizeof *at; i++) at[i] = bf16_of_f32(random_float(&seed));
}

/* Values [0, n) of row r times those of token t; *absolute: the sum of absolute products. */
static double product_of(int r, int t, int n, double *absolute) {
    double sum = 0;
    for (int k = 0; k < n; k++) {
        double product =
            (double)f32_of_bf16(w[k / MATRIX_K][r / MATRIX_LANES][k % MATRIX_K / 2][r % MATRIX_LANES][k % 2]) *
            f32_of_bf16(x[t / MATRIX_LANES][k / MATRIX_K][t % MATRIX_LANES][k % MATRIX_K]);
        sum += product;
        *absolute += fabs(product);
    }
    return sum;
}

static void multiply(int n_tokens, int first, int end) {
    overlapped_work work = {.block = {.t = 3, .n_tokens = MATRIX_TOKENS, .per_step = 1}};
    const bf16_view panels = {x[0][first / MATRIX_K][0], MAX_N * MATRIX_LANES};
    n_stored = 0;
    multiply_block(&sums[0][0][0][0], panels, w[first / MATRIX_K][0][0][0], n_tokens, end - first, first == 0, &work);
    const int n_steps = (end - first) / MATRIX_K;
    CHECK_FOR(n_stored == n_steps, "%d tokens were stored in %d steps", n_stored, n_steps);
}

/* n values in two calls, the second of which goes on from the first, or in one. */
static void check_loop(int n_tokens, int n, int first) {
    fill_random(w, sizeof w);
    fill_random(x, sizeof x);
    for (size_t i = 0; i < sizeof sums / sizeof(float); i++) (&sums[0][0][0][0])[i] = NAN;
    begin_products();
    if (first) multiply(n_tokens, 0, first);
    multiply(n_tokens, first, n);
    end_products();
    double worst = 0;
    for (int r = 0; r < MATRIX_ROWS; r++)
        for (int t = 0; t < n_tokens; t++) {
            double absolute = FLT_MIN, sum = product_of(r, t, n, &absolute);
            double error = fabs(sum - sums[t / MATRIX_LANES][r / MATRIX_LANES][t % MATRIX_LANES][r % MATRIX_LANES]);
            error /= (n + 2) * (double)FLT_EPSILON * absolute;
            worst = error <= worst ? worst : error;
        }
    CHECK_FOR(worst <= 1, "%d tokens, n %d from %d on: %g times the bound", n_tokens, n, first, worst);
}

int main(void) {
    static const int tokens[] = {1, 8, 15, 16, 17, 31, 32};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
        for (int n = MATRIX_K; n <= MAX_N; n += MATRIX_K)
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
