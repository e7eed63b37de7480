/* amx_stream.inl.h - products of few tokens, which take as long as memory takes to give the weights: rows are no tile
 * side by side but sixteen streams, each of which goes through many rows that lie behind each other.  BF16 numbers are
 * multiplied where they lie; blocks are unpacked on the way, 32 numbers of a row at a time.  The sums are those of
 * amx_tiles.inl.h, to the bit. */
#ifndef FASTGPT_AMX_STREAM_INL_H
#define FASTGPT_AMX_STREAM_INL_H

#include "kernels/x86/amx_tiles.inl.h"
#include "kernels/x86/bf16.inl.h"

_Static_assert(STREAM_TOKENS == 4 * MATRIX_LANES, "their sums are four tiles");

enum {
    LD_SUMS = MATRIX_TOKENS * sizeof(float), /* bytes */
    STREAM_ROWS = 128,   /* that sixteen streams go through, at most */
    FETCHED_AHEAD = 256, /* bytes in each stream */
    PAGE_BYTES = 4096
};

/* Streams that meet the tokens: one each MATRIX_K numbers, and the rows behind it. */
typedef struct streams {
    dtype type;
    int n, rows_each; /* streams, rows of each */
    int64_t ld, apart; /* bytes from a row to the next, and from a stream to the next */
    int64_t bytes;     /* of MATRIX_K numbers */
    int n_in;
} streams;

/* Two tiles of unpacked weights, one of which is filled while the other is multiplied.  A load may wait for a store
 * that has the same place in another page, and what is unpacked is stored all the time: a page apart, both are in the
 * way of the same few loads. */
typedef struct unpacked_tiles {
    _Alignas(PAGE_BYTES) uint16_t tile[2][PAGE_BYTES / sizeof(uint16_t)];
} unpacked_tiles;

typedef void unpack_block(uint16_t *out, const void *block);

/* A block of each of sixteen streams. */
ALWAYS_INLINE void unpack_blocks(unpack_block *unpack, uint16_t *tile, const char *at, int64_t apart) {
#pragma GCC unroll 16
    for (int s = 0; s < TILE_ROWS; s++) unpack(tile + s * MATRIX_K, at + s * apart);
}

/* n <= MATRIX_K numbers of each stream. */
static void unpack_tile(uint16_t *tile, const streams *s, const char *at, int n) {
    if (s->type == TYPE_Q8_0 && s->n == TILE_ROWS) unpack_blocks(bf16_block_q8_0, tile, at, s->apart);
    else if (s->type == TYPE_Q4_0 && s->n == TILE_ROWS) unpack_blocks(bf16_block_q4_0, tile, at, s->apart);
    else
        for (int i = 0; i < s->n; i++) bf16_rows[s->type](tile + i * MATRIX_K, at + i * s->apart, n);
}

/* What each stream reads next, where so many of its bytes are left: behind its end the rows of the next streams. */
static inline void fetch_lines(const streams *s, const char *at, int64_t left) {
    const int64_t ahead = left > FETCHED_AHEAD ? FETCHED_AHEAD : FETCHED_AHEAD + (TILE_ROWS - 1) * s->apart;
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
typedef struct place {
    const char *at;
    int64_t left;    /* bytes of the streams */
    int64_t fetched; /* bytes that were */
} place;

/* Numbers of BF16 in a row of each stream, as far as they fill tiles; returns how many they are. */
static int multiply_in_place(const streams *s, place *p, const uint16_t *x, int64_t panel, int n_panels) {
    int k = 0;
    for (; k + MATRIX_K <= s->n_in; k += MATRIX_K, p->at += TILE_BYTES, p->left -= TILE_BYTES) {
        fetch_lines(s, p->at, p->left);
        _tile_loadd(4, p->at, s->apart);
        multiply_panels(x + (int64_t)k * MATRIX_LANES, panel, n_panels);
    }
    return k;
}

/* The next MATRIX_K numbers of each stream, or the last n of their rows. */
static inline void unpack_next(const streams *s, place *p, uint16_t *tile, int n) {
    if (p->fetched <= 0) fetch_lines(s, p->at, p->left), p->fetched += LINE;
    unpack_tile(tile, s, p->at, min_int(n, MATRIX_K));
    p->at += s->bytes;
    p->left -= s->bytes;
    p->fetched -= s->bytes;
}

/* Numbers [k, n_in) of a row of each stream.  A tile's stores have time to end while the one before is multiplied. */
static void multiply_unpacked(const streams *s, place p, unpacked_tiles *w, int k, const uint16_t *x, int64_t panel,
                              int n_panels) {
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
        place p = {.at = w, .left = s->apart - row * s->ld};
        zero_sums();
        const int k = in_place ? multiply_in_place(s, &p, x, panel, n_panels) : 0;
        if (k < s->n_in) multiply_unpacked(s, p, tiles, k, x, panel, n_panels);
        store_panel_sums(sums, s, row, n_panels);
    }
}

/* They are written when the weights have been read: time to fetch them, which saves 0.4 of 3 ms for 32 rows of logits.
 */
static void fetch_outputs(const float *out, int64_t ldo, int n_tokens, int n) {
    for (int t = 0; t < n_tokens; t++)
        for (int i = 0; i < n; i += LINE / (int)sizeof *out) __builtin_prefetch(out + t * ldo + i, 1, 3);
}

/* Pairs of a token become rows of pairs. */
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

/* Rows are streams as far as sixteen of them can be as long as each other; those that are left are a tile. */
static void bf16_stream(const bf16_output *to, const uint16_t *x, const void *w, int64_t ldw, dtype type, int n_tokens,
                        int n_rows, int n_in) {
    _Alignas(64) stream_sums sums[STREAM_TOKENS / MATRIX_TOKENS];
    unpacked_tiles tiles;
    const int64_t panel = round_up(n_in, MATRIX_K) * MATRIX_LANES;
    begin_products();
    for (int r = 0, n; r < n_rows; r += n) {
        const int left = min_int(n_rows - r, STREAM_ROWS), rows_each = left < TILE_ROWS ? 1 : left / TILE_ROWS;
        n = min_int(left, rows_each * TILE_ROWS);
        const streams s = {.type = type,
                           .n = min_int(n, TILE_ROWS),
                           .rows_each = rows_each,
                           .ld = ldw,
                           .apart = rows_each * ldw,
                           .bytes = row_bytes(type, MATRIX_K),
                           .n_in = n_in};
        fetch_outputs(to->out + r, to->ldo, n_tokens, n);
        multiply_streams(sums, &s, (const char *)w + r * ldw, &tiles, x, panel, n_tiles(n_tokens, MATRIX_LANES));
        for (int t = 0; t < n_tokens; t += MATRIX_TOKENS)
            put_transposed(to->out + t * to->ldo + r, to->ldo, to->bias ? to->bias + r : NULL, to->add,
                           sums[t / MATRIX_TOKENS], min_int(n_tokens - t, MATRIX_TOKENS), n);
    }
    end_products();
}

#endif
