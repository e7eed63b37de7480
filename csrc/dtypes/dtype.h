/* dtype.h - the number types of weights, as GGUF files store them: rows of numbers, or rows of blocks of numbers that
 * share scales (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; ggml's ggml-common.h). */
#ifndef FASTGPT_DTYPE_H
#define FASTGPT_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

/* In the order of the tables that are indexed by them; the first three are types of KV caches, too.  From
 * N_NUMBER_TYPES on: types that only files have, and no kernel computes with (dequantize.h). */
typedef enum number_type {
    TYPE_F32,
    TYPE_F16,
    TYPE_BF16,
    TYPE_Q8_0,
    TYPE_Q4_0,
    TYPE_Q6_K,
    N_NUMBER_TYPES,
    TYPE_Q4_1 = N_NUMBER_TYPES,
    TYPE_Q5_0,
    TYPE_Q5_1,
    TYPE_Q4_K,
    TYPE_Q5_K,
    N_FILE_TYPES
} number_type;

/* 32 weights: w[i] = d * q[i] */
typedef struct block_q8_0 {
    uint16_t d; /* F16 */
    int8_t q[32];
} block_q8_0;

/* 32 weights: w[i] = d * ((q[i] & 15) - 8), w[i + 16] = d * ((q[i] >> 4) - 8), i < 16 */
typedef struct block_q4_0 {
    uint16_t d; /* F16 */
    uint8_t q[16];
} block_q4_0;

/* 256 weights of 6 bits, in two halves of 128.  In half h, for l < 32 and j < 4, weight 128 h + 32 j + l is
 *     d * scales[8 h + 2 j + l / 16] * ((low | high << 4) - 32), where
 *     low  = 4 bits of low[64 h + 32 (j % 2) + l], the upper ones for j >= 2
 *     high = bits 2 j and 2 j + 1 of high[32 h + l] */
typedef struct block_q6_k {
    uint8_t low[128];
    uint8_t high[64];
    int8_t scales[16];
    uint16_t d; /* F16 */
} block_q6_k;

/* 32 weights: w[i] = d * nibble i + m; nibbles as in block_q4_0 */
typedef struct block_q4_1 {
    uint16_t d, m; /* F16 */
    uint8_t q[16];
} block_q4_1;

/* 32 weights: w[i] = d * (nibble i + 16 * bit i of high - 16) */
typedef struct block_q5_0 {
    uint16_t d; /* F16 */
    uint8_t high[4];
    uint8_t q[16];
} block_q5_0;

/* 32 weights: w[i] = d * (nibble i + 16 * bit i of high) + m */
typedef struct block_q5_1 {
    uint16_t d, m; /* F16 */
    uint8_t high[4];
    uint8_t q[16];
} block_q5_1;

/* 256 weights in eight groups of 32.  Weight l of group g is (d * scale g) * nibble - (d_min * minimum g), where nibble
 * is the lower (g even) or upper half of q[32 (g / 2) + l].  Scales and minima have 6 bits:
 *     for g < 4   scale = lower 6 bits of packed[g], minimum = lower 6 bits of packed[g + 4]
 *     for g >= 4  scale = lower 4 bits of packed[g + 4] and the upper 2 of packed[g - 4],
 *                 minimum = upper 4 bits of packed[g + 4] and the upper 2 of packed[g] */
typedef struct block_q4_k {
    uint16_t d, d_min; /* F16 */
    uint8_t packed[12];
    uint8_t q[128];
} block_q4_k;

/* The same, and 16 more where bit g of high[l] is set. */
typedef struct block_q5_k {
    uint16_t d, d_min; /* F16 */
    uint8_t packed[12];
    uint8_t high[32];
    uint8_t q[128];
} block_q5_k;

typedef struct number_format {
    const char *name;      /* "F32" ... as GGUF's own tools write it */
    uint32_t gguf_type;    /* its number in the file, a fastgpt_type */
    int32_t block_numbers; /* numbers in a block; rows are whole blocks */
    int32_t block_bytes;
} number_format;

extern const number_format number_formats[N_FILE_TYPES];

/* The type with that number in files; false when it is none of these. */
bool number_type_of(uint32_t gguf_type, number_type *out);

/* Bytes of a row of n numbers, n a multiple of block_numbers. */
static inline int64_t row_bytes(number_type type, int64_t n) {
    return n / number_formats[type].block_numbers * number_formats[type].block_bytes;
}

#endif
