/* test_i8.c - products with tiles of I8: every set quantizes a token as portable.c does, and every output is the exact
 * sum of integers, scaled, whatever the other tokens are. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "support/check.h"
#include "support/random.h"

enum { MAX_TOKENS = 40, MAX_ROWS = 50, MAX_IN = 1024 };

static uint64_t seed = 5;

/* What is hard for kernels whose sums of 16 bits overflow, or for any. */
typedef enum token_kind {
    UNIFORM,
    ALL_LARGEST,
    ALL_SMALLEST,
    ALTERNATING,
    OUTLIER,
    ZEROS,
    TINY,
    NOT_A_NUMBER,
    INFINITE,
    N_KINDS
} token_kind;

static void fill_token(float *x, int n, token_kind kind) {
    for (int i = 0; i < n; i++)
        x[i] = kind == ALL_LARGEST    ? 3.0f
               : kind == ALL_SMALLEST ? -3.0f
               : kind == ALTERNATING  ? (i % 2 ? 3.0f : -3.0f)
               : kind == ZEROS        ? 0
               : kind == TINY         ? 1e-31f
                                      : random_float(&seed);
    if (kind == OUTLIER) x[n / 3] = -1000;
    if (kind == NOT_A_NUMBER) x[n / 2] = NAN;
    if (kind == INFINITE) x[n / 2] = -INFINITY;
}

/* ---- One token ---- */

static i8_activations *new_token(int n) {
    i8_activations *token = malloc((size_t)i8_activation_bytes(n));
    if (!token) abort();
    return token;
}

static bool same_float(float a, float b) { return a == b || (isnan(a) && isnan(b)); }

/* Integers, their sum and the scale are portable's, once what was split off is added again. */
static void check_quantize(const kernels *k, int n, token_kind kind) {
    float x[MAX_IN];
    i8_activations *token = new_token(n), *expected = new_token(n);
    fill_token(x, n, kind);
    k->quantize_token(token, x, n);
    kernels_portable.quantize_token(expected, x, n);
    int q[MAX_IN], wrong = 0;
    for (int i = 0; i < n; i++) q[i] = token->q[i];
    for (int s = 0; s < token->n_splits; s++) {
        const i8_split split = i8_splits(token, n)[s];
        for (int i = 0; i < I8_LINE_K; i++) q[I8_LINE_K * split.line + i] += split.q[i];
    }
    for (int i = 0; i < n; i++) wrong += q[i] != expected->q[i];
    CHECK_FOR(wrong == 0 && token->sum == expected->sum && same_float(token->d, expected->d),
              "%s, kind %d, %d values: %d wrong, sum %d of %d", k->name, kind, n, wrong, token->sum, expected->sum);
    free(token);
    free(expected);
}

/* ---- Products ---- */

typedef struct problem {
    int n_tokens, n_rows, n_in;
    bool add, bias;
    tile_line_i8 *tiles;
    float scales[MAX_ROWS], biases[MAX_ROWS];
    float x[MAX_TOKENS][MAX_IN];
} problem;

static void fill_problem(problem *p, token_kind kind) {
    const size_t n_lines = (size_t)((p->n_rows + I8_TILE_ROWS - 1) / I8_TILE_ROWS * (p->n_in / I8_LINE_K));
    p->tiles = aligned_alloc(64, n_lines * sizeof *p->tiles);
    if (!p->tiles) abort();
    for (size_t i = 0; i < n_lines * sizeof *p->tiles; i++)
        ((uint8_t *)p->tiles)[i] = kind == ALL_LARGEST ? 255 : kind == ALL_SMALLEST ? 0 : (uint8_t)random_u64(&seed);
    for (int r = 0; r < p->n_rows; r++) p->scales[r] = random_float(&seed) + 2, p->biases[r] = random_float(&seed);
    for (int t = 0; t < p->n_tokens; t++)
        fill_token(p->x[t], p->n_in, t % 3 ? (token_kind)random_below(&seed, ZEROS) : kind);
}

static int weight_at_row(const problem *p, int r, int k) {
    const tile_line_i8 *tile = p->tiles + r / I8_TILE_ROWS * (p->n_in / I8_LINE_K);
    return tile[k / I8_LINE_K].q[r % I8_TILE_ROWS][k % I8_LINE_K] - 128;
}

