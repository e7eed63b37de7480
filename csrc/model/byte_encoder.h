/* byte_encoder.h - the byte encoder of GPT-2's encoder.json: a printable character for each byte, in which a model file
 * writes its tokens. */
#ifndef FASTGPT_BYTE_ENCODER_H
#define FASTGPT_BYTE_ENCODER_H

#include <stdint.h>

/* Writes the bytes that text [n] stands for to out [n] and returns their number, or -1 when the text has a character
 * that stands for no byte. */
int64_t alphabet_decode(char *out, const char *text, uint64_t n);

#endif
