/* roofline.c - the machine's ceilings with the threads of a pool (Williams, Waterman and Patterson, "Roofline", 2009,
 * CACM 52:4). */
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "roofline/peak.h"
#include "common/thread_pool.h"

/* Other processes may use the machine, too, so it is timed in many short windows, of which the best counts. */
enum {
    ROUNDS_OF_ARRAY = 5,
    BYTES_PER_UNIT = 1 << 20,
    ROUNDS_OF_LOOP = 20,
    NANOSECONDS_PER_UNIT = 250000,
    UNITS_PER_THREAD = 4, /* in a window: the others take those of a thread that is late */
    CALIBRATION_LOOPS = 1000,
};

#define MIN_BYTES ((size_t)256 << 20)
#define MAX_BYTES ((size_t)1 << 30)

/* So much larger than the caches that little of the array stays in them from one round to the next. */
static size_t array_bytes(void) {
    size_t n = 8 * os_cache_bytes();
    n = n < MIN_BYTES ? MIN_BYTES : n > MAX_BYTES ? MAX_BYTES : n;
    return n / BYTES_PER_UNIT * BYTES_PER_UNIT;
}

/* From the plainest to the best; a CPU that has one has all before it. */
#define PEAK(family) IF_BUILT(family)([FAMILY_##family] = &peak_##family, )
static const peak *const peaks[N_FAMILIES] = {FAMILIES(PEAK)};

/* Replaces what `better` has and this CPU runs. */
static void improve_peak(peak *p, const peak *better, unsigned features) {
    if (better->read) p->read = better->read;
    if (better->f32.loop && !(better->f32.needs & ~features)) p->f32 = better->f32;
    if (better->bf16.loop && !(better->bf16.needs & ~features)) p->bf16 = better->bf16;
    if (better->int8.loop && !(better->int8.needs & ~features)) p->int8 = better->int8;
}

/* The best loops of the family of the chosen kernels and of plainer ones; false where there are no kernels. */
static bool choose_peak(peak *p) {
    const kernels *k = kernels_chosen();
    unsigned features = os_cpu_features();
    for (int i = 0; k && i < N_FAMILIES; i++) {
        if (!peaks[i]) continue; /* left out of this build */
        improve_peak(p, peaks[i], features);
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

/* Times one more window, n_units of job; *best_ns is the shortest so far. */
static void time_window(measurement *m, pool_job job, int n_units, int64_t *best_ns) {
    int64_t begin = os_nanoseconds();
    pool_run(m->pool, job, m, n_units);
    int64_t elapsed = os_nanoseconds() - begin;
    if (elapsed < *best_ns) *best_ns = elapsed > 0 ? elapsed : 1;
}

static int units_per_window(const measurement *m) { return UNITS_PER_THREAD * pool_n_threads(m->pool); }

/* ---- Bandwidth ---- */

static uint64_t *unit_of_array(const measurement *m, int unit) {
    return m->array + (size_t)unit * BYTES_PER_UNIT / sizeof *m->array;
}

/* Pages that were never written are all one page of zeros. */
static void write_unit(void *arg, int unit, int thread) {
    (void)thread;
    memset(unit_of_array(arg, unit), 1, BYTES_PER_UNIT);
}

static void read_unit(void *arg, int unit, int thread) {
    measurement *m = arg;
    (void)thread;
    m->sink += m->peak.read(unit_of_array(m, m->first + unit), BYTES_PER_UNIT);
}

/* Windows go through the array in turn, so what one reads has left the caches since the last round. */
static double read_bandwidth(measurement *m, size_t n_bytes) {
    int n_units = (int)(n_bytes / BYTES_PER_UNIT), n = units_per_window(m);
    int64_t best_ns = INT64_MAX;
    pool_run(m->pool, write_unit, m, n_units);
    if (n > n_units) n = n_units;
    for (int round = 0; round < ROUNDS_OF_ARRAY; round++)
        for (m->first = 0; m->first + n <= n_units; m->first += n) time_window(m, read_unit, n, &best_ns);
    return 1e9 * n * BYTES_PER_UNIT / (double)best_ns;
}

/* ---- Arithmetic ---- */

static void loop_unit(void *arg, int unit, int thread) {
    measurement *m = arg;
    (void)unit, (void)thread;
    m->sink += m->rate->loop(m->n_rounds) != 0;
}

/* Rounds that take about NANOSECONDS_PER_UNIT. */
static int rounds_per_unit(const peak_rate *rate, _Atomic uint64_t *sink) {
    int64_t begin = os_nanoseconds();
    *sink += rate->loop(CALIBRATION_LOOPS) != 0;
    int64_t elapsed = os_nanoseconds() - begin;
    return (int)(1 + (int64_t)CALIBRATION_LOOPS * NANOSECONDS_PER_UNIT / (elapsed > 1000 ? elapsed : 1000));
}

/* Operations a second, 0 where there are none of the kind. */
static double operations(measurement *m, const peak_rate *rate) {
    if (!rate->loop) return 0;
    int n = units_per_window(m);
    int64_t best_ns = INT64_MAX;
    m->rate = rate;
    m->n_rounds = rounds_per_unit(rate, &m->sink);
    for (int round = 0; round < ROUNDS_OF_LOOP; round++) time_window(m, loop_unit, n, &best_ns);
    return 1e9 * n * m->n_rounds * rate->n_operations / (double)best_ns;
}

/* ---- Both ---- */

static void measure_rates(measurement *m, size_t n_bytes, fastgpt_roofline *out) {
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
        measure_rates(&m, n_bytes, out);
        pool_leave(pool);
    }
    os_free(m.array);
    return status;
}