/* Error of an output, in units of what rounding its three terms to F32 may cause. */
static double output_error(const problem *p, const i8_activations *x, int r, float out, float old) {
    int64_t sum = 0;
    for (int k = 0; k < p->n_in; k++) sum += weight_at_row(p, r, k) * x->q[k];
    const double product = (double)sum * p->scales[r] * x->d, bias = p->bias ? p->biases[r] : 0;
    if (!isfinite(x->d)) return isnan(out) || isinf(out) ? 0 : 2;
    const double exact = product + bias + (p->add ? old : 0);
    return fabs(out - exact) / (0x1p-22 * (fabs(product) + fabs(bias) + (p->add ? fabs(old) : 0)) + 1e-37);
}

static void run(const kernels *k, const problem *p, float *out, int64_t ld, int first, int n) {
    const int64_t ldx = i8_activation_bytes(p->n_in);
    char *tokens = malloc((size_t)(n * ldx));
    if (!tokens) abort();
    for (int t = 0; t < n; t++)
        k->quantize_token((i8_activations *)(void *)(tokens + t * ldx), p->x[first + t], p->n_in);
    k->gemm_i8(&(gemm_i8_args){.out = {out, ld},
                               .x = {tokens, ldx},
                               .tiles = p->tiles,
                               .scales = p->scales,
                               .bias = p->bias ? p->biases : NULL,
                               .add = p->add,
                               .size = {n, p->n_rows, p->n_in}});
    free(tokens);
}

static void check_product(const kernels *k, int n_tokens, int n_rows, int n_in, token_kind kind) {
    static problem p;
    static float old[MAX_TOKENS][MAX_ROWS + 3], out[MAX_TOKENS][MAX_ROWS + 3], alone[MAX_ROWS + 3];
    p = (problem){.n_tokens = n_tokens, .n_rows = n_rows, .n_in = n_in, .add = n_tokens % 2, .bias = n_rows % 2};
    fill_problem(&p, kind);
    random_fill(&seed, old[0], MAX_TOKENS * (MAX_ROWS + 3));
    memcpy(out, old, sizeof out);
    run(k, &p, out[0], MAX_ROWS + 3, 0, n_tokens);
    double worst = 0;
    i8_activations *token = new_token(n_in);
    for (int t = 0; t < n_tokens; t++) {
        kernels_portable.quantize_token(token, p.x[t], n_in);
        for (int r = 0; r < n_rows; r++) worst = fmax(worst, output_error(&p, token, r, out[t][r], old[t][r]));
        CHECK(memcmp(out[t] + n_rows, old[t] + n_rows, sizeof out[t] - (size_t)n_rows * sizeof(float)) == 0);
        memcpy(alone, old[t], sizeof alone);
        run(k, &p, alone, 1, t, 1);
        CHECK_FOR(memcmp(alone, out[t], (size_t)n_rows * sizeof(float)) == 0, "%s: token %d of %d, %d rows of %d",
                  k->name, t, n_tokens, n_rows, n_in);
    }
    CHECK_FOR(worst <= 1, "%s, kind %d: %d tokens, %d rows of %d: %g times the bound", k->name, kind, n_tokens, n_rows,
              n_in, worst);
    free(token);
    free(p.tiles);
}

static void test_set(const kernels *k) {
    static const int n_in[] = {64, 192, 1024}, n_rows[] = {16, 1, 5, 17, 31, 48, 50};
    for (int kind = 0; kind < N_KINDS; kind++) {
        for (int i = 0; i < 3; i++) check_quantize(k, n_in[i], (token_kind)kind);
        for (int n = 1; n <= 14; n++) check_product(k, n, n_rows[(n + kind) % 7], n_in[n % 3], (token_kind)kind);
        check_product(k, MAX_TOKENS, 33, 192, (token_kind)kind);
    }
}

int main(void) {
    int n;
    const kernels *const *sets = kernels_all(&n);
    for (int i = 0; i < n; i++) test_set(sets[i]);
    return check_report();
}
