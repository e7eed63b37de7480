/* test_ops.c - the ops on rows of a transformer: each row is what the kernels give for it alone, with one thread and
 * with three. */
#include "transformer/ops.h"

#include <stdlib.h>
#include <string.h>

#include "common/thread_pool.h"
#include "support/check.h"
#include "support/engine.h"
#include "support/weights.h"

static uint64_t seed = 2;

static void check_rows(const engine *e, int n_rows, int n) {
    float *x = new_random(&seed, n_rows * n), *out = new_random(&seed, n_rows * n),
          *expected = new_random(&seed, n_rows * n);
    const norm norm = {.w = new_random(&seed, n), .b = new_random(&seed, n)};
    for (int r = 0; r < n_rows; r++) e->kernels->layer_norm(expected + r * n, x + r * n, norm.w, norm.b, n, 1e-5f);
    op_layer_norm(e, out, x, &norm, 1e-5f, n_rows, n);
    CHECK_FOR(memcmp(out, expected, sizeof *out * (size_t)(n_rows * n)) == 0, "layer_norm: %d rows of %d", n_rows, n);
    for (int r = 0; r < n_rows; r++) e->kernels->activation[GELU_ERF](expected + r * n, n);
    op_activation(e, GELU_ERF, out, n, n_rows, n);
    CHECK_FOR(memcmp(out, expected, sizeof *out * (size_t)(n_rows * n)) == 0, "activation: %d rows of %d", n_rows, n);
    free(x);
    free(out);
    free(expected);
    free((void *)norm.w);
    free((void *)norm.b);
}

static void test_rows(const engine *e) {
    for (int n_rows = 1; n_rows <= 33; n_rows++)
        for (int n = 1; n <= 70; n += 23) check_rows(e, n_rows, n);
}

/* A table of each type; positions may have another. */
static void check_embed(const engine *e, dtype type) {
    enum { N_VOCAB = 5, N_CTX = 7, N_EMBD = 256, N_TOKENS = 4, POSITION = 3 };
    static const int32_t tokens[N_TOKENS] = {4, 0, 4, 2};
    static uint8_t wte[N_VOCAB * N_EMBD * sizeof(float)], wpe[N_CTX * N_EMBD * sizeof(float)];
    static float out[N_TOKENS * N_EMBD], token[N_EMBD], wpe_row[N_EMBD];
    fastgpt_model model = {.n_vocab = N_VOCAB, .n_ctx = N_CTX, .n_embd = N_EMBD};
    model.wte = (weight){.w = wte, .type = type, .n_out = N_VOCAB, .n_in = N_EMBD};
    model.wpe = (weight){.w = wpe, .type = TYPE_F16, .n_out = N_CTX, .n_in = N_EMBD};
    random_row(&seed, type, wte, N_VOCAB * N_EMBD);
    random_row(&seed, TYPE_F16, wpe, N_CTX * N_EMBD);
    op_embed(e, out, &model, tokens, N_TOKENS, POSITION);
    for (int t = 0; t < N_TOKENS; t++) {
        kernels_portable.to_f32[type](token, weight_row(&model.wte, tokens[t]), N_EMBD);
        kernels_portable.to_f32[TYPE_F16](wpe_row, weight_row(&model.wpe, POSITION + t), N_EMBD);
        bool same = true;
        for (int i = 0; i < N_EMBD; i++) same &= out[t * N_EMBD + i] == token[i] + wpe_row[i];
        CHECK_FOR(same, "%s, token %d", dtype_infos[type].name, t);
    }
}

int main(void) {
    fastgpt_pool *pool;
    CHECK(fastgpt_pool_create(3, &pool) == FASTGPT_OK && pool_enter(pool) == FASTGPT_OK);
    for (int threads = 1; threads <= 3; threads += 2) {
        engine e = new_engine(threads == 1 ? NULL : pool, threads, 1, 256);
        test_rows(&e);
        for (dtype type = 0; type < N_KERNEL_DTYPES; type++) check_embed(&e, type);
        free_engine(&e);
    }
    pool_leave(pool);
    fastgpt_pool_free(pool);
    return check_report();
}
