/* os.h - all that the library asks of the operating system and the CPU's identity. */
#ifndef FASTGPT_OS_H
#define FASTGPT_OS_H

#if !defined(_WIN32)
#include <pthread.h>
#endif
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fastgpt.h"

/* ---- Files and memory ---- */

typedef struct os_file {
    const uint8_t *data;
    size_t n_bytes;
    bool mapped; /* another process may change the bytes */
    bool owned;  /* a copy of os_alloc; a file that is neither is the caller's memory */
} os_file;

enum { OS_FIRST_BYTES = 64 };

/* What looks at the first bytes of a file before the rest is read: all of them, or OS_FIRST_BYTES. */
typedef struct os_file_check {
    fastgpt_status (*begins_well)(const void *user, const uint8_t *first, size_t n_first, size_t n_bytes,
                                  fastgpt_error *error);
    const void *user;
} os_file_check;

/* The whole of a regular file: mapped read-only, or, with a check, copied.  OK, IO, MEMORY, or what the check says. */
fastgpt_status os_file_open(os_file *file, const char *path, const os_file_check *copy, fastgpt_error *error);

/* The same for a file that stands in memory: a copy of it, or the memory itself.  OK or MEMORY. */
fastgpt_status os_file_of_bytes(os_file *file, const void *bytes, size_t n_bytes, bool copy, fastgpt_error *error);
void os_file_close(os_file *file);

/* Whether it is a regular file that begins with these bytes, at most OS_FIRST_BYTES. */
bool os_file_begins(const char *path, const void *bytes, size_t n);

/* Makes or replaces a file, for its owner's eyes only: under a name of its own beside it until all is on disk.  A link
 * is followed; a pipe, a character device and an open file (/dev/stdout) are written to; a folder, a socket or a block
 * device is IO.  OK, IO or MEMORY; on error whatever was there is as it was. */
fastgpt_status os_file_write(const char *path, const void *data, size_t n_bytes, fastgpt_error *error);

/* 64-byte aligned, at least one byte; NULL when there is none.  Large blocks cost pages only once touched. */
void *os_alloc(size_t n_bytes);
void os_free(void *block);

/* os_alloc for a model: memory that the system is asked to back with large pages, where it has them, since a step reads
 * all of it and looks up fewer addresses then. */
void *os_alloc_large(size_t n_bytes);

/* ---- Threads ---- */

#if defined(_WIN32)
typedef struct os_mutex {
    void *lock;
} os_mutex;              /* an SRWLOCK */
typedef struct os_condition {
    void *variable;
} os_condition;  /* a CONDITION_VARIABLE */
typedef struct os_once {
    void *state;
} os_once;               /* an INIT_ONCE */
typedef void *os_thread_handle;
#define OS_ONCE_INIT {NULL}
#else
typedef pthread_mutex_t os_mutex;
typedef pthread_cond_t os_condition;
typedef pthread_once_t os_once;
typedef pthread_t os_thread_handle;
#define OS_ONCE_INIT PTHREAD_ONCE_INIT
#endif

typedef struct os_thread {
    os_thread_handle handle;
    void (*run)(void *arg);
    void *arg;
} os_thread;

void os_mutex_init(os_mutex *mutex);
void os_mutex_lock(os_mutex *mutex);
void os_mutex_unlock(os_mutex *mutex);
void os_mutex_destroy(os_mutex *mutex);

void os_condition_init(os_condition *condition);
void os_condition_wait(os_condition *condition, os_mutex *mutex);
void os_condition_wake_all(os_condition *condition);
void os_condition_destroy(os_condition *condition);

/* Calls f the first time only; others wait for its end. */
void os_call_once(os_once *once, void (*f)(void));

/* Runs run(arg) in a thread that takes no signals: they are for the threads of the host.  *thread stays where it is
 * until it is joined.  False when there is no thread to be had. */
bool os_thread_start(os_thread *thread, void (*run)(void *arg), void *arg);
void os_thread_join(os_thread *thread);

/* Between the two, the process does not fork: a fork waits.  Many threads may be between them at a time. */
void os_hold_forks(void);
void os_allow_forks(void);

fastgpt_cores os_cores(void);

/* Linux alone: cores that the CPU quotas of this process's control groups pay for, rounded up; 0 = no quota.  The
 * smallest counts, of cgroup v1 and v2, of its own group and of all around it.  root stands before /proc and /sys: ""
 * but in tests; a path of moderate length. */
int os_cgroup_cores(const char *root);
int64_t os_process_id(void);
void os_yield(void);

/* Tells the CPU that this is a spinning loop. */
static inline void os_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

int64_t os_nanoseconds(void); /* of a clock that never goes back */

/* ---- CPU ---- */

size_t os_cache_bytes(void); /* of the last level, 0 = unknown */

/* What the kernels ask for: bits of os_cpu_features. */
enum {
    OS_CPU_AVX2 = 1 << 0,        /* with FMA and F16C */
    OS_CPU_AVX_VNNI = 1 << 1,
    OS_CPU_AVX512 = 1 << 2,      /* F, BW, DQ and VL */
    OS_CPU_AVX512_VNNI = 1 << 3,
    OS_CPU_AVX512_BF16 = 1 << 4,
    OS_CPU_AMX_BF16 = 1 << 5,    /* and the kernel lets this process use the tiles: asked for at the first call */
    OS_CPU_NEON = 1 << 6,
    OS_CPU_DOTPROD = 1 << 7
};

unsigned os_cpu_features(void);

/* Asks the system for the tiles of AMX, whose state it does not keep for processes that do not. */
bool os_may_use_tiles(void);
bool os_is_little_endian(void);

#endif
