/* openblas_os.c - see openblas_os.h. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "matmul/openblas_os.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

enum { MAX_BUFFERS = 4096, FIRST_BUFFER_BYTES = 32 << 20, PAGE = 4096 };

/* The first buffer, which OpenBLAS asks for when it is loaded.  It is static, so where memory is too short for it, the
 * loader refuses the library and says so.  Like all buffers it uses memory only once touched. */
static _Alignas(PAGE) unsigned char first_buffer[FIRST_BUFFER_BYTES];
static bool first_in_use;
static size_t buffer_bytes = FIRST_BUFFER_BYTES; /* of each, once the first was asked for */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all static variables of this file */
static pthread_cond_t product_ended = PTHREAD_COND_INITIALIZER;
static int n_reserved; /* threads that may multiply */
static int n_buffers;  /* mapped for them, at most MAX_BUFFERS */
static void *spare[MAX_BUFFERS];
static int n_spare;    /* of n_buffers, not yet asked for; OpenBLAS never gives one back */
static int n_running;  /* products */

/* ---- Buffers ---- */

static void unmap_spare_buffers(void) {
    for (; n_spare > 0 && n_buffers > n_reserved; n_buffers--) munmap(spare[--n_spare], buffer_bytes);
}

/* Until there are n, or memory ends. */
static void map_buffers(int n) {
    for (; n_buffers < n; n_buffers++) {
        void *block = mmap(NULL, buffer_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED) return;
        spare[n_spare++] = block;
    }
}

static int min_int(int a, int b) { return a < b ? a : b; }

bool fastgpt_openblas_reserve(int n_threads, int max_buffers) {
    max_buffers = min_int(max_buffers, MAX_BUFFERS);
    pthread_mutex_lock(&lock);
    n_reserved += n_threads;
    map_buffers(min_int(n_reserved, max_buffers));
    bool enough = n_buffers >= min_int(n_threads, max_buffers);
    if (!enough) n_reserved -= n_threads;
    unmap_spare_buffers();
    pthread_mutex_unlock(&lock);
    return enough;
}

void fastgpt_openblas_release(int n_threads) {
    pthread_mutex_lock(&lock);
    n_reserved -= n_threads;
    unmap_spare_buffers();
    pthread_mutex_unlock(&lock);
}

/* ---- Products ---- */

/* OpenBLAS takes the first free one of its buffers, so it asks for no more of them than products ever ran at a time,
 * and the one that it holds itself. */
void fastgpt_openblas_begin(void) {
    pthread_mutex_lock(&lock);
    while (n_running > 0 && n_running >= n_buffers) pthread_cond_wait(&product_ended, &lock);
    n_running++;
    pthread_mutex_unlock(&lock);
}

void fastgpt_openblas_end(void) {
    pthread_mutex_lock(&lock);
    n_running--;
    pthread_mutex_unlock(&lock);
    pthread_cond_signal(&product_ended);
}

/* ---- What OpenBLAS calls ---- */

/* The variables of the host's environment are for the host's own OpenBLAS. */
char *fastgpt_openblas_getenv(const char *name) {
    static char one[] = "1";
    return strcmp(name, "OPENBLAS_NUM_THREADS") == 0 ? one : NULL;
}

static void *take_buffer(size_t n_bytes) {
    if (!first_in_use && n_bytes <= sizeof first_buffer) {
        first_in_use = true;
        buffer_bytes = n_bytes;
        return first_buffer;
    }
    return n_spare > 0 && n_bytes <= buffer_bytes ? spare[--n_spare] : NULL;
}

void *fastgpt_openblas_mmap(void *at, size_t n_bytes, int protection, int flags, int fd, off_t offset) {
    pthread_mutex_lock(&lock);
    void *buffer = !at && (flags & MAP_ANONYMOUS) ? take_buffer(n_bytes) : NULL;
    pthread_mutex_unlock(&lock);
    return buffer ? buffer : mmap(at, n_bytes, protection, flags, fd, offset);
}

/* Called when OpenBLAS is unloaded. */
int fastgpt_openblas_munmap(void *at, size_t n_bytes) {
    if (at != first_buffer) return munmap(at, n_bytes);
    pthread_mutex_lock(&lock);
    first_in_use = false;
    pthread_mutex_unlock(&lock);
    return 0;
}
