/* roofline.c - what the machine can do at best with the threads of a pool: the ceilings of Williams, Waterman and
 * Patterson, "Roofline" (2009, CACM 52:4). */
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/kernels.h"
#include "roofline/peak.h"
#include "common/os.h"
#include "common/thread_pool.h"

/* Others may use the machine as well, so it is watched through many short windows, of which the best counts. */
enum {
    ROUNDS_OF_ARRAY = 5,
    BYTES_PER_UNIT = 1 << 20,
    ROUNDS_OF_LOOP = 20,
    NANOSECONDS_PER_UNIT = 250000,
    UNITS_PER_THREAD = 4, /* in a window: a thread that falls behind leaves some to the others */
    CALIBRATION_LOOPS = 1000,
};

#define LEAST_BYTES ((size_t)256 << 20)
#define MOST_BYTES ((size_t)1 << 30)

/* The array is so much larger than the caches that little of it can be left there from the round before. */
static size_t array_bytes(void) {
    size_t n = 8 * os_cache_bytes();
    n = n < LEAST_BYTES ? LEAST_BYTES : n > MOST_BYTES ? MOST_BYTES : n;
    return n / BYTES_PER_UNIT * BYTES_PER_UNIT;
}

/* From the plainest to the best; each has all that those before it have. */
static const peak *const peaks[] = {
    &peak_portable,
#if defined(__x86_64__)
#ifndef FASTGPT_WITHOUT_AVX2
    &peak_avx2,
#endif
#ifndef FASTGPT_WITHOUT_AVX512
    &peak_avx512,
#endif
#ifndef FASTGPT_WITHOUT_AMX
    &peak_amx,
#endif
#elif defined(__aarch64__)
    &peak_neon,
#endif
};

/* Takes what `better` has and this CPU can do. */
static void improve(peak *p, const peak *better, unsigned features) {
    if (better->read) p->read = better->read;
    if (better->f32.loop && !(better->f32.needs & ~features)) p->f32 = better->f32;
    if (better->bf16.loop && !(better->bf16.needs & ~features)) p->bf16 = better->bf16;
    if (better->int8.loop && !(better->int8.needs & ~features)) p->int8 = better->int8;
}

/* The best that the family of the chosen kernels can do; false where there are no kernels. */
static bool choose_peak(peak *p) {
    const kernels *k = kernels_chosen();
    unsigned features = os_cpu_features();
    for (size_t i = 0; k && i < sizeof peaks / sizeof *peaks; i++) {
        improve(p, peaks[i], features);
        if (strcmp(peaks[i]->family, k->family) == 0) return true;
    }
    return false;
}

typedef struct measurement {
    fastgpt_pool *pool;
    peak peak;
    uint64_t *array;
    int first; /* unit of the array that the window begins with */
    const peak_rate *rate;
    int n_rounds; /* of the loop of rate */
    _Atomic uint64_t sink;
} measurement;

/* Looks through one more window, n_units of job; *best_ns is the shortest so far. */
static void watch(measurement *m, pool_job job, int n_units, int64_t *best_ns) {
    int64_t begin = os_nanoseconds();
    pool_run(m->pool, job, m, n_units);
    int64_t taken = os_nanoseconds() - begin;
    if (taken < *best_ns) *best_ns = taken > 0 ? taken : 1;
}

static int units_of_window(const measurement *m) { return UNITS_PER_THREAD * pool_n_threads(m->pool); }

/* ---- Bandwidth ---- */

static uint64_t *unit_of_array(const measurement *m, int unit) {
    return m->array + (size_t)unit * BYTES_PER_UNIT / sizeof *m->array;
}

/* Pages that were never written are all the same page of zeros. */
static void write_unit(void *arg, int unit, int thread) {
    (void)thread;
    memset(unit_of_array(arg, unit), 1, BYTES_PER_UNIT);
}

static void read_unit(void *arg, int unit, int thread) {
    measurement *m = arg;
    (void)thread;
    m->sink += m->peak.read(unit_of_array(m, m->first + unit), BYTES_PER_UNIT);
}

/* Windows go through the array one after the other, so what one reads has left the caches since the round before. */
static double read_bandwidth(measurement *m, size_t n_bytes) {
    int n_units = (int)(n_bytes / BYTES_PER_UNIT), n = units_of_window(m);
    int64_t best_ns = INT64_MAX;
    pool_run(m->pool, write_unit, m, n_units);
    if (n > n_units) n = n_units;
    for (int round = 0; round < ROUNDS_OF_ARRAY; round++)
        for (m->first = 0; m->first + n <= n_units; m->first += n) watch(m, read_unit, n, &best_ns);
    return 1e9 * n * BYTES_PER_UNIT / (double)best_ns;
}

/* ---- Arithmetic ---- */

static void loop_unit(void *arg, int unit, int thread) {
    measurement *m = arg;
    (void)unit, (void)thread;
    m->sink += m->rate->loop(m->n_rounds) != 0;
}

/* Rounds that take about NANOSECONDS_PER_UNIT. */
static int rounds_of_a_unit(const peak_rate *rate, _Atomic uint64_t *sink) {
    int64_t begin = os_nanoseconds();
    *sink += rate->loop(CALIBRATION_LOOPS) != 0;
    int64_t taken = os_nanoseconds() - begin;
    return (int)(1 + (int64_t)CALIBRATION_LOOPS * NANOSECONDS_PER_UNIT / (taken > 1000 ? taken : 1000));
}

/* Operations a second, 0 where there are none of the kind. */
static double operations(measurement *m, const peak_rate *rate) {
    if (!rate->loop) return 0;
    int n = units_of_window(m);
    int64_t best_ns = INT64_MAX;
    m->rate = rate;
    m->n_rounds = rounds_of_a_unit(rate, &m->sink);
    for (int round = 0; round < ROUNDS_OF_LOOP; round++) watch(m, loop_unit, n, &best_ns);
    return 1e9 * n * m->n_rounds * rate->n_operations / (double)best_ns;
}

/* ---- Both ---- */

static void measure(measurement *m, size_t n_bytes, fastgpt_roofline *out) {
    out->n_threads = pool_n_threads(m->pool);
    out->read_bytes_per_second = read_bandwidth(m, n_bytes);
    out->f32_operations_per_second = operations(m, &m->peak.f32);
    out->bf16_operations_per_second = operations(m, &m->peak.bf16);
    out->int8_operations_per_second = operations(m, &m->peak.int8);
}

fastgpt_status fastgpt_measure_roofline(fastgpt_pool *pool, fastgpt_roofline *out) {
    if (!out) return FASTGPT_ERR_ARGUMENT;
    memset(out, 0, sizeof *out);
    size_t n_bytes = array_bytes();
    measurement m = {.pool = pool};
    if (!choose_peak(&m.peak)) return FASTGPT_ERR_ARGUMENT;
    m.array = os_alloc(n_bytes);
    if (!m.array) return FASTGPT_ERR_MEMORY;
    fastgpt_status status = pool_enter(pool);
    if (!status) {
        measure(&m, n_bytes, out);
        pool_leave(pool);
    }
    os_free(m.array);
    return status;
}
