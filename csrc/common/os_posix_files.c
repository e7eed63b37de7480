/* os_posix_files.c - the files of os.h for Linux and macOS: models are mapped or read, states written whole or not at
 * all. */
#if defined(__linux__)
#define _GNU_SOURCE /* mkostemps */
#elif defined(__APPLE__)
#define _DARWIN_C_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/os_files.h"
#include "common/status.h"

static fastgpt_status map_file(os_file *file, int fd, const char *path, fastgpt_error *error) {
    void *data = mmap(NULL, file->n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) return fail(error, FASTGPT_ERR_IO, "%s: cannot be mapped: %s", path, strerror(errno));
    file->data = data;
    file->mapped = true;
    return FASTGPT_OK;
}

/* An os_reader of a descriptor. */
static fastgpt_status read_all(void *descriptor, uint8_t *data, size_t n, const char *path, fastgpt_error *error) {
    int fd = *(int *)descriptor;
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

static fastgpt_status load_fd(os_file *file, int fd, const char *path, const os_file_check *copy,
                              fastgpt_error *error) {
    struct stat info;
    if (fstat(fd, &info) != 0) return fail(error, FASTGPT_ERR_IO, "%s: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode)) return fail(error, FASTGPT_ERR_IO, "%s: is a directory", path);
    if (!S_ISREG(info.st_mode)) return fail(error, FASTGPT_ERR_IO, "%s: is not a regular file", path);
    if (info.st_size == 0) return fail(error, FASTGPT_ERR_FORMAT, "%s: is empty", path);
    file->n_bytes = (size_t)info.st_size;
    return copy ? os_file_read(file, read_all, &fd, path, copy, error) : map_file(file, fd, path, error);
}

fastgpt_status os_file_open(os_file *file, const char *path, const os_file_check *copy, fastgpt_error *error) {
    memset(file, 0, sizeof *file);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hang us */
    if (fd < 0) return fail(error, FASTGPT_ERR_IO, "%s: %s", path, strerror(errno));
    fastgpt_status status = load_fd(file, fd, path, copy, error);
    close(fd);
    return status;
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
    bool same = read_all(&fd, first, n, path, NULL) == FASTGPT_OK && memcmp(first, bytes, n) == 0;
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
