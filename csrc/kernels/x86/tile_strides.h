/* tile_strides.h - the intrinsics of AMX's loads and stores for GCC on Windows.
 *
 * GCC's own cast a stride to long, which has 32 bits there, while the instruction wants 64. */
#ifndef FASTGPT_TILE_STRIDES_H
#define FASTGPT_TILE_STRIDES_H

#include <immintrin.h>

#if defined(__MINGW32__) && defined(_tile_loadd_internal)
#undef _tile_loadd_internal
#undef _tile_stream_loadd_internal
#undef _tile_stored_internal
/* clang-format off */
#define _tile_loadd_internal(tile, base, stride) \
    __asm__ volatile("tileloadd\t(%0,%1,1), %%tmm" #tile \
                     :: "r"((const void *)(base)), "r"((long long)(stride)))
#define _tile_stream_loadd_internal(tile, base, stride) \
    __asm__ volatile("tileloaddt1\t(%0,%1,1), %%tmm" #tile \
                     :: "r"((const void *)(base)), "r"((long long)(stride)))
#define _tile_stored_internal(tile, base, stride) \
    __asm__ volatile("tilestored\t%%tmm" #tile ", (%0,%1,1)" \
                     :: "r"((void *)(base)), "r"((long long)(stride)) : "memory")
/* clang-format on */
#endif

#endif
