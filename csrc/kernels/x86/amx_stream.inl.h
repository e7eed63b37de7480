/* amx_stream.inl.h - products of few tokens, whose time is that of reading the weights: the sixteen rows of a tile are
 * not neighbours, but the heads of sixteen streams, each of which is a run of contiguous rows.  BF16 weights are loaded
 * into tiles from where they are; blocks are unpacked on the way, 32 values of a row at a time.  The sums are those of
 * amx_tiles.inl.h, to the bit. */
#ifndef FASTGPT_AMX_STREAM_INL_H
#define FASTGPT_AMX_STREAM_INL_H

#include "kernels/x86/amx_tiles.inl.h"
#include "kernels/x86/bf16.inl.h"

_Static_assert(STREAM_TOKENS == 4 * MATRIX_LANES, "their sums are four tiles");

enum {
    LD_SUMS = MATRIX_TOKENS * sizeof(float), /* bytes */
    STREAM_ROWS = 128,   /* of sixteen streams, at most */
    PREFETCHED_BYTES = 256, /* of each stream, ahead of what is read */
    PAGE_BYTES = 4096
};

/* Streams of rows, each of which gives a tile MATRIX_K values at a time. */
typedef struct streams {
    dtype type;
    int n, rows_each; /* streams, rows of each */
    int64_t ld, apart; /* bytes from a row to the next, and from a stream to the next */
    int64_t bytes;     /* of MATRIX_K values */
    int n_in;
} streams;

/* Two tiles of unpacked weights, one of which is filled while the other is multiplied.  A load may wait for a store to
 * the same offset in another page, and unpacking stores all the time: with the tiles a page apart, the stores to both
 * delay the same few loads. */
typedef struct unpacked_tiles {
    _Alignas(PAGE_BYTES) uint16_t tile[2][PAGE_BYTES / sizeof(uint16_t)];
} unpacked_tiles;

typedef void unpack_block(uint16_t *out, const void *block);

/* A block of each of sixteen streams. */
ALWAYS_INLINE void unpack_blocks(unpack_block *unpack, uint16_t *tile, const char *at, int64_t apart) {
#pragma GCC unroll 16
    for (int s = 0; s < TILE_ROWS; s++) unpack(tile + s * MATRIX_K, at + s * apart);
}

/* n <= MATRIX_K values of each stream. */
static void unpack_tile(uint16_t *tile, const streams *s, const char *at, int n) {
    if (s->type == TYPE_Q8_0 && s->n == TILE_ROWS) unpack_blocks(bf16_block_q8_0, tile, at, s->apart);
    else if (s->type == TYPE_Q4_0 && s->n == TILE_ROWS) unpack_blocks(bf16_block_q4_0, tile, at, s->apart);
    else
        for (int i = 0; i < s->n; i++) bf16_rows[s->type](tile + i * MATRIX_K, at + i * s->apart, n);
}

/* What each stream reads next, where `left` of its bytes remain: after its end, the rows of the next streams. */
static inline void prefetch_streams_at(const streams *s, const char *at, int64_t left) {
    const int64_t ahead = left > PREFETCHED_BYTES ? PREFETCHED_BYTES : PREFETCHED_BYTES + (TILE_ROWS - 1) * s->apart;
#pragma GCC unroll 16
    for (int i = 0; i < TILE_ROWS; i++) __builtin_prefetch(at + ahead + i * s->apart, 0, 3);
}

/* Tile 4 times the tokens of each panel. */
ALWAYS_INLINE void multiply_panels(const uint16_t *x, int64_t panel, int n_panels) {
    _tile_loadd(5, x, TILE_BYTES);
    _tile_dpbf16ps(0, 4, 5);
    if (n_panels == 1) return;
    _tile_loadd(6, x + panel, TILE_BYTES);
    _tile_dpbf16ps(1, 4, 6);
    if (n_panels == 2) return;
    _tile_loadd(7, x + 2 * panel, TILE_BYTES);
    _tile_dpbf16ps(2, 4, 7);
    if (n_panels == 3) return;
    _tile_loadd(5, x + 3 * panel, TILE_BYTES);
    _tile_dpbf16ps(3, 4, 5);
}

/* Where a row of each stream is read. */
typedef struct stream_position {
    const char *at;
    int64_t left;       /* bytes of the streams */
    int64_t prefetched; /* bytes that are prefetched already */
} stream_position;

/* BF16 values of a row of each stream, as far as they fill tiles; returns how many. */
static int multiply_in_place(const streams *s, stream_position *p, const uint16_t *x, int64_t panel, int n_panels) {
    int k = 0;
    for (; k + MATRIX_K <= s->n_in; k += MATRIX_K, p->at += TILE_BYTES, p->left -= TILE_BYTES) {
        prefetch_streams_at(s, p->at, p->left);
        _tile_loadd(4, p->at, s->apart);
        multiply_panels(x + (int64_t)k * MATRIX_LANES, panel, n_panels);
    }
    return k;
}

/* The next MATRIX_K values of each stream, or the last n of their rows. */
static inline void unpack_next(const streams *s, stream_position *p, uint16_t *tile, int n) {
    if (p->prefetched <= 0) prefetch_streams_at(s, p->at, p->left), p->prefetched += LINE;
    unpack_tile(tile, s, p->at, min_int(n, MATRIX_K));
    p->at += s->bytes;
    p->left -= s->bytes;
    p->prefetched -= s->bytes;
}

