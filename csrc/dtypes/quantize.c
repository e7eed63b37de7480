/* quantize.c - F32 rows to the dtypes of weights, and back.  The formulas are those of the PyPI package gguf
 * (gguf/quants.py) and of ggml's reference (ggml-quants.c), to the bit; so this file is compiled without fused
 * multiply-adds, which round once less. */
#include "dtypes/quantize.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "fastgpt.h"
#include "dtypes/dequantize.h"
#include "dtypes/from_f32.h"
#include "dtypes/half.h"

/* ---- F32 -> blocks ---- */

/* The factor that takes values to their integers.  That of a block of zeros does not matter, but it must be finite. */
static float inverse_of(float d) { return d == 0 ? 0 : 1 / d; }

/* To the nearest, halves away from zero, as roundf; |x| < 2^31. */
static int32_t round_half_away(float x) {
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
    for (int i = 0; i < 32; i++) out->q[i] = (int8_t)round_half_away(x[i] * inverse);
}

/* In [0, 15]; 8 stands for zero. */
static uint8_t nibble(float x, float inverse) {
    int32_t q = (int32_t)(x * inverse + 8.5f);
    return (uint8_t)(q < 15 ? q : 15);
}

/* The value of the largest magnitude, the first of equals, becomes -8: the only integer of that magnitude. */
static void quantize_q4_0(block_q4_0 *out, const float *x) {
    float largest = x[0];
    for (int i = 1; i < 32; i++) largest = fabsf(x[i]) > fabsf(largest) ? x[i] : largest;
    float d = largest / -8, inverse = inverse_of(d);
    out->d = f16_of_f32(d);
    memset(out->q, 0, sizeof out->q);
    if (isinf(inverse)) return; /* as in quantize_q8_0 */
    for (int i = 0; i < 16; i++) out->q[i] = (uint8_t)(nibble(x[i], inverse) | nibble(x[i + 16], inverse) << 4);
}

static void quantize_row_q8_0(void *out, const float *x, int n) {
    for (int i = 0; i < n / 32; i++) quantize_q8_0((block_q8_0 *)out + i, x + 32 * i);
}

static void quantize_row_q4_0(void *out, const float *x, int n) {
    for (int i = 0; i < n / 32; i++) quantize_q4_0((block_q4_0 *)out + i, x + 32 * i);
}

static bool f16_holds(float largest) { return f16_of_f32(largest) < 0x7C00; }
static bool f32_holds_all(float largest) { return largest <= FLT_MAX; }
static bool bf16_holds(float largest) { return bf16_of_f32(largest) < 0x7F80; }
static bool q8_0_holds(float largest) { return f16_holds(largest / 127); }
static bool q4_0_holds(float largest) { return f16_holds(largest / 8); }

/* What makes a row of each type; types without one are only read. */
static const struct encoder {
    void (*from_f32)(void *out, const float *x, int n);
    bool (*holds)(float largest); /* whether no value or scale becomes infinite; largest: a finite magnitude */
} encoders[N_DTYPES] = {
    [TYPE_F32] = {from_f32_row_f32, f32_holds_all}, [TYPE_F16] = {from_f32_row_f16, f16_holds},
    [TYPE_BF16] = {from_f32_row_bf16, bf16_holds},  [TYPE_Q8_0] = {quantize_row_q8_0, q8_0_holds},
    [TYPE_Q4_0] = {quantize_row_q4_0, q4_0_holds},
};

/* ---- The public functions ---- */

const char *fastgpt_type_name(fastgpt_type type) {
    dtype known;
    return dtype_of_gguf((uint32_t)type, &known) ? dtype_infos[known].name : "unknown";
}

int64_t fastgpt_type_row_bytes(fastgpt_type type, int32_t n) {
    dtype known;
    bool whole = dtype_of_gguf((uint32_t)type, &known) && n >= 0 && n % dtype_infos[known].block_values == 0;
    return whole && !has_row_scales(known) ? row_bytes(known, n) : 0;
}

/* Whether there are such rows, and their bytes fit into 63 bits. */
static bool rows_exist(fastgpt_type type, int64_t n_rows, int32_t n, dtype *known) {
    if (!dtype_of_gguf((uint32_t)type, known) || has_row_scales(*known) || n_rows < 0 || n < 0) return false;
    return n % dtype_infos[*known].block_values == 0 && (n == 0 || n_rows <= INT64_MAX / 4 / n);
}

/* Whether each of x [n] is finite, and no value or scale of the type becomes infinite: the largest magnitude tells. */
static bool type_holds(dtype type, const float *x, int64_t n) {
    uint32_t largest = 0; /* magnitudes are in the order of their bits, and NaN is above infinity */
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = bits_of_f32(x[i]) & 0x7FFFFFFF;
        largest = bits > largest ? bits : largest;
    }
    return largest < 0x7F800000 && encoders[type].holds(f32_of_bits(largest));
}

fastgpt_status fastgpt_quantize_rows(fastgpt_type type, const float *x, int64_t n_rows, int32_t n, void *out) {
    dtype known;
    if (!rows_exist(type, n_rows, n, &known) || !encoders[known].from_f32) return FASTGPT_ERR_ARGUMENT;
    if (n_rows == 0 || n == 0) return FASTGPT_OK;
    if (!x || !out) return FASTGPT_ERR_ARGUMENT;
    if (!type_holds(known, x, n_rows * n)) return FASTGPT_ERR_NUMBERS;
    for (int64_t r = 0; r < n_rows; r++) encoders[known].from_f32((char *)out + r * row_bytes(known, n), x + r * n, n);
    return FASTGPT_OK;
}

fastgpt_status fastgpt_dequantize_rows(fastgpt_type type, const void *values, int64_t n_rows, int32_t n, float *out) {
    dtype known;
    if (!rows_exist(type, n_rows, n, &known)) return FASTGPT_ERR_ARGUMENT;
    if (n_rows == 0 || n == 0) return FASTGPT_OK;
    if (!values || !out) return FASTGPT_ERR_ARGUMENT;
    for (int64_t r = 0; r < n_rows; r++)
        dequantize_row(known, out + r * n, (const char *)values + r * row_bytes(known, n), n);
    return FASTGPT_OK;
}

/* ---- Any type -> Q8_0 ---- */

bool requantize_to_q8_0(block_q8_0 *out, dtype type, const void *values, int64_t n) {
    enum { CHUNK = 256 }; /* a whole number of blocks of every type */
    float x[CHUNK];
    const uint8_t *from = values;
    for (int64_t i = 0; i < n; i += CHUNK) {
        int32_t n_now = n - i < CHUNK ? (int32_t)(n - i) : CHUNK;
        dequantize_row(type, x, from + row_bytes(type, i), n_now);
        if (fastgpt_quantize_rows(FASTGPT_TYPE_Q8_0, x, 1, n_now, out + i / 32)) return false;
    }
    return true;
}
