/* guard.h - arrays that end where the memory ends: reading or writing one float too far kills the test. */
#ifndef FASTGPT_GUARD_H
#define FASTGPT_GUARD_H

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GUARD_BYTES = 1 << 20 };

/* GUARD_BYTES of memory, then a page that nobody may touch; returns the address between them. */
static inline uint8_t *guard_create(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    int zero = open("/dev/zero", O_RDWR);
    uint8_t *block = mmap(NULL, GUARD_BYTES + page, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0);
    if (zero < 0 || block == MAP_FAILED || mprotect(block + GUARD_BYTES, page, PROT_NONE) != 0) {
        perror("guard page");
        abort();
    }
    close(zero);
    return block + GUARD_BYTES;
}

/* The last n bytes before guard number `which`, 0 .. 3; each call gives the same memory again.  Their alignment
 * is whatever n makes it. */
static inline uint8_t *guarded_bytes(int which, int64_t n) {
    static uint8_t *ends[6];
    if (!ends[which]) ends[which] = guard_create();
    if (n < 0 || n > GUARD_BYTES) abort();
    return ends[which] - n;
}

static inline float *guarded_floats(int which, int64_t n) {
    return (float *)(void *)guarded_bytes(which, n * (int64_t)sizeof(float));
}

#endif
