/* test_cgroup.c - the CPU quotas of control groups, in trees of files like those of /proc and /sys. */
#define _XOPEN_SOURCE 700 /* nftw */
#include "support/check.h"
#include "common/os.h"

#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FILES = 6 };

typedef struct tree_file {
    const char *path, *text;
} tree_file;

typedef struct tree {
    const char *lines; /* of /proc/self/cgroup; NULL = there is none */
    int n_cores;
    tree_file files[MAX_FILES]; /* below /sys/fs/cgroup */
} tree;

static void write_file(const char *root, const char *folder, const char *name, const char *text) {
    char path[8192];
    snprintf(path, sizeof path, "%s%s%s", root, folder, name);
    for (char *at = path + strlen(root) + 1; (at = strchr(at, '/')); *at++ = '/') {
        *at = 0;
        mkdir(path, 0700);
    }
    FILE *file = fopen(path, "w");
    if (!file || fputs(text, file) < 0 || fclose(file) != 0) {
        perror(path);
        abort();
    }
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place) {
    (void)info, (void)kind, (void)place;
    return remove(path);
}

static int cores_of(const tree *t) {
    char root[256];
    const char *folder = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/fastgpt-test-XXXXXX", folder && *folder ? folder : "/tmp");
    if (!mkdtemp(root)) abort();
    if (t->lines) write_file(root, "/proc/self/", "cgroup", t->lines);
    for (int i = 0; i < MAX_FILES && t->files[i].path; i++)
        write_file(root, "/sys/fs/cgroup/", t->files[i].path, t->files[i].text);
    int n_cores = os_cgroup_cores(root);
    nftw(root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return n_cores;
}

static void check_trees(const char *what, const tree *trees, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int n_cores = cores_of(&trees[i]);
        CHECK_FOR(n_cores == trees[i].n_cores, "%s, tree %zu: %d cores, not %d", what, i, n_cores, trees[i].n_cores);
    }
}

#define CHECK_TREES(what, trees) check_trees(what, trees, sizeof(trees) / sizeof *(trees))

/* "quota period" of its own group, of a group around it, or of the mount; a part of a core counts as one. */
static void test_v2(void) {
    static const tree trees[] = {
        {"0::/a/b\n", 0, {{"a/b/cpu.max", "max 100000\n"}, {"a/cpu.max", "max 100000\n"}}},
        {"0::/a/b\n", 1, {{"a/b/cpu.max", "20000 100000\n"}}},
        {"0::/a/b\n", 2, {{"a/b/cpu.max", "200000 100000\n"}}},
        {"0::/a/b\n", 3, {{"a/b/cpu.max", "200001 100000\n"}}},
        {"0::/a/b\n", 2, {{"a/b/cpu.max", "max 100000\n"}, {"a/cpu.max", "60000 50000\n"}}},
        {"0::/a/b\n", 2, {{"a/b/cpu.max", "700000 100000\n"}, {"a/cpu.max", "200000 100000\n"}}},
        {"0::/a/b\n", 2, {{"a/b/cpu.max", "200000 100000\n"}, {"a/cpu.max", "700000 100000\n"}}},
        {"0::/a/b/c/d\n", 4, {{"a/b/c/d/cpu.max", "max 100000\n"}, {"a/cpu.max", "400000 100000\n"}}},
        {"0::/\n", 5, {{"cpu.max", "500000 100000\n"}}},
        {"0::/of/the/host\n", 5, {{"cpu.max", "500000 100000\n"}}},
        {"0::/a\n", 0, {{"b/cpu.max", "100000 100000\n"}, {"a/b/cpu.max", "100000 100000\n"}}},
    };
    CHECK_TREES("v2", trees);
}

