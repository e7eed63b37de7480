/* os_posix.c - os.h for Linux and macOS: memory, cores, clock, CPU.  Files are in os_posix_files.c. */
#if defined(__linux__)
#define _GNU_SOURCE /* sched_getaffinity */
#elif defined(__APPLE__)
#define _DARWIN_C_SOURCE /* _SC_NPROCESSORS_ONLN */
#endif
#include "common/os.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

/* ---- Memory ---- */

void *os_alloc(size_t n_bytes) {
    void *block = NULL;
    if (posix_memalign(&block, 64, n_bytes ? n_bytes : 1) != 0) return NULL;
    return block;
}

void *os_alloc_large(size_t n_bytes) {
    enum { LARGE_PAGE = 1 << 21 };
    void *block = NULL;
    if (n_bytes < LARGE_PAGE) return os_alloc(n_bytes);
    if (posix_memalign(&block, LARGE_PAGE, n_bytes) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    madvise(block, n_bytes, MADV_HUGEPAGE);
#endif
    return block;
}

void os_free(void *block) { free(block); }

/* ---- Threads ---- */

int64_t os_process_id(void) { return getpid(); }

void os_yield(void) { sched_yield(); }

static int min_positive(int a, int b) { return b > 0 && (a <= 0 || b < a) ? b : a; }

#if defined(__linux__)

enum { MAX_PATH_BYTES = 4096 };

static int cores_of_affinity(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

/* The numbers that a file of a control group begins with, at most two -> how many. */
static int read_numbers(const char *group, const char *name, long numbers[2]) {
    char path[2 * MAX_PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", group, name);
    FILE *file = fopen(path, "re");
    if (!file) return 0;
    int n = fscanf(file, "%ld %ld", &numbers[0], &numbers[1]);
    fclose(file);
    return n;
}

/* Cores that the quota of one group pays for, rounded up; 0 = it has none.  Microseconds: cpu.max of cgroup v2 holds
 * "quota period" or "max period"; v1 has a file for each, and -1 for no quota. */
static int cores_of_group(const char *group) {
    long v2[2], quota[2] = {0}, period[2] = {0};
    if (read_numbers(group, "cpu.max", v2) == 2) quota[0] = v2[0], period[0] = v2[1];
    else if (read_numbers(group, "cpu.cfs_quota_us", quota) > 0) read_numbers(group, "cpu.cfs_period_us", period);
    if (quota[0] <= 0 || period[0] <= 0) return 0;
    long cores = quota[0] / period[0] + (quota[0] % period[0] > 0);
    return cores <= INT_MAX ? (int)cores : 0;
}

/* The smallest quota of a group and of those around it, up to the mount, which is the first n_mount bytes of its path.
 * In a container only the mount may exist. */
static int cores_of_groups(char *path, size_t n_mount) {
    int n = cores_of_group(path);
    while (strlen(path) > n_mount) {
        *strrchr(path, '/') = 0;
        n = min_positive(n, cores_of_group(path));
    }
    return n;
}

static bool is_listed(const char *list, const char *name) {
    size_t n = strlen(name);
    for (; list; list = strchr(list, ',')) {
        list += *list == ',';
        if (strncmp(list, name, n) == 0 && (list[n] == ',' || !list[n])) return true;
    }
    return false;
}

/* A line of /proc/self/cgroup is NUMBER:CONTROLLERS:GROUP, with no controllers for cgroup v2. */
static int cores_of_line(const char *root, char *line) {
    char path[MAX_PATH_BYTES];
    char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group || group[1] != '/') return 0;
    *controllers++ = *group++ = 0;
    if (*controllers && !is_listed(controllers, "cpu")) return 0;
    int n_mount = snprintf(path, sizeof path, "%s/sys/fs/cgroup%s", root, *controllers ? "/cpu" : "");
    int n = n_mount + snprintf(path + n_mount, sizeof path - (size_t)n_mount, "%s", group);
    return n < (int)sizeof path ? cores_of_groups(path, (size_t)n_mount) : 0;
}

int os_cgroup_cores(const char *root) {
    char line[MAX_PATH_BYTES];
    int n = 0;
    snprintf(line, sizeof line, "%s/proc/self/cgroup", root);
    FILE *file = fopen(line, "re");
    if (!file) return 0;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        n = min_positive(n, cores_of_line(root, line));
    }
    fclose(file);
    return n;
}

static int cores_of_quota(void) { return os_cgroup_cores(""); }

#else

static int cores_of_affinity(void) { return 0; }
static int cores_of_quota(void) { return 0; }

#endif

fastgpt_cores os_cores(void) {
    fastgpt_cores cores = {
        .online = (int)sysconf(_SC_NPROCESSORS_ONLN), .affinity = cores_of_affinity(), .quota = cores_of_quota()};
    int n = min_positive(min_positive(cores.online, cores.affinity), cores.quota);
    cores.usable = n > 0 ? n : 1;
    return cores;
}

int64_t os_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- CPU ---- */

/* Linux counts in KiB; sysconf's own answer was ten times too large on an AMD virtual machine. */
size_t os_cache_bytes(void) {
    FILE *file = fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "re");
    unsigned long kib = 0;
    if (!file) return 0;
    int n = fscanf(file, "%lu", &kib);
    fclose(file);
    return n == 1 ? (size_t)kib * 1024 : 0;
}

#if defined(__x86_64__)

/* The state of the tiles is large, so Linux gives it to processes that ask (Documentation/arch/x86/xstate.rst). */
bool os_may_use_tiles(void) {
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

#elif defined(__aarch64__) && defined(__linux__)

unsigned os_cpu_features(void) { return OS_CPU_NEON | (getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? OS_CPU_DOTPROD : 0); }

#elif defined(__aarch64__) /* Apple's cores all have the dot products */

unsigned os_cpu_features(void) { return OS_CPU_NEON | OS_CPU_DOTPROD; }

#else

unsigned os_cpu_features(void) { return 0; }

#endif

bool os_is_little_endian(void) {
    const uint16_t one = 1;
    uint8_t first;
    memcpy(&first, &one, 1);
    return first == 1;
}
