/* amx.c - avx512_bf16.c with AMX tiles for many tokens. */
#define WIDTH 8
#define ROWS 4
#define TOKENS 4
#define STREAMS 8
#define STREAMED(type, n_tokens) ((n_tokens) == 1 || is_float(type))
#define STREAM_AHEAD 512
#define PREFETCH_LEVEL 2
#define PREFETCH_BEYOND 2048
#include "kernels/x86/x86.inl.h"

#include "kernels/x86/tile_strides.h"
#include "kernels/x86/avx512_math.h"
#include "kernels/generic/simd.inl.h"

#include "kernels/x86/amx_tiles.inl.h"
#include "kernels/x86/bf16.inl.h"

#include "kernels/x86/amx_stream.inl.h"

#include "kernels/x86/gemm_f32.inl.h"

#include "kernels/x86/stream_f32.inl.h"

static const bf16_kernels bf16 = {.panel = bf16_panel,
                                  .tiles = bf16_tiles,
                                  .columns = bf16_columns,
                                  .softmax_panel = bf16_softmax_panel,
                                  .gemm = bf16_gemm,
                                  .stream = bf16_stream,
                                  .stream_panel = bf16_stream_panel,
                                  .streams = {[TYPE_BF16] = true, [TYPE_Q8_0] = true, [TYPE_Q4_0] = true}};

const kernels kernels_amx = KERNELS("amx", "amx", &bf16, NULL, &float_products);
