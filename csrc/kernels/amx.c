/* amx.c - avx512_bf16.c with AMX tiles for many tokens. */
#define WIDTH 8
#define ROWS 4
#define TOKENS 4
#define STREAMS 8
#define STREAMED(type, n_tokens) ((n_tokens) == 1 || (type) <= TYPE_BF16)
#define STREAM_AHEAD 512
#define FETCH_LEVEL 2
#define FETCH_BEYOND 2048
#include "x86.h"

#include "avx512_math.h"
#include "simd.h"

#include "amx_tiles.h"
#include "bf16.h"

#include "amx_stream.h"

#include "matrix_floats.h"

#include "stream_floats.h"

static bf16_product product;

static const bf16_kernels bf16 = {.product = product,
                                  .streams = {[TYPE_BF16] = true, [TYPE_Q8_0] = true, [TYPE_Q4_0] = true},
                                  .panel = bf16_panel,
                                  .columns = bf16_columns};

static void product(float *out, int64_t ldo, const float *bias, bool add, const uint16_t *x, const void *w, int64_t ldw,
                    number_type type, int n_tokens, int n_rows, int n_in, int n_behind) {
    if (n_tokens <= STREAM_TOKENS && bf16.streams[type])
        stream_product(out, ldo, bias, add, x, w, ldw, type, n_tokens, n_rows, n_in);
    else product_by_pieces(out, ldo, bias, add, x, w, ldw, type, n_tokens, n_rows, n_in, n_behind);
}

const kernels kernels_amx = KERNELS("amx", "amx", &bf16, NULL, &float_products);
