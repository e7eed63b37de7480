/* quantize.c - F32 rows to the number types of weights, and back.  The formulas are those of the PyPI package gguf
 * (gguf/quants.py) and of ggml's reference (ggml-quants.c), to the bit; so this file is compiled without fused
 * multiply-adds, which round once less. */
#include "dtypes/quantize.h"

#include <math.h>
#include <string.h>

#include "fastgpt.h"
#include "dtypes/dequantize.h"
#include "dtypes/from_f32.h"
#include "dtypes/half.h"

/* ---- F32 -> blocks ---- */

/* The factor that takes numbers to their integers.  That of a block of zeros does not matter, but it must be finite. */
static float inverse_of(float d) { return d == 0 ? 0 : 1 / d; }

/* To the nearest, halves away from zero, as roundf; |x| < 2^31. */
static int32_t rounded(float x) {
    int32_t whole = (int32_t)x; /* toward zero, so the rest is exact and has the sign of x */
    float rest = x - (float)whole;
    return whole + (rest >= 0.5f) - (rest <= -0.5f);
}

static void quantize_q8_0(block_q8_0 *out, const float *x) {
    float largest = 0;
    for (int i = 0; i < 32; i++) largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    float d = largest / 127, inverse = inverse_of(d);
    if (isinf(inverse)) inverse = 0; /* so small that d is zero as F16, and q without meaning: ggml has 0 there */
    out->d = f16_of_f32(d);
    for (int i = 0; i < 32; i++) out->q[i] = (int8_t)rounded(x[i] * inverse);
}

/* In [0, 15]; 8 stands for zero. */
static uint8_t nibble(float x, float inverse) {
    int32_t q = (int32_t)(x * inverse + 8.5f);
    return (uint8_t)(q < 15 ? q : 15);
}

/* The number of the largest magnitude, the first of equals, becomes -8: the only integer of that magnitude. */
static void quantize_q4_0(block_q4_0 *out, const float *x) {
    float largest = x[0];
    for (int i = 1; i < 32; i++) largest = fabsf(x[i]) > fabsf(largest) ? x[i] : largest;
    float d = largest / -8, inverse = inverse_of(d);
    out->d = f16_of_f32(d);
    memset(out->q, 0, sizeof out->q);
    if (isinf(inverse)) return; /* as in quantize_q8_0 */
    for (int i = 0; i < 16; i++) out->q[i] = (uint8_t)(nibble(x[i], inverse) | nibble(x[i + 16], inverse) << 4);
}

/* x [n] as a row of numbers of the type. */
static void quantize_row(number_type type, const float *x, int32_t n, void *out) {
    if (type == TYPE_Q8_0)
        for (int32_t i = 0; i < n / 32; i++) quantize_q8_0((block_q8_0 *)out + i, x + 32 * i);
    else if (type == TYPE_Q4_0)
        for (int32_t i = 0; i < n / 32; i++) quantize_q4_0((block_q4_0 *)out + i, x + 32 * i);
    else if (type == TYPE_F16) narrow_row_f16(out, x, n);
    else if (type == TYPE_BF16) narrow_row_bf16(out, x, n);
    else narrow_row_f32(out, x, n);
}

/* ---- The public functions ---- */

const char *fastgpt_type_name(fastgpt_type type) {
    number_type known;
    return number_type_of((uint32_t)type, &known) ? number_formats[known].name : "unknown";
}

int64_t fastgpt_type_row_bytes(fastgpt_type type, int32_t n) {
    number_type known;
    bool whole = number_type_of((uint32_t)type, &known) && n >= 0 && n % number_formats[known].block_numbers == 0;
    return whole ? row_bytes(known, n) : 0;
}

/* Whether there are such rows, and their bytes fit into 63 bits. */
static bool rows_exist(fastgpt_type type, int64_t n_rows, int32_t n, number_type *known) {
    if (!number_type_of((uint32_t)type, known) || n_rows < 0 || n < 0) return false;
    return n % number_formats[*known].block_numbers == 0 && (n == 0 || n_rows <= INT64_MAX / 4 / n);
}

/* Whether each of x [n] is finite, and no number or scale of the type becomes infinite: the largest magnitude tells. */
static bool type_holds(number_type type, const float *x, int64_t n) {
    uint32_t largest_bits = 0; /* magnitudes are in the order of their bits, and NaN is above infinity */
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = bits_of_f32(x[i]) & 0x7FFFFFFF;
        largest_bits = bits > largest_bits ? bits : largest_bits;
    }
    float largest = f32_of_bits(largest_bits);
    if (largest_bits >= 0x7F800000) return false;
    if (type == TYPE_BF16) return bf16_of_f32(largest) < 0x7F80;
    float as_f16 = type == TYPE_F16 ? largest : type == TYPE_Q8_0 ? largest / 127 : type == TYPE_Q4_0 ? largest / 8 : 0;
    return f16_of_f32(as_f16) < 0x7C00;
}

fastgpt_status fastgpt_quantize_rows(fastgpt_type type, const float *x, int64_t n_rows, int32_t n, void *out) {
    number_type known;
    if (!rows_exist(type, n_rows, n, &known) || known >= TYPE_Q6_K) return FASTGPT_ERR_ARGUMENT;
    if (n_rows == 0 || n == 0) return FASTGPT_OK;
    if (!x || !out) return FASTGPT_ERR_ARGUMENT;
    if (!type_holds(known, x, n_rows * n)) return FASTGPT_ERR_NUMBERS;
    for (int64_t r = 0; r < n_rows; r++) quantize_row(known, x + r * n, n, (char *)out + r * row_bytes(known, n));
    return FASTGPT_OK;
}

fastgpt_status fastgpt_dequantize_rows(fastgpt_type type, const void *numbers, int64_t n_rows, int32_t n, float *out) {
    number_type known;
    if (!rows_exist(type, n_rows, n, &known)) return FASTGPT_ERR_ARGUMENT;
    if (n_rows == 0 || n == 0) return FASTGPT_OK;
    if (!numbers || !out) return FASTGPT_ERR_ARGUMENT;
    for (int64_t r = 0; r < n_rows; r++)
        widen_row(known, out + r * n, (const char *)numbers + r * row_bytes(known, n), n);
    return FASTGPT_OK;
}

/* ---- Any type -> Q8_0 ---- */

bool recode_to_q8_0(block_q8_0 *out, number_type type, const void *numbers, int64_t n) {
    enum { AT_ONCE = 256 }; /* a whole number of blocks of every type */
    float x[AT_ONCE];
    const uint8_t *from = numbers;
    for (int64_t i = 0; i < n; i += AT_ONCE) {
        int32_t n_now = n - i < AT_ONCE ? (int32_t)(n - i) : AT_ONCE;
        widen_row(type, x, from + row_bytes(type, i), n_now);
        if (fastgpt_quantize_rows(FASTGPT_TYPE_Q8_0, x, 1, n_now, out + i / 32)) return false;
    }
    return true;
}
