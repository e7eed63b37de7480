/* string_list.h - many strings in one block. */
#ifndef FASTGPT_STRING_LIST_H
#define FASTGPT_STRING_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* Strings end to end; string i is text[offsets[i] .. offsets[i + 1]). */
typedef struct string_list {
    int64_t n;
    char *text;
    uint64_t *offsets; /* [n + 1] */
} string_list;

/* Room for n empty strings that will have n_bytes.  False when there is no memory; free it all the same. */
static inline bool string_list_alloc(string_list *list, uint64_t n, uint64_t n_bytes) {
    list->n = (int64_t)n;
    list->text = malloc(n_bytes + 1);
    list->offsets = calloc(n + 1, sizeof *list->offsets);
    return list->text && list->offsets;
}

static inline void string_list_free(string_list *list) {
    free(list->text);
    free(list->offsets);
}

static inline size_t string_list_sizeof(const string_list *list) {
    if (!list->offsets) return 0;
    return list->offsets[list->n] + ((size_t)list->n + 1) * sizeof *list->offsets;
}

#endif
