/* os_posix.c - os.h for Linux and macOS. */
#if defined(__linux__)
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "os.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "status.h"

/* ---- Files and memory ---- */

void *os_alloc(size_t n_bytes) {
    void *block = NULL;
    if (posix_memalign(&block, 64, n_bytes ? n_bytes : 1) != 0) return NULL;
    return block;
}

void os_free(void *block) { free(block); }

static fastgpt_status map_file(os_file *file, int fd, const char *path, fastgpt_error *error) {
    void *data = mmap(NULL, file->n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) return fail(error, FASTGPT_ERR_IO, "%s: cannot be mapped: %s", path, strerror(errno));
    file->data = data;
    file->mapped = true;
    return FASTGPT_OK;
}

static fastgpt_status read_file(os_file *file, int fd, const char *path, fastgpt_error *error) {
    uint8_t *data = os_alloc(file->n_bytes);
    if (!data) return fail(error, FASTGPT_ERR_MEMORY, "%s: no memory for its %zu bytes", path, file->n_bytes);
    for (size_t done = 0; done < file->n_bytes;) {
        ssize_t n = read(fd, data + done, file->n_bytes - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            os_free(data);
            return fail(error, FASTGPT_ERR_IO, "%s: %s", path, n < 0 ? strerror(errno) : "became shorter while read");
        }
        done += (size_t)n;
    }
    file->data = data;
    return FASTGPT_OK;
}

static fastgpt_status load_fd(os_file *file, int fd, const char *path, bool map, fastgpt_error *error) {
    struct stat info;
    if (fstat(fd, &info) != 0) return fail(error, FASTGPT_ERR_IO, "%s: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode)) return fail(error, FASTGPT_ERR_IO, "%s: is a directory", path);
    if (!S_ISREG(info.st_mode)) return fail(error, FASTGPT_ERR_IO, "%s: is not a regular file", path);
    if (info.st_size == 0) return fail(error, FASTGPT_ERR_FORMAT, "%s: is empty", path);
    file->n_bytes = (size_t)info.st_size;
    return map ? map_file(file, fd, path, error) : read_file(file, fd, path, error);
}

fastgpt_status os_file_open(os_file *file, const char *path, bool map, fastgpt_error *error) {
    memset(file, 0, sizeof *file);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hang us */
    if (fd < 0) return fail(error, FASTGPT_ERR_IO, "%s: %s", path, strerror(errno));
    fastgpt_status status = load_fd(file, fd, path, map, error);
    close(fd);
    return status;
}

void os_file_close(os_file *file) {
    if (file->mapped) munmap((void *)file->data, file->n_bytes);
    else os_free((void *)file->data);
    memset(file, 0, sizeof *file);
}

/* ---- Threads ---- */

int64_t os_process_id(void) { return getpid(); }

void os_yield(void) { sched_yield(); }

#if defined(__linux__)

static int cores_of_affinity(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

/* Cores that a cgroup v2 quota pays for, rounded up; 0 = no quota.  cpu.max holds "quota period" in
 * microseconds, or "max period". */
static int cores_of_cgroup(const char *folder) {
    char path[640];
    long quota = 0, period = 0;
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", folder);
    FILE *file = fopen(path, "re");
    if (!file) return 0;
    int n = fscanf(file, "%ld %ld", &quota, &period);
    fclose(file);
    return n == 2 && quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

/* This process's cgroup v2 folder, "" when unknown: the line "0::/folder". */
static void cgroup_folder(char *folder, size_t n) {
    char line[512];
    folder[0] = 0;
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (!file) return;
    while (fgets(line, sizeof line, file)) {
        if (strncmp(line, "0::/", 4) != 0) continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(folder, n, "%s", line + 3);
    }
    fclose(file);
}

static int min_positive(int a, int b) { return b > 0 && (a <= 0 || b < a) ? b : a; }

int os_usable_cores(void) {
    char folder[512];
    cgroup_folder(folder, sizeof folder);
    int n = min_positive(cores_of_affinity(), cores_of_cgroup(folder));
    n = min_positive(n, cores_of_cgroup("")); /* inside a container the root is the limit that counts */
    return n > 0 ? n : 1;
}

#else

int os_usable_cores(void) {
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

#endif

/* ---- CPU ---- */

#if defined(__x86_64__)

bool os_cpu_has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool os_cpu_has_avx512(void) {
    return os_cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

#else

bool os_cpu_has_avx2(void) { return false; }

bool os_cpu_has_avx512(void) { return false; }

#endif
