/* check.h - all that the C tests need: CHECK counts, and reports a failure with its place; the main of a test
 * ends with  return check_report();  For one thread only.  Only the first failures are shown: a loop that fails
 * each time would bury them. */
#ifndef FASTGPT_CHECK_H
#define FASTGPT_CHECK_H

#include <stdbool.h>
#include <stdio.h>

enum { CHECK_N_SHOWN = 20 };

static long check_n_done, check_n_failed;

/* Whether the latest failure is one of those that are shown. */
static inline bool check_shows(void) { return check_n_failed <= CHECK_N_SHOWN; }

static inline bool check_one(bool passed, const char *file, int line, const char *condition) {
    check_n_done++;
    if (!passed) {
        check_n_failed++;
        if (check_shows()) fprintf(stderr, "%s:%d: failed: %s\n", file, line, condition);
    }
    return passed;
}

/* Is itself true when the condition is. */
#define CHECK(condition) check_one((condition), __FILE__, __LINE__, #condition)

/* CHECK_FOR(x == y, "n %d", n): a failure also shows the values that it happened for. */
#define CHECK_FOR(condition, ...)                 \
    do {                                          \
        if (!CHECK(condition) && check_shows()) { \
            fprintf(stderr, "    for ");          \
            fprintf(stderr, __VA_ARGS__);         \
            fputc('\n', stderr);                  \
        }                                         \
    } while (0)

/* Prints the totals; non-zero when a check failed or none was made. */
static inline int check_report(void) {
    printf("%ld checks, %ld failed", check_n_done, check_n_failed);
    if (check_n_failed > CHECK_N_SHOWN) printf(" (the first %d shown)", CHECK_N_SHOWN);
    putchar('\n');
    return check_n_failed > 0 || check_n_done == 0;
}

#endif
