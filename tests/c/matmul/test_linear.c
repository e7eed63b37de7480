/* test_linear.c - y = x W^T + b for every type of weights and every way to compute it, against the sum in double
 * precision, with one thread and with three, which must agree to the bit.  Arrays are of exactly the size that linear.h
 * gives. */
#include "matmul/linear.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "support/check.h"
#include "support/engine.h"
#include "common/thread_pool.h"
#include "support/weights.h"

static uint64_t seed = 3;

typedef struct product {
    dtype type;
    int n_tokens, n_out, n_in;
    bool add;
} product;

/* How far a product may be off because activations, and for BF16 products weights, are rounded: nothing where they are
 * not.  Given for one output: largest |x|, and the sums of |w| and of |x w|. */
static double rounding(const engine *e, product p, double largest, double sum_w, double sum_xw) {
    bool few = p.n_tokens <= gemv_max_tokens(e->kernels, p.type);
    bool bytes = e->kernels->gemm_q8 && e->kernels->unpack_u8[p.type];
    if (takes_quantized(p.type) && (few || bytes)) return sum_w * largest / 127 * 0.501;
    bool bf16_products = !few && e->kernels->bf16 && p.type != TYPE_F32 && p.type != TYPE_F16;
    return bf16_products ? sum_xw * 0x1.02p-8 : 0; /* two roundings of 2^-9 each */
}

static double linear_error(const engine *e, product p, const linear_task *task, const float *x, const float *before) {
    double worst = 0;
    float *w = new_random(&seed, p.n_in);
    for (int r = 0; r < task->w.n_out; r++) {
        kernels_portable.to_f32[p.type](w, weight_row(&task->w, r), p.n_in);
        for (int t = 0; t < p.n_tokens; t++) {
            double sum = task->add ? before[t * task->ld_out + r] : 0, absolute = fabs(sum) + FLT_MIN;
            double largest = 0, sum_w = 0, sum_xw = 0;
            if (task->w.b) sum += task->w.b[r], absolute += fabsf(task->w.b[r]);
            for (int i = 0; i < p.n_in; i++) {
                double number = x[t * (int64_t)(p.n_in + 3) + i], xw = number * w[i];
                sum += xw;
                sum_xw += fabs(xw);
                sum_w += fabsf(w[i]);
                largest = fabs(number) > largest ? fabs(number) : largest;
            }
            double bound = (p.n_in + 8) * (double)FLT_EPSILON * (absolute + sum_xw);
            bound += rounding(e, p, largest, sum_w, sum_xw);
            double error = fabs(task->out[t * task->ld_out + r] - sum) / bound;
            worst = error <= worst ? worst : error;
        }
    }
    free(w);
    return worst;
}

static bool gaps_untouched(const linear_task *task, const float *before, int n_tokens) {
    for (int64_t i = 0; i < (n_tokens - 1) * task->ld_out; i++)
        if (i % task->ld_out >= task->w.n_out && memcmp(&task->out[i], &before[i], sizeof *before) != 0) return false;
    return true;
}

static weight new_weight(dtype type, int n_out, int n_in) {
    uint8_t *rows = os_alloc((size_t)row_bytes(type, (int64_t)n_out * n_in));
    if (!rows) abort();
    random_row(&seed, type, rows, (int64_t)n_out * n_in);
    return (weight){.w = rows, .b = new_random(&seed, n_out), .type = type, .n_out = n_out, .n_in = n_in};
}

/* Runs both tasks from the same start, and returns what the outputs hold. */
static void run(const engine *e, product p, linear_task *tasks, const float *x, float *const *before) {
    for (int i = 0; i < 2; i++) {
        int64_t n = (p.n_tokens - 1) * tasks[i].ld_out + tasks[i].w.n_out;
        memcpy(tasks[i].out, before[i], (size_t)n * sizeof(float));
    }
    linear(e, x, p.n_in + 3, tasks, 2, p.n_tokens);
}

static const kernels *set; /* of the engines */

