/* stop_strings.c - see stop_strings.h.  What is held back is shorter than the longest stop string, so looking at all of
 * it again with each piece costs little. */
#include "generation/stop_strings.h"

#include <string.h>

#include "common/status.h"

fastgpt_status stop_finder_create(stop_finder *f, const char *const *stops, int32_t n, fastgpt_error *error) {
    uint64_t n_bytes = 0;
    memset(f, 0, sizeof *f);
    for (int32_t i = 0; i < n; i++) {
        if (!stops[i] || !stops[i][0]) return fail(error, FASTGPT_ERR_ARGUMENT, "stop[%d] is NULL or empty", i);
        if (((uint8_t)stops[i][0] & 0xC0) == 0x80)
            return fail(error, FASTGPT_ERR_ARGUMENT, "stop[%d] begins inside a character: it is not UTF-8", i);
        n_bytes += strlen(stops[i]);
    }
    if (!string_list_alloc(&f->stops, (uint64_t)n, n_bytes))
        return fail(error, FASTGPT_ERR_MEMORY, "no memory for the stop strings");
    for (int32_t i = 0; i < n; i++) {
        size_t n_stop = strlen(stops[i]);
        memcpy(f->stops.text + f->stops.offsets[i], stops[i], n_stop);
        f->stops.offsets[i + 1] = f->stops.offsets[i] + n_stop;
    }
    return FASTGPT_OK;
}

void stop_finder_free(stop_finder *f) {
    string_list_free(&f->stops);
    free(f->held.text);
}

/* Whether a stop string stands at text [n], or may stand there once more has come. */
static bool may_begin(const stop_finder *f, const char *text, size_t n, bool *whole) {
    bool found = false;
    for (int64_t i = 0; i < f->stops.n; i++) {
        size_t n_stop = f->stops.offsets[i + 1] - f->stops.offsets[i], n_same = n_stop < n ? n_stop : n;
        if (memcmp(text, f->stops.text + f->stops.offsets[i], n_same) != 0) continue;
        found = true;
        *whole |= n_same == n_stop;
    }
    return found;
}

fastgpt_status stop_finder_push(stop_finder *f, const char *piece, size_t n_bytes) {
    text_buffer_drop(&f->held, f->n_ready);
    f->n_ready = 0;
    if (!text_buffer_append(&f->held, piece, n_bytes)) return FASTGPT_ERR_MEMORY;
    size_t n = f->held.n, first = n; /* where a stop string stands, or may begin */
    for (size_t i = 0; i < n && !f->found; i++)
        if (may_begin(f, f->held.text + i, n - i, &f->found) && (f->found || first == n)) first = i;
    f->n_ready = first;
    return FASTGPT_OK;
}

void stop_finder_finish(stop_finder *f) {
    if (!f->found) f->n_ready = f->held.n;
}

void stop_finder_reset(stop_finder *f) {
    f->held.n = f->n_ready = 0;
    f->found = false;
}
