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
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

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

/* Bit of a register of CPUID (Intel SDM 2A, CPUID): leaf 7 describes the instruction sets. */
static bool leaf_7(unsigned subleaf, int which, int bit) {
    unsigned r[4];
    return __get_cpuid_count(7, subleaf, &r[0], &r[1], &r[2], &r[3]) && (r[which] >> bit & 1);
}

static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}

/* The state of the tiles is large, so Linux gives it to processes that ask (Documentation/arch/x86/xstate.rst). */
static bool may_use_tiles(void) {
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

/* __builtin_cpu_supports also asks whether the system saves the registers. */
unsigned os_cpu_features(void) {
    enum { EAX, ECX = 2, EDX };
    unsigned found = 0;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c()) return found;
    found |= OS_CPU_AVX2;
    if (leaf_7(1, EAX, 4)) found |= OS_CPU_AVX_VNNI;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return found;
    found |= OS_CPU_AVX512;
    if (leaf_7(0, ECX, 11)) found |= OS_CPU_AVX512_VNNI;
    if (leaf_7(1, EAX, 5)) found |= OS_CPU_AVX512_BF16;
    if (leaf_7(0, EDX, 22) && leaf_7(0, EDX, 24) && may_use_tiles()) found |= OS_CPU_AMX_BF16;
    return found;
}

#elif defined(__aarch64__) && defined(__linux__)

unsigned os_cpu_features(void) { return OS_CPU_NEON | (getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? OS_CPU_DOTPROD : 0); }

#elif defined(__aarch64__) /* Apple's cores all have the dot products */

unsigned os_cpu_features(void) { return OS_CPU_NEON | OS_CPU_DOTPROD; }

#else

unsigned os_cpu_features(void) { return 0; }

#endif