/* A quota and a period in two files, below the mount of the controller cpu, whatever its companions. */
static void test_v1(void) {
    static const tree trees[] = {
        {"4:cpu:/\n", 0, {{"cpu/cpu.cfs_quota_us", "-1\n"}, {"cpu/cpu.cfs_period_us", "100000\n"}}},
        {"4:cpu:/\n", 3, {{"cpu/cpu.cfs_quota_us", "250000\n"}, {"cpu/cpu.cfs_period_us", "100000\n"}}},
        {"4:cpu,cpuacct:/a\n", 2, {{"cpu/a/cpu.cfs_quota_us", "20000\n"}, {"cpu/a/cpu.cfs_period_us", "10000\n"}}},
        {"4:cpuacct,cpu:/a\n", 2, {{"cpu/a/cpu.cfs_quota_us", "20000\n"}, {"cpu/a/cpu.cfs_period_us", "10000\n"}}},
        {"4:cpuset:/a\n5:cpuacct:/a\n6:name=cpu:/a\n",
         0,
         {{"cpu/a/cpu.cfs_quota_us", "20000\n"}, {"cpu/a/cpu.cfs_period_us", "10000\n"}}},
        {"9:pids:/\n4:cpu:/a/b\n1:name=systemd:/\n",
         2,
         {{"cpu/a/b/cpu.cfs_quota_us", "-1\n"},
          {"cpu/a/b/cpu.cfs_period_us", "100000\n"},
          {"cpu/a/cpu.cfs_quota_us", "200000\n"},
          {"cpu/a/cpu.cfs_period_us", "100000\n"}}},
        {"4:cpu:/docker/0123\n", 3, {{"cpu/cpu.cfs_quota_us", "250000\n"}, {"cpu/cpu.cfs_period_us", "100000\n"}}},
        {"4:cpu:/a\n", 0, {{"cpu/a/cpu.cfs_quota_us", "250000\n"}}},
        {"4:cpu:/a\n", 0, {{"cpu/a/cpu.cfs_period_us", "100000\n"}}},
    };
    CHECK_TREES("v1", trees);
}

/* Where both are mounted, the smaller quota counts. */
static void test_v1_and_v2(void) {
    static const tree trees[] = {
        {"4:cpu:/a\n0::/b\n",
         2,
         {{"cpu/a/cpu.cfs_quota_us", "300000"}, {"cpu/a/cpu.cfs_period_us", "100000"}, {"b/cpu.max", "200000 100000"}}},
        {"4:cpu:/a\n0::/b\n",
         3,
         {{"cpu/a/cpu.cfs_quota_us", "300000"}, {"cpu/a/cpu.cfs_period_us", "100000"}, {"b/cpu.max", "400000 100000"}}},
    };
    CHECK_TREES("v1 and v2", trees);
}

/* Whatever the files hold: no quota. */
static void test_nonsense(void) {
    static char long_line[9000];
    memset(long_line, '/', sizeof long_line - 1);
    memcpy(long_line, "0::", 3);
    const tree trees[] = {
        {NULL, 0, {{"cpu.max", "100000 100000"}}},
        {"", 0, {{"cpu.max", "100000 100000"}}},
        {"0\n0:\n0::\n0::a\n:\n::\n", 0, {{"cpu.max", "100000 100000"}, {"a/cpu.max", "100000 100000"}}},
        {"0::/a\n", 0, {{"a/cpu.max", ""}}},
        {"0::/a\n", 0, {{"a/cpu.max", "100000"}}},
        {"0::/a\n", 0, {{"a/cpu.max", "0 100000"}}},
        {"0::/a\n", 0, {{"a/cpu.max", "100000 0"}}},
        {"0::/a\n", 0, {{"a/cpu.max", "-100000 -100000"}}},
        {"0::/a\n", 0, {{"a/cpu.max", "4294967297 1"}}},
        {long_line, 0, {{"a/cpu.max", "100000 100000"}}},
    };
    CHECK_TREES("nonsense", trees);
}

int main(void) {
    test_v2();
    test_v1();
    test_v1_and_v2();
    test_nonsense();
    CHECK(os_cores().usable >= 1);
    return check_report();
}
