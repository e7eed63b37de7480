/* byte_encoder.h - GPT-2's byte alphabet, in which a model file writes its tokens: one character for each byte. */
#ifndef FASTGPT_BYTE_ENCODER_H
#define FASTGPT_BYTE_ENCODER_H

#include <stdint.h>

/* Writes the bytes that text [n] stands for to out [n] and returns their number, or -1 when the text has a character
 * outside the alphabet. */
int64_t alphabet_decode(char *out, const char *text, uint64_t n);

#endif
