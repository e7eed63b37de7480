/* pretokenize.c - GPT-2's pattern (encoder.py of https://github.com/openai/gpt-2), by hand:
 *
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *
 * So a piece is a contraction; or a run of letters, of numbers or of other characters, with a space before it; or
 * spaces, of which the last one is left to what follows them. */
#include "tokenizer/pretokenize.h"

#include "tokenizer/unicode_tables.h"
#include "tokenizer/utf8.h"

/* As numbered in unicode_tables.h; for a byte, MULTIBYTE asks for the whole character. */
enum { OTHER, LETTER, NUMBER, SPACE, MULTIBYTE };

/* clang-format off */
#define TWICE(x) x, x
#define TIMES4(x) TWICE(x), TWICE(x)
#define TIMES8(x) TIMES4(x), TIMES4(x)
#define TIMES26(x) TIMES8(x), TIMES8(x), TIMES8(x), TWICE(x)
#define TIMES32(x) TIMES8(x), TIMES8(x), TIMES8(x), TIMES8(x)
static const uint8_t class_of_byte[256] = {
    TIMES8(OTHER), OTHER, TIMES4(SPACE), SPACE, TWICE(OTHER), /* 00..0F: tab to carriage return */
    TIMES8(OTHER), TIMES8(OTHER),
    SPACE, OTHER, OTHER, OTHER, TIMES4(OTHER), TIMES8(OTHER), /* 20..2F */
    TIMES8(NUMBER), TWICE(NUMBER), OTHER, OTHER, TIMES4(OTHER),
    OTHER, TIMES26(LETTER), OTHER, TIMES4(OTHER), /* 40..5F */
    OTHER, TIMES26(LETTER), OTHER, TIMES4(OTHER),
    TIMES32(MULTIBYTE), TIMES32(MULTIBYTE), TIMES32(MULTIBYTE), TIMES32(MULTIBYTE)};
/* clang-format on */

static int class_of_code(uint32_t c) {
    if (c >= UNICODE_END) return OTHER;
    uint64_t word = unicode_blocks[unicode_index[c / 256] * 8 + c % 256 / 32];
    return (int)(word >> 2 * (c % 32) & 3);
}

/* Class of the character at text [n], n >= 1, and its length.  A byte that is not UTF-8 is a character of its own. */
static inline int class_at(const uint8_t *text, size_t n, size_t *length) {
    int class = class_of_byte[text[0]];
    *length = 1;
    if (class != MULTIBYTE) return class;
    uint32_t code;
    int n_read = utf8_next(text, n, &code);
    if (n_read <= 0) return OTHER;
    *length = (size_t)n_read;
    return class_of_code(code);
}

/* Length of the contraction that text [n] begins with, else 0. */
static size_t contraction_length(const uint8_t *text, size_t n) {
    if (n < 2 || text[0] != '\'') return 0;
    uint8_t a = text[1], b = n > 2 ? text[2] : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* Where the run of characters of a class ends; text[i ..) is still to be looked at. */
static size_t run_end(const uint8_t *text, size_t i, size_t n, int class) {
    size_t length;
    while (i < n) {
        while (i < n && class_of_byte[text[i]] == class) i++;
        if (i == n || class_of_byte[text[i]] != MULTIBYTE || class_at(text + i, n - i, &length) != class) return i;
        i += length;
    }
    return i;
}

/* text [n] begins with a space.  The last one of several belongs to what follows, unless nothing does. */
static size_t spaces_length(const uint8_t *text, size_t n) {
    size_t i = 0, last = 0, length;
    while (i < n && class_at(text + i, n - i, &length) == SPACE) {
        last = i;
        i += length;
    }
    return i == n || last == 0 ? i : last;
}

size_t piece_length(const uint8_t *text, size_t n) {
    size_t contraction = contraction_length(text, n);
    if (contraction) return contraction;
    size_t start = text[0] == ' ' && n > 1, length;
    int class = class_at(text + start, n - start, &length);
    return class == SPACE ? spaces_length(text, n) : run_end(text, start + length, n, class);
}
