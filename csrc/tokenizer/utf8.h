/* utf8.h - the next character of UTF-8 text that may be damaged. */
#ifndef FASTGPT_UTF8_H
#define FASTGPT_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Reads the character at the beginning of text [n], n >= 1, by table 3-7 of the Unicode standard.
 *   > 0  its length; *code is the code point
 *   = 0  the text ends within a character
 *   < 0  no character begins here: minus the length of the maximal part, which is what one U+FFFD stands for */
static inline int utf8_next(const uint8_t *text, size_t n, uint32_t *code) {
    uint8_t lead = text[0];
    if (lead < 0x80) {
        *code = lead;
        return 1;
    }
    int length = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
    if (length == 0) return -1;
    uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;  /* shorter forms exist below */
    uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF; /* surrogates, or beyond U+10FFFF, above */
    uint32_t c = lead & (0x7Fu >> length);
    for (int i = 1; i < length; i++) {
        if ((size_t)i == n) return 0;
        if (text[i] < low || text[i] > high) return -i;
        c = c << 6 | (text[i] & 0x3Fu);
        low = 0x80;
        high = 0xBF;
    }
    *code = c;
    return length;
}

#endif
