/* text_buffer.h - text that grows at its end. */
#ifndef FASTGPT_TEXT_BUFFER_H
#define FASTGPT_TEXT_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct text_buffer {
    char *text; /* [n], and a NUL behind it; NULL before the first append */
    size_t n, capacity;
} text_buffer;

/* Appends text [n].  False when there is no memory; the buffer is then as it was. */
static inline bool text_buffer_append(text_buffer *b, const char *text, size_t n) {
    size_t wanted = b->n + n + 1;
    if (wanted > b->capacity) {
        char *larger = malloc(2 * wanted);
        if (!larger) return false;
        if (b->n > 0) memcpy(larger, b->text, b->n);
        free(b->text);
        b->text = larger;
        b->capacity = 2 * wanted;
    }
    if (n > 0) memcpy(b->text + b->n, text, n);
    b->n += n;
    b->text[b->n] = 0;
    return true;
}

/* Drops the first n bytes. */
static inline void text_buffer_drop(text_buffer *b, size_t n) {
    if (n > 0) memmove(b->text, b->text + n, b->n - n);
    b->n -= n;
}

#endif
