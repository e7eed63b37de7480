/* os_posix.c - os.h for Linux and macOS. */
#if defined(__linux__)
#define _GNU_SOURCE /* sched_getaffinity, mkostemps */
#elif defined(__APPLE__)
#define _DARWIN_C_SOURCE /* _SC_NPROCESSORS_ONLN */
#endif
#include "common/os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "common/status.h"

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

/* Memory that the system is asked to back with large pages, where it has them: a step reads all of it, and looks up
 * fewer addresses then. */
static uint8_t *alloc_large(size_t n_bytes) {
    enum { LARGE_PAGE = 1 << 21 };
    void *block = NULL;
    if (n_bytes < LARGE_PAGE) return os_alloc(n_bytes);
    if (posix_memalign(&block, LARGE_PAGE, n_bytes) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    madvise(block, n_bytes, MADV_HUGEPAGE);
#endif
    return block;
}

/* Reads n bytes more. */
static fastgpt_status read_all(int fd, uint8_t *data, size_t n, const char *path, fastgpt_error *error) {
    for (size_t done = 0; done < n;) {
        ssize_t some = read(fd, data + done, n - done);
        if (some < 0 && errno == EINTR) continue;
        if (some <= 0)
            return fail(error, FASTGPT_ERR_IO, "%s: %s", path,
                        some < 0 ? strerror(errno) : "became shorter while read");
        done += (size_t)some;
    }
    return FASTGPT_OK;
}

static fastgpt_status read_file(os_file *file, int fd, const char *path, const os_file_check *check,
                                fastgpt_error *error) {
    uint8_t first[OS_FIRST_BYTES];
    size_t n = file->n_bytes, n_first = n < sizeof first ? n : sizeof first;
    fastgpt_status status = read_all(fd, first, n_first, path, error);
    if (!status) status = check->begins_well(check->user, first, n_first, n, error);
    if (status) return status;
    uint8_t *data = alloc_large(n);
    if (!data) return fail(error, FASTGPT_ERR_MEMORY, "%s: no memory for its %zu bytes", path, n);
    memcpy(data, first, n_first);
    status = read_all(fd, data + n_first, n - n_first, path, error);
    file->owned = status == FASTGPT_OK;
    if (status) os_free(data);
    else file->data = data;
    return status;
}

static fastgpt_status load_fd(os_file *file, int fd, const char *path, const os_file_check *copy,
                              fastgpt_error *error) {
    struct stat info;
    if (fstat(fd, &info) != 0) return fail(error, FASTGPT_ERR_IO, "%s: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode)) return fail(error, FASTGPT_ERR_IO, "%s: is a directory", path);
    if (!S_ISREG(info.st_mode)) return fail(error, FASTGPT_ERR_IO, "%s: is not a regular file", path);
    if (info.st_size == 0) return fail(error, FASTGPT_ERR_FORMAT, "%s: is empty", path);
    file->n_bytes = (size_t)info.st_size;
    return copy ? read_file(file, fd, path, copy, error) : map_file(file, fd, path, error);
}

fastgpt_status os_file_open(os_file *file, const char *path, const os_file_check *copy, fastgpt_error *error) {
    memset(file, 0, sizeof *file);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hang us */
    if (fd < 0) return fail(error, FASTGPT_ERR_IO, "%s: %s", path, strerror(errno));
    fastgpt_status status = load_fd(file, fd, path, copy, error);
    close(fd);
    return status;
}

fastgpt_status os_file_of_bytes(os_file *file, const void *bytes, size_t n_bytes, bool copy, fastgpt_error *error) {
    *file = (os_file){.data = bytes, .n_bytes = n_bytes, .owned = copy};
    if (!copy) return FASTGPT_OK;
    uint8_t *data = alloc_large(n_bytes);
    file->data = data;
    if (!data) return fail(error, FASTGPT_ERR_MEMORY, "no memory for the %zu bytes of the model", n_bytes);
    memcpy(data, bytes, n_bytes);
    return FASTGPT_OK;
}

void os_file_close(os_file *file) {
    if (file->mapped) munmap((void *)file->data, file->n_bytes);
    if (file->owned) os_free((void *)file->data);
    memset(file, 0, sizeof *file);
}

bool os_file_begins(const char *path, const void *bytes, size_t n) {
    uint8_t first[OS_FIRST_BYTES];
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode)) return false; /* opening a pipe might disturb its writer */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return false;
    bool same = read_all(fd, first, n, path, NULL) == FASTGPT_OK && memcmp(first, bytes, n) == 0;
    close(fd);
    return same;
}

/* What a file that is being written is called, in the folder of its name to be; files.py removes those that nobody
 * writes any more. */
#define PART_NAME ".fastgpt-c-XXXXXX.part"

/* The folder of a file, with its slash, and `name` after it; "" is the folder of a bare name. */
static char *beside(const char *path, const char *name) {
    const char *slash = strrchr(path, '/');
    size_t n_folder = slash ? (size_t)(slash - path) + 1 : 0;
    char *text = malloc(n_folder + strlen(name) + 1);
    if (!text) return NULL;
    memcpy(text, path, n_folder);
    memcpy(text + n_folder, name, strlen(name) + 1);
    return text;
}

