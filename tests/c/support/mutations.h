/* mutations.h - ways to damage a file, for the programs that make thousands of damaged ones. */
#ifndef FASTGPT_MUTATIONS_H
#define FASTGPT_MUTATIONS_H

#include "support/model_file.h"
#include "support/random.h"

static uint64_t random_state;

static inline size_t pick(size_t n) { return (size_t)random_below(&random_state, n); }

/* A mutation changes something in the first n_reach bytes of a file. */
typedef void mutation(buffer *file, size_t reach);

/* A place in the first n_reach bytes that leaves room for n_bytes. */
static inline size_t place(size_t n_reach, size_t n_bytes) {
    return n_reach > n_bytes ? pick(n_reach - n_bytes + 1) : 0;
}

static inline void flip_bits(buffer *file, size_t reach) {
    for (size_t n = 1 + pick(8); n > 0; n--) file->data[place(reach, 1)] ^= (uint8_t)(1u << pick(8));
}

static inline void set_bytes(buffer *file, size_t reach) {
    size_t at = place(reach, 16), n = 1 + pick(16);
    uint8_t value = pick(3) ? (uint8_t)pick(256) : pick(2) ? 0xFF : 0;
    for (size_t i = at; i < at + n && i < file->n; i++) file->data[i] = value;
}

static inline void write_number(buffer *file, size_t at, uint64_t value, size_t n_bytes) {
    for (size_t i = 0; i < n_bytes && at + i < file->n; i++) file->data[at + i] = (uint8_t)(value >> 8 * i);
}

/* Where counts overflow, wrap around or change their sign: beside 0 and beside a power of two. */
static inline uint64_t interesting_number(void) {
    if (pick(4) == 0) return pick(9) - (uint64_t)4;
    return (UINT64_C(1) << pick(64)) + pick(3) - 1;
}

static inline void set_interesting_number(buffer *file, size_t reach) {
    size_t n_bytes = pick(2) ? 4 : 8, at = place(reach, n_bytes);
    write_number(file, pick(2) ? at : at & ~(size_t)3, interesting_number(), n_bytes);
}

/* A count, length, offset or dimension becomes a little or much larger or smaller: a small number with zeros above. */
static inline void change_length(buffer *file, size_t reach) {
    for (int tries = 0; tries < 100; tries++) {
        size_t at = place(reach, 8);
        if (at + 8 > file->n) return;
        uint64_t value = gguf_u64(file->data + at);
        if (value == 0 || value > 100000) continue;
        uint64_t changes[] = {value + 1,   value - 1,  value * 2, value + (1ull << 32),
                              value << 32, value + 32, value - 32};
        write_number(file, at, changes[pick(sizeof changes / sizeof *changes)], 8);
        return;
    }
}

static inline void chop(buffer *file, size_t reach) { file->n = place(reach, 0); }

/* Some bytes from here are written over others there. */
static inline void splice(buffer *file, size_t reach) {
    size_t n = 1 + pick(64), from = place(reach, n), to = place(reach, n);
    if (from + n <= file->n && to + n <= file->n) memmove(file->data + to, file->data + from, n);
}

/* Some bytes vanish, or stand twice, and all that follows moves. */
static inline void shift(buffer *file, size_t reach) {
    size_t n = 1 + pick(64), at = place(reach, n);
    if (at + 2 * n > file->n) return;
    if (pick(2)) {
        memmove(file->data + at, file->data + at + n, file->n - at - n);
        file->n -= n;
    } else memmove(file->data + at + n, file->data + at, file->n - at - n);
}

/* One mutation of those, or a few, in the first part of the file or in all of it. */
static inline void mutate(buffer *file, size_t first_part, mutation *const *all, size_t n_all) {
    for (size_t n = 1 + pick(2) * pick(3); n > 0 && file->n > 0; n--) {
        size_t reach = pick(2) || file->n < first_part ? file->n : first_part;
        all[pick(n_all)](file, reach);
    }
}

#endif
