/* dtype.h - the dtypes of weights, as GGUF files store them: rows of floats, rows of blocks of quantized values that
 * share scales, or tiles of rows that have a scale each (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md;
 * ggml's ggml-common.h). */
#ifndef FASTGPT_DTYPE_H
#define FASTGPT_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

/* Every type, in one list.  A line is DTYPE(NAME, name, block, block_values): TYPE_NAME here, FASTGPT_TYPE_NAME in the
 * public header and "NAME" for people; name in names of functions; the C type of a block, and the values in one. Tables
 * and functions that need something of every type are made from these lists, so that the compiler misses what a new
 * line has not got. */

/* Floats: a block is one value. */
#define FLOAT_DTYPES(DTYPE)      \
    DTYPE(F32, f32, float, 1)    \
    DTYPE(F16, f16, uint16_t, 1) \
    DTYPE(BF16, bf16, uint16_t, 1)

/* Blocks of quantized values that share scales. */
#define BLOCK_DTYPES(DTYPE)           \
    DTYPE(Q8_0, q8_0, block_q8_0, 32) \
    DTYPE(Q4_0, q4_0, block_q4_0, 32) \
    DTYPE(Q6_K, q6_k, block_q6_k, 256)

/* Tiles of whole rows of quantized values; the scales of the rows are a tensor of their own. */
#define TILE_DTYPES(DTYPE) DTYPE(I8, i8, tile_line_i8, 64)

/* Blocks that only files have: no kernel computes with them (dequantize.h). */
#define FILE_DTYPES(DTYPE)             \
    DTYPE(Q4_1, q4_1, block_q4_1, 32)  \
    DTYPE(Q5_0, q5_0, block_q5_0, 32)  \
    DTYPE(Q5_1, q5_1, block_q5_1, 32)  \
    DTYPE(Q4_K, q4_k, block_q4_k, 256) \
    DTYPE(Q5_K, q5_k, block_q5_k, 256)

/* What KV caches hold. */
#define KV_DTYPES(DTYPE) FLOAT_DTYPES(DTYPE) DTYPE(Q8_0, q8_0, block_q8_0, 32)

#define KERNEL_DTYPES(DTYPE) FLOAT_DTYPES(DTYPE) BLOCK_DTYPES(DTYPE)
#define ALL_DTYPES(DTYPE) KERNEL_DTYPES(DTYPE) TILE_DTYPES(DTYPE) FILE_DTYPES(DTYPE)

#define DTYPE_VALUE(NAME, name, block, block_values) TYPE_##NAME,
#define DTYPE_COUNT(NAME, name, block, block_values) +1
typedef enum dtype {
    ALL_DTYPES(DTYPE_VALUE) N_DTYPES,
    N_FLOAT_DTYPES = 0 FLOAT_DTYPES(DTYPE_COUNT),
    N_KERNEL_DTYPES = 0 KERNEL_DTYPES(DTYPE_COUNT)
} dtype;

/* The lists follow each other, so each kind of type is a range. */
static inline bool is_float(dtype type) { return type < N_FLOAT_DTYPES; }
static inline bool is_kv_type(dtype type) { return is_float(type) || type == TYPE_Q8_0; }
static inline bool has_row_scales(dtype type) { return type == TYPE_I8; }
static inline bool is_file_only(dtype type) { return type > TYPE_I8; }

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

/* What kernels subtract from the integers of a block; those of Q8_0 are signed. */
enum { ZERO_POINT_Q8_0 = 0, ZERO_POINT_Q4_0 = 8, ZERO_POINT_Q6_K = 32 };

/* Four weights of each of sixteen rows: w[r][k] = d[r] * (q[r][k] - 128), with F32 scales d.  A tile has the lines of
 * sixteen rows one behind another, [n_in / 4] of them, so that an instruction which adds four products of bytes finds
 * one output a lane, and 64 values of k are a tile of AMX.  The last tile of a matrix is whole: what is beyond the last
 * row counts nowhere. */
enum { I8_TILE_ROWS = 16, I8_LINE_K = 4, I8_ZERO_POINT = 128, I8_BLOCK_K = 64 };

typedef struct tile_line_i8 {
    uint8_t q[I8_TILE_ROWS][I8_LINE_K];
} tile_line_i8;

/* Of sums of n_in products in 32 bits; a multiple of I8_BLOCK_K, as every n_in must be. */
enum { I8_MAX_IN = 65536 };

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

_Static_assert(sizeof(block_q8_0) == 34 && sizeof(block_q4_0) == 18 && sizeof(block_q6_k) == 210, "no padding");
_Static_assert(sizeof(tile_line_i8) == 64, "no padding");
_Static_assert(sizeof(block_q4_1) == 20 && sizeof(block_q5_0) == 22 && sizeof(block_q5_1) == 24, "no padding");
_Static_assert(sizeof(block_q4_k) == 144 && sizeof(block_q5_k) == 176, "no padding");

typedef struct dtype_info {
    const char *name; /* "F32" ... as GGUF's own tools write it */
    uint32_t gguf_type; /* its number in the file, a fastgpt_type */
    int32_t block_values; /* values in a block; rows are whole blocks */
    int32_t block_bytes;
} dtype_info;

extern const dtype_info dtype_infos[N_DTYPES];

/* The type with that number in files; false when it is none of these. */
bool dtype_of_gguf(uint32_t gguf_type, dtype *out);

/* Bytes of a row of n values, n a multiple of block_values. */
static inline int64_t row_bytes(dtype type, int64_t n) {
    return n / dtype_infos[type].block_values * dtype_infos[type].block_bytes;
}

#endif
