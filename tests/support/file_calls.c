/* An LD_PRELOAD library that counts a process's changes to files under a folder: writes, links, renames, removals,
 * syncs, truncations.  After the n-th one it kills the process; or from the n-th on, writing fails as on a full disk.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long n_left = -1; /* calls until it happens, -1 = never */
static int is_full_disk;
static char folder[4096];

/* From the n-th change on, n >= 1.  0 = never. */
void file_calls_arm(long n, int full_disk, const char *under) {
    snprintf(folder, sizeof folder, "%s", under);
    is_full_disk = full_disk;
    n_left = n ? n : -1;
}

static int is_under(const char *path) { return strncmp(path, folder, strlen(folder)) == 0; }

static int counts(int descriptor) {
    char name[64], path[4096];
    if (n_left < 0) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
    ssize_t n = readlink(name, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return is_under(path);
}

/* After a change that counts. */
static void done(int counted) {
    if (counted && !is_full_disk && --n_left == 0) kill(getpid(), SIGKILL);
}

/* Whether a write that counts must fail. */
static int fails(int counted) {
    if (!counted || !is_full_disk) return 0;
    if (n_left > 1) {
        n_left--;
        return 0;
    }
    errno = ENOSPC;
    return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int descriptor, const void *data, size_t n) {
    int counted = counts(descriptor);
    if (fails(counted)) return -1;
    ssize_t written = NEXT(write)(descriptor, data, n);
    done(counted);
    return written;
}

#define ON_DESCRIPTOR(name, parameters, arguments)                       \
    int name parameters {                                                \
        int counted = counts(descriptor), result = NEXT(name) arguments; \
        done(counted);                                                   \
        return result;                                                   \
    }

ON_DESCRIPTOR(fsync, (int descriptor), (descriptor))
ON_DESCRIPTOR(ftruncate, (int descriptor, off_t size), (descriptor, size))
ON_DESCRIPTOR(ftruncate64, (int descriptor, off64_t size), (descriptor, size))

#define ON_PATH(name, parameters, arguments)                                        \
    int name parameters {                                                           \
        int counted = n_left >= 0 && is_under(path), result = NEXT(name) arguments; \
        done(counted);                                                              \
        return result;                                                              \
    }

ON_PATH(link, (const char *path, const char *to), (path, to))
ON_PATH(linkat, (int from, const char *path, int to, const char *name, int flags), (from, path, to, name, flags))
ON_PATH(rename, (const char *path, const char *to), (path, to))
ON_PATH(renameat, (int from, const char *path, int to, const char *name), (from, path, to, name))
ON_PATH(unlink, (const char *path), (path))
ON_PATH(unlinkat, (int from, const char *path, int flags), (from, path, flags))
