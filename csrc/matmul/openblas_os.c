/* openblas_os.c - see openblas_os.h. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "matmul/openblas_os.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

enum { MOST_BUFFERS = 4096, FIRST_BYTES = 32 << 20, PAGE = 4096 };

/* The first buffer, which OpenBLAS asks for when it is loaded: where even that is too much, the library cannot be
 * loaded, and the loader says so.  It costs memory only once touched, as all buffers do. */
static _Alignas(PAGE) unsigned char first[FIRST_BYTES];
static bool first_is_taken;
static size_t buffer_bytes = FIRST_BYTES; /* what the first one was asked to have, and so all others will */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all that follows, and of the first buffer */
static pthread_cond_t one_ended = PTHREAD_COND_INITIALIZER;
static int n_wanted;  /* threads that may multiply */
static int n_buffers; /* mapped for them, at most MOST_BUFFERS */
static void *spare[MOST_BUFFERS];
static int n_spare;   /* of n_buffers: OpenBLAS has not asked for them yet, and keeps what it once got */
static int n_running; /* products */

/* ---- Buffers ---- */

static void drop_spare_buffers(void) {
    for (; n_spare > 0 && n_buffers > n_wanted; n_buffers--) munmap(spare[--n_spare], buffer_bytes);
}

/* Until there are n, or no memory. */
static void map_buffers(int n) {
    for (; n_buffers < n; n_buffers++) {
        void *block = mmap(NULL, buffer_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED) return;
        spare[n_spare++] = block;
    }
}

static int min_int(int a, int b) { return a < b ? a : b; }

bool fastgpt_openblas_reserve(int n_threads, int most) {
    most = min_int(most, MOST_BUFFERS);
    pthread_mutex_lock(&lock);
    n_wanted += n_threads;
    map_buffers(min_int(n_wanted, most));
    bool enough = n_buffers >= min_int(n_threads, most);
    if (!enough) n_wanted -= n_threads;
    drop_spare_buffers();
    pthread_mutex_unlock(&lock);
    return enough;
}

void fastgpt_openblas_release(int n_threads) {
    pthread_mutex_lock(&lock);
    n_wanted -= n_threads;
    drop_spare_buffers();
    pthread_mutex_unlock(&lock);
}

/* ---- Products ---- */

/* OpenBLAS takes the first of its buffers that is free, so it has never more of them than products have run at a time,
 * and one that it holds itself. */
void fastgpt_openblas_begin(void) {
    pthread_mutex_lock(&lock);
    while (n_running > 0 && n_running >= n_buffers) pthread_cond_wait(&one_ended, &lock);
    n_running++;
    pthread_mutex_unlock(&lock);
}

void fastgpt_openblas_end(void) {
    pthread_mutex_lock(&lock);
    n_running--;
    pthread_mutex_unlock(&lock);
    pthread_cond_signal(&one_ended);
}

/* ---- What OpenBLAS calls ---- */

/* The variables of the host's environment are for the host's own OpenBLAS. */
char *fastgpt_openblas_getenv(const char *name) {
    static char one[] = "1";
    return strcmp(name, "OPENBLAS_NUM_THREADS") == 0 ? one : NULL;
}

static void *take_buffer(size_t n_bytes) {
    if (!first_is_taken && n_bytes <= sizeof first) {
        first_is_taken = true;
        buffer_bytes = n_bytes;
        return first;
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
    if (at != first) return munmap(at, n_bytes);
    pthread_mutex_lock(&lock);
    first_is_taken = false;
    pthread_mutex_unlock(&lock);
    return 0;
}
