/* test_roofline.c - the ceilings are those of a machine that exists, for any pool. */
#include "support/session.h"

#include "roofline/peak.h"

/* No CPU core reads less than a tenth of a GB/s, or more than a TB/s; nor does one do fewer than 10^8 or more than
 * 10^14 operations a second. */
static bool plausible(double rate, double least, double most, int32_t n_threads) {
    return rate > least / 10 && rate < most * n_threads;
}

static void check_roofline(const fastgpt_roofline *r, int32_t n_threads) {
    CHECK_FOR(r->n_threads == n_threads, "%d threads of %d", r->n_threads, n_threads);
    CHECK_FOR(plausible(r->read_bytes_per_second, 1e8, 1e12, n_threads), "%g", r->read_bytes_per_second);
    CHECK_FOR(plausible(r->f32_operations_per_second, 1e8, 1e14, n_threads), "%g", r->f32_operations_per_second);
    double others[] = {r->bf16_operations_per_second, r->int8_operations_per_second};
    for (int i = 0; i < 2; i++)
        CHECK_FOR(others[i] == 0 || plausible(others[i], 1e8, 1e14, n_threads), "%d: %g", i, others[i]);
    printf("%d threads: %.1f GB/s; %.0f f32, %.0f bf16, %.0f int8 GFLOP/s\n", n_threads, r->read_bytes_per_second / 1e9,
           r->f32_operations_per_second / 1e9, others[0] / 1e9, others[1] / 1e9);
}

static void test_every_pool(void) {
    fastgpt_roofline r;
    CHECK(fastgpt_measure_roofline(NULL, &r) == FASTGPT_OK);
    check_roofline(&r, 1);
    for (int32_t n_threads = 1; n_threads <= 4; n_threads++) {
        fastgpt_pool *pool = new_pool(n_threads);
        CHECK(fastgpt_measure_roofline(pool, &r) == FASTGPT_OK);
        check_roofline(&r, n_threads);
        fastgpt_pool_free(pool);
    }
    CHECK(fastgpt_measure_roofline(NULL, NULL) == FASTGPT_ERR_ARGUMENT);
}

/* Whether this CPU runs kernels of the family. */
static bool runs_here(const char *family) {
    int n_sets;
    const kernels *const *sets = kernels_all(&n_sets);
    bool found = false;
    for (int i = 0; i < n_sets; i++) found |= strcmp(sets[i]->family, family) == 0;
    return found;
}

/* The loop that is timed reads every word: each changes the sum by what it changes itself. */
static void test_read_reads_everything(void) {
    enum { N = 3 * PEAK_READ_STEP / sizeof(uint64_t) };
#define BUILT_PEAK(family) IF_BUILT(family)([FAMILY_##family] = &peak_##family, )
    static const peak *const peaks[N_FAMILIES] = {FAMILIES(BUILT_PEAK)};
    static uint64_t x[N];
    for (int f = 0; f < N_FAMILIES; f++) {
        if (!peaks[f] || !peaks[f]->read || !runs_here(peaks[f]->family)) continue;
        for (int i = 0; i < N; i++) {
            x[i] = (uint64_t)i + 1;
            CHECK_FOR(peaks[f]->read(x, sizeof x) == (uint64_t)i + 1, "%s: word %d", peaks[f]->family, i);
            x[i] = 0;
        }
    }
}

/* "portable" is always there and the kernels in use are among those available. */
static void test_kernels_available(void) {
    bool found = false;
    int32_t n = 0;
    for (const char *name; (name = fastgpt_kernels_available(n)); n++)
        found |= strcmp(name, fastgpt_kernels_name()) == 0;
    CHECK(found && strcmp(fastgpt_kernels_available(0), "portable") == 0);
    CHECK(!fastgpt_kernels_available(-1) && !fastgpt_kernels_available(n + 1));
}

static void test_core_counts(void) {
    fastgpt_cores cores = fastgpt_core_counts();
    CHECK(cores.usable == fastgpt_usable_cores() && cores.usable >= 1);
    int32_t limits[] = {cores.online, cores.affinity, cores.quota};
    bool binding = false;
    for (int i = 0; i < 3; i++) {
        CHECK_FOR(limits[i] == 0 || cores.usable <= limits[i], "limit %d: %d < %d", i, limits[i], cores.usable);
        binding |= limits[i] == cores.usable;
    }
    CHECK(binding);
}

int main(void) {
    test_read_reads_everything();
    test_kernels_available();
    test_core_counts();
    test_every_pool();
    return check_report();
}
