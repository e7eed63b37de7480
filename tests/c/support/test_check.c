/* test_check.c - a program whose checks fail says what failed, but not for ever. */
#include "support/check.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* All that a program with n_failing of 100 checks prints -> its exit code. */
static int run_failing(int n_failing, char *text, size_t n_text) {
    int pipe_ends[2];
    if (pipe(pipe_ends) != 0) abort();
    pid_t child = fork();
    if (child == 0) {
        dup2(pipe_ends[1], STDOUT_FILENO);
        dup2(pipe_ends[1], STDERR_FILENO);
        close(pipe_ends[0]);
        check_n_done = check_n_failed = 0;
        for (int i = 0; i < 100; i++) CHECK_FOR(i >= n_failing, "the value %d", i);
        exit(check_report());
    }
    close(pipe_ends[1]);
    size_t n = 0;
    for (ssize_t more; (more = read(pipe_ends[0], text + n, n_text - 1 - n)) > 0;) n += (size_t)more;
    text[n] = 0;
    close(pipe_ends[0]);
    int status;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int count(const char *text, const char *word) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, word)); at++) n++;
    return n;
}

/* The first 20 failures, each with its values; the totals count all of them. */
static void check_failing(int n_failing, int n_shown, const char *totals) {
    static char text[1 << 16];
    int code = run_failing(n_failing, text, sizeof text);
    CHECK_FOR(code == (n_failing > 0), "%d failures: exit code %d", n_failing, code);
    CHECK_FOR(count(text, "failed: i >= n_failing\n    for the value ") == n_shown, "%d failures:\n%s", n_failing,
              text);
    CHECK_FOR(count(text, "\n    for ") == n_shown, "%d failures:\n%s", n_failing, text);
    CHECK_FOR(strlen(text) >= strlen(totals) && strcmp(text + strlen(text) - strlen(totals), totals) == 0,
              "%d failures:\n%s", n_failing, text);
}

int main(void) {
    check_failing(0, 0, "100 checks, 0 failed\n");
    check_failing(1, 1, "100 checks, 1 failed\n");
    check_failing(20, 20, "100 checks, 20 failed\n");
    check_failing(21, 20, "100 checks, 21 failed (the first 20 shown)\n");
    check_failing(100, 20, "100 checks, 100 failed (the first 20 shown)\n");
    return check_report();
}