/* Values [k, n_in) of a row of each stream.  A tile's stores have time to end while the one before is multiplied. */
static void multiply_unpacked(const streams *s, stream_position p, unpacked_tiles *w, int k, const uint16_t *x,
                              int64_t panel, int n_panels) {
    unpack_next(s, &p, w->tile[0], s->n_in - k);
    for (int i = 0; k < s->n_in; k += MATRIX_K, i = !i) {
        if (k + MATRIX_K < s->n_in) unpack_next(s, &p, w->tile[!i], s->n_in - k - MATRIX_K);
        _tile_loadd(4, w->tile[i], TILE_BYTES);
        multiply_panels(x + (int64_t)k * MATRIX_LANES, panel, n_panels);
    }
}

/* Sums of MATRIX_TOKENS tokens each: [STREAM_ROWS][MATRIX_TOKENS]. */
typedef float stream_sums[STREAM_ROWS * MATRIX_TOKENS];

ALWAYS_INLINE void store_panel_sums(stream_sums *sums, const streams *s, int row, int n_panels) {
    const int ld = s->rows_each * LD_SUMS;
    float *first = sums[0] + row * MATRIX_TOKENS, *second = sums[1] + row * MATRIX_TOKENS;
    _tile_stored(0, first, ld);
    if (n_panels > 1) _tile_stored(1, first + MATRIX_LANES, ld);
    if (n_panels > 2) _tile_stored(2, second, ld);
    if (n_panels > 3) _tile_stored(3, second + MATRIX_LANES, ld);
}

static void multiply_streams(stream_sums *sums, const streams *s, const char *w, unpacked_tiles *tiles,
                             const uint16_t *x, int64_t panel, int n_panels) {
    const bool in_place = s->type == TYPE_BF16 && s->n == TILE_ROWS;
    for (int row = 0; row < s->rows_each; row++, w += s->ld) {
        stream_position p = {.at = w, .left = s->apart - row * s->ld};
        zero_sums();
        const int k = in_place ? multiply_in_place(s, &p, x, panel, n_panels) : 0;
        if (k < s->n_in) multiply_unpacked(s, p, tiles, k, x, panel, n_panels);
        store_panel_sums(sums, s, row, n_panels);
    }
}

/* Outputs are written after the weights have been read, so there is time to prefetch them: that saves 0.4 of 3 ms for
 * 32 rows of logits. */
static void prefetch_outputs(const float *out, int64_t ldo, int n_tokens, int n) {
    for (int t = 0; t < n_tokens; t++)
        for (int i = 0; i < n; i += LINE / (int)sizeof *out) __builtin_prefetch(out + t * ldo + i, 1, 3);
}

/* Transposed pairs: those of a token become a column. */
static void bf16_stream_panel(uint16_t *panel, const float *x, int64_t ldx, int n_tokens, int n_in) {
    for (int k = 0; k < n_in; k += MATRIX_K) {
        __m512i row[MATRIX_LANES];
#pragma GCC unroll 16
        for (int t = 0; t < MATRIX_LANES; t++)
            row[t] = t < n_tokens ? bf16_of_first(x + t * ldx + k, n_in - k) : _mm512_setzero_si512();
        transpose_16(row);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) _mm512_storeu_si512(panel + (int64_t)k * MATRIX_LANES + 32 * i, row[i]);
    }
}

/* `left` rows from the first on: as many as make sixteen streams of equal length, or what is left, as one tile. */
static streams streams_from(row_view w, dtype type, int left, int n_in) {
    const int rows_each = left < TILE_ROWS ? 1 : left / TILE_ROWS;
    return (streams){.type = type,
                     .n = min_int(left, TILE_ROWS),
                     .rows_each = rows_each,
                     .ld = w.ld,
                     .apart = rows_each * w.ld,
                     .bytes = row_bytes(type, MATRIX_K),
                     .n_in = n_in};
}

static void bf16_stream(const bf16_output *to, const uint16_t *x, row_view w, dtype type, gemm_size size) {
    _Alignas(64) stream_sums sums[STREAM_TOKENS / MATRIX_TOKENS];
    unpacked_tiles tiles;
    const int n_tokens = size.n_tokens;
    const int64_t panel = round_up(size.n_in, MATRIX_K) * MATRIX_LANES;
    begin_products();
    for (int r = 0, n; r < size.n_rows; r += n) {
        const streams s = streams_from(w, type, min_int(size.n_rows - r, STREAM_ROWS), size.n_in);
        n = s.n * s.rows_each;
        prefetch_outputs(to->out + r, to->ldo, n_tokens, n);
        multiply_streams(sums, &s, rows_from(w, r).at, &tiles, x, panel, n_tiles(n_tokens, MATRIX_LANES));
        for (int t = 0; t < n_tokens; t += MATRIX_TOKENS)
            store_transposed(to->out + t * to->ldo + r, to->ldo, to->bias ? to->bias + r : NULL, to->add,
                             sums[t / MATRIX_TOKENS], min_int(n_tokens - t, MATRIX_TOKENS), n);
    }
    end_products();
}

#endif