/* The open file that a path means, as what /dev/stdout links to does; -1 = none. */
static int descriptor_of(const char *path) {
    static const char *const folders[] = {"/dev/fd/", "/proc/self/fd/"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        const char *number = path + strlen(folders[i]);
        if (strncmp(path, folders[i], strlen(folders[i])) != 0 || !*number) continue;
        if (number[strspn(number, "0123456789")] == 0 && strlen(number) < 9) return atoi(number);
    }
    return -1;
}

/* The end of a chain of links, which need not be there; a link to an open file is an end.  To be freed. */
static fastgpt_status follow_links(const char *path, char **end, fastgpt_error *error) {
    enum { MAX_LINKS = 40 };
    char link[PATH_MAX];
    char *at = beside("", path);
    for (int i = 0; at && i < MAX_LINKS; i++) {
        ssize_t n = descriptor_of(at) >= 0 ? -1 : readlink(at, link, sizeof link - 1);
        if (n < 0) {
            *end = at;
            return FASTGPT_OK;
        }
        link[n] = 0;
        char *next = beside(*link == '/' ? "" : at, link);
        free(at);
        at = next;
    }
    if (!at) return fail(error, FASTGPT_ERR_MEMORY, "%s: no memory for a file name", path);
    free(at);
    return fail(error, FASTGPT_ERR_IO, "%s: cannot be written: %s", path, strerror(ELOOP));
}

static bool write_all(int fd, const uint8_t *data, size_t n_bytes) {
    for (size_t done = 0; done < n_bytes;) {
        ssize_t n = write(fd, data + done, n_bytes - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        done += (size_t)n;
    }
    return true;
}

static bool write_through(int fd, const void *data, size_t n_bytes) {
    if (fd < 0) return false;
    bool done = write_all(fd, data, n_bytes);
    int why = errno;
    close(fd);
    errno = why;
    return done;
}

/* A rename lasts once its folder is on disk; where a folder cannot be synced, the system does it in its own time. */
static void sync_folder(char *part) {
    *strrchr(part, '/') = 0;
    int fd = open(*part ? part : "/", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

/* While the file is locked, nobody takes it for what a process that was killed has left (files.py); where there are no
 * locks, nobody takes anything away. */
static bool fill_and_rename(char *part, const char *path, const void *data, size_t n_bytes) {
    int fd = mkostemps(part, (int)strlen(strrchr(part, '.')), O_CLOEXEC);
    if (fd < 0) return false;
    flock(fd, LOCK_EX | LOCK_NB);
    bool done = write_all(fd, data, n_bytes) && fsync(fd) == 0 && rename(part, path) == 0;
    int why = errno;
    close(fd);
    if (!done) unlink(part);
    errno = why;
    if (done) sync_folder(part);
    return done;
}

static bool replace_file(const char *path, const void *data, size_t n_bytes) {
    char *part = beside(path, strchr(path, '/') ? PART_NAME : "./" PART_NAME);
    bool done = part && fill_and_rename(part, path, data, n_bytes);
    int why = part ? errno : ENOMEM;
    free(part);
    errno = why;
    return done;
}

/* What stands under a name: NULL = nothing, or a file that may be replaced; else why it may not. */
static const char *irreplaceable(const struct stat *info) {
    if (S_ISDIR(info->st_mode)) return "it is a folder";
    if (S_ISSOCK(info->st_mode)) return "it is a socket";
    if (S_ISBLK(info->st_mode)) return "it is a block device";
    return NULL;
}

/* path is the end of its links. */
static fastgpt_status write_to(const char *path, const void *data, size_t n_bytes, fastgpt_error *error) {
    struct stat info = {.st_mode = S_IFREG};
    int descriptor = descriptor_of(path);
    if (descriptor < 0 && stat(path, &info) != 0) info.st_mode = S_IFREG; /* whatever it is, the writing will tell */
    const char *why = irreplaceable(&info);
    if (why) return fail(error, FASTGPT_ERR_IO, "%s: cannot be written: %s; name a file", path, why);
    bool written;
    if (descriptor >= 0) written = write_through(dup(descriptor), data, n_bytes);
    else if (S_ISREG(info.st_mode)) written = replace_file(path, data, n_bytes);
    else written = write_through(open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY), data, n_bytes);
    if (written) return FASTGPT_OK;
    return fail(error, errno == ENOMEM ? FASTGPT_ERR_MEMORY : FASTGPT_ERR_IO, "%s: cannot be written: %s", path,
                strerror(errno));
}

fastgpt_status os_file_write(const char *path, const void *data, size_t n_bytes, fastgpt_error *error) {
    char *end = NULL;
    fastgpt_status status = follow_links(path, &end, error);
    if (status) return status;
    status = write_to(end, data, n_bytes, error);
    free(end);
    return status;
}

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

bool os_is_little_endian(void) {
    const uint16_t one = 1;
    uint8_t first;
    memcpy(&first, &one, 1);
    return first == 1;
}
