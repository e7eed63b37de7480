/* byte_encoder.c - see byte_encoder.h. */
#include "model/byte_encoder.h"

/* The byte that a character stands for, -1 for a character outside the alphabet.  Printable Latin-1 stands for itself;
 * the other 68 bytes, in rising order, are U+0100, U+0101 ... (encoder.py of https://github.com/openai/gpt-2). */
static int byte_of_character(uint32_t c) {
    if ((c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF)) return (int)c;
    if (c < 0x100 || c >= 0x100 + 68) return -1;
    uint32_t i = c - 0x100;
    if (i <= 0x20) return (int)i;                     /* 00..20 */
    if (i <= 0x20 + 34) return (int)(i - 0x21 + 0x7F); /* 7F..A0 */
    return 0xAD;
}

/* Every character of the alphabet has one or two bytes of UTF-8. */
int64_t alphabet_decode(char *out, const char *text, uint64_t n) {
    int64_t n_out = 0;
    for (uint64_t i = 0; i < n; n_out++) {
        uint32_t c = (uint8_t)text[i++];
        if (c >= 0xC2 && c <= 0xDF && i < n && ((uint8_t)text[i] & 0xC0) == 0x80)
            c = (c & 0x1F) << 6 | ((uint8_t)text[i++] & 0x3F);
        else if (c >= 0x80) return -1;
        int byte = byte_of_character(c);
        if (byte < 0) return -1;
        out[n_out] = (char)byte;
    }
    return n_out;
}