/* Two tasks of one run: rows from the middle of a weight, and a weight of one row more without bias. */
static void check_linear(fastgpt_pool *pool, product p) {
    engine alone = new_engine(NULL, 1, p.n_tokens, p.n_in), three = new_engine(pool, 3, p.n_tokens, p.n_in);
    alone.kernels = three.kernels = set;
    weight whole = new_weight(p.type, p.n_out + 7, p.n_in);
    float *x = new_random(&seed, (p.n_tokens - 1) * (int64_t)(p.n_in + 3) + p.n_in);
    linear_task tasks[2] = {{.ld_out = p.n_out + 2, .w = weight_rows(&whole, 3, p.n_out), .add = p.add},
                            {.ld_out = p.n_out + 1, .w = weight_rows(&whole, 0, p.n_out + 1), .add = !p.add}};
    tasks[1].w.b = NULL;
    CHECK(tasks[0].w.w == weight_row(&whole, 3) && tasks[0].w.b == whole.b + 3 && tasks[0].w.n_out == p.n_out);
    float *before[2], *first[2];
    for (int i = 0; i < 2; i++) {
        int64_t n = (p.n_tokens - 1) * tasks[i].ld_out + tasks[i].w.n_out;
        before[i] = new_random(&seed, n);
        first[i] = tasks[i].out = new_random(&seed, n);
    }
    run(&alone, p, tasks, x, before);
    for (int i = 0; i < 2; i++) tasks[i].out = new_random(&seed, (p.n_tokens - 1) * tasks[i].ld_out + tasks[i].w.n_out);
    run(&three, p, tasks, x, before);
    for (int i = 0; i < 2; i++) {
        int64_t n = (p.n_tokens - 1) * tasks[i].ld_out + tasks[i].w.n_out;
        double error = linear_error(&three, p, &tasks[i], x, before[i]);
        CHECK_FOR(error <= 1, "%s, %s: %d tokens, n_out %d, n_in %d: %g times the bound", set->name,
                  dtype_infos[p.type].name, p.n_tokens, p.n_out, p.n_in, error);
        CHECK(gaps_untouched(&tasks[i], before[i], p.n_tokens));
        CHECK_FOR(memcmp(tasks[i].out, first[i], (size_t)n * sizeof(float)) == 0, "%s: %d tokens, n_out %d, n_in %d",
                  dtype_infos[p.type].name, p.n_tokens, p.n_out, p.n_in);
        free(tasks[i].out);
        free(first[i]);
        free(before[i]);
    }
    free(x);
    os_free((void *)whole.w);
    free((void *)whole.b);
    free_engine(&alone);
    free_engine(&three);
}

static void test_type(fastgpt_pool *pool, dtype type, const int *n_in, int n_sizes) {
    static const int n_tokens[] = {1, 2, 8, 9, 17, 33, 49, 257}, n_out[] = {1, 63, 65, 257};
    for (int t = 0; t < 8; t++)
        for (int o = 0; o < 4; o++)
            for (int i = 0; i < n_sizes; i++)
                if (n_tokens[t] < 257 || (n_out[o] == 65 && i == 0))
                    check_linear(pool, (product){type, n_tokens[t], n_out[o], n_in[i], (t + o + i) % 2});
}

int main(void) {
    static const int any[] = {33, 1, 7, 96, 1030}, blocks[] = {96, 32}, q6_k[] = {256, 1280};
    int n_sets;
    const kernels *const *sets = kernels_all(&n_sets);
    fastgpt_pool *pool;
    CHECK(fastgpt_pool_create(3, &pool) == FASTGPT_OK && pool_enter(pool) == FASTGPT_OK);
    for (int i = 0; i < n_sets; i++) {
        set = sets[i];
        for (dtype type = 0; type < N_FLOAT_DTYPES; type++) test_type(pool, type, any, 5);
        test_type(pool, TYPE_Q8_0, blocks, 2);
        test_type(pool, TYPE_Q4_0, blocks, 2);
        test_type(pool, TYPE_Q6_K, q6_k, 2);
    }
    pool_leave(pool);
    fastgpt_pool_free(pool);
    return check_report();
}
