/* reference_bf16.h - the BF16 kernels of kernels.h as plain loops, so that what is built on them runs on any CPU. */
#ifndef FASTGPT_REFERENCE_BF16_H
#define FASTGPT_REFERENCE_BF16_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/arithmetic.h"
#include "dtypes/half.h"
#include "kernels/kernels.h"

enum { TILE_VALUES = 16 * MATRIX_K }; /* of sixteen rows or tokens */

/* ---- Where a value is ---- */

/* Column i of token t, from the first value of the panels on, whose distance is ld. */
static inline int64_t panel_index(int64_t ld, int t, int i) {
    return t / MATRIX_LANES * ld + i / MATRIX_K * TILE_VALUES + t % MATRIX_LANES * MATRIX_K + i % MATRIX_K;
}

/* Column i of row r of packed weights; ld is the distance of the tiles of MATRIX_ROWS rows. */
static inline int64_t tile_index(int64_t ld, int r, int i) {
    int64_t tile = r / MATRIX_ROWS * ld + (i / MATRIX_K * 2 + r % MATRIX_ROWS / 16) * TILE_VALUES;
    return tile + i % MATRIX_K / 2 * 32 + r % 16 * 2 + i % 2;
}

/* ---- Packing ---- */

static inline void reference_panel(uint16_t *panel, const float *x, int64_t ldx, int n_tokens, int n_in) {
    memset(panel, 0, (size_t)(MATRIX_LANES * round_up(n_in, MATRIX_K)) * sizeof *panel);
    for (int t = 0; t < n_tokens; t++)
        for (int i = 0; i < n_in; i++) panel[panel_index(0, t, i)] = bf16_of_f32(x[t * ldx + i]);
}

static inline void reference_stream_panel(uint16_t *panel, const float *x, int64_t ldx, int n_tokens, int n_in) {
    memset(panel, 0, (size_t)(MATRIX_LANES * round_up(n_in, MATRIX_K)) * sizeof *panel);
    for (int t = 0; t < n_tokens; t++)
        for (int i = 0; i < n_in; i++) panel[i / 2 * 2 * MATRIX_LANES + t * 2 + i % 2] = bf16_of_f32(x[t * ldx + i]);
}

static inline void reference_tiles(uint16_t *tiles, const void *w, int64_t ldw, dtype type, int n_rows, int n) {
    const int64_t ld = MATRIX_ROWS * round_up(n, MATRIX_K);
    float *row = malloc((size_t)n * sizeof *row);
    if (!row) abort();
    memset(tiles, 0, (size_t)(n_tiles(n_rows, MATRIX_ROWS) * ld) * sizeof *tiles);
    for (int r = 0; r < n_rows; r++) {
        kernels_portable.to_f32[type](row, (const uint8_t *)w + r * ldw, n);
        for (int i = 0; i < n; i++) tiles[tile_index(ld, r, i)] = bf16_of_f32(row[i]);
    }
    free(row);
}

static inline void reference_columns(uint16_t *tiles, int64_t ld, const float *x, int64_t ldx, int n_rows, int n) {
    for (int c = 0; c < round_up(n, MATRIX_ROWS); c++)
        for (int r = 0; r < round_up(n_rows, MATRIX_K); r++)
            tiles[tile_index(ld, c, r)] = c < n && r < n_rows ? bf16_of_f32(x[r * ldx + c]) : 0;
}

static inline void reference_softmax_panel(uint16_t *panel, float *sums, f32_view x, int n_tokens, int n_visible, int n,
                                           float scale) {
    memset(panel, 0, (size_t)(MATRIX_LANES * round_up(n, MATRIX_K)) * sizeof *panel);
    for (int t = 0; t < n_tokens; t++) {
        const float *row = x.at + t * x.ld;
        float max = -INFINITY;
        int n_scores = min_int(n_visible + t, n);
        for (int i = 0; i < n_scores; i++) max = fmaxf(max, row[i]);
        sums[t] = 0;
        for (int i = 0; i < n_scores; i++) {
            float p = expf(scale * (row[i] - max));
            panel[panel_index(0, t, i)] = bf16_of_f32(p);
            sums[t] += p;
        }
    }
}

/* ---- Products ---- */

/* The output of token t and row r, of which sum is x[t] . w[r]. */
static inline void write_output(const bf16_output *to, int t, int r, float sum) {
    if (to->bias) sum += to->bias[r];
    if (to->panels) {
        to->activation(&sum, 1);
        to->panels[panel_index(to->ld_panels, t, r)] = bf16_of_f32(sum);
    } else to->out[t * to->ldo + r] = sum + (to->add ? to->out[t * to->ldo + r] : 0);
}

/* What pads a packed output is zero. */
static inline void pad_panels(const bf16_output *to, gemm_size size) {
    for (int t = 0; t < round_up(size.n_tokens, MATRIX_LANES); t++)
        for (int r = 0; r < round_up(size.n_rows, MATRIX_K); r++)
            if (t >= size.n_tokens || r >= size.n_rows) to->panels[panel_index(to->ld_panels, t, r)] = 0;
}

static inline void reference_gemm(const bf16_output *to, float *sums, bf16_view x, bf16_view tiles, gemm_size size,
                                  bool begins, bool ends) {
    if (ends && to->panels) pad_panels(to, size);
    for (int t = 0; t < size.n_tokens; t++)
        for (int r = 0; r < size.n_rows; r++) {
            float sum = begins ? 0 : sums[t * size.n_rows + r];
            for (int i = 0; i < size.n_in; i++)
                sum += f32_of_bf16(x.at[panel_index(x.ld, t, i)]) * f32_of_bf16(tiles.at[tile_index(tiles.ld, r, i)]);
            if (ends) write_output(to, t, r, sum);
            else sums[t * size.n_rows + r] = sum;
        }
}

static inline void reference_stream(const bf16_output *to, const uint16_t *x, row_view w, dtype type, gemm_size size) {
    const int64_t ldx = MATRIX_LANES * round_up(size.n_in, MATRIX_K);
    float *row = malloc((size_t)size.n_in * sizeof *row);
    if (!row) abort();
    for (int r = 0; r < size.n_rows; r++) {
        kernels_portable.to_f32[type](row, (const uint8_t *)w.at + r * w.ld, size.n_in);
        for (int t = 0; t < size.n_tokens; t++) {
            const uint16_t *panel = x + t / MATRIX_LANES * ldx + t % MATRIX_LANES * 2;
            float sum = 0;
            for (int i = 0; i < size.n_in; i++)
                sum += f32_of_bf16(panel[i / 2 * 2 * MATRIX_LANES + i % 2]) * f32_of_bf16(bf16_of_f32(row[i]));
            write_output(to, t, r, sum);
        }
    }
    free(row);
}

/* portable.c with these kernels; with streams, for BF16 and Q8_0. */
static inline kernels reference_bf16_set(bf16_kernels *bf16, bool streams) {
    *bf16 = (bf16_kernels){.panel = reference_panel,
                           .tiles = reference_tiles,
                           .columns = reference_columns,
                           .softmax_panel = reference_softmax_panel,
                           .gemm = reference_gemm,
                           .stream = reference_stream,
                           .stream_panel = reference_stream_panel,
                           .streams = {[TYPE_BF16] = streams, [TYPE_Q8_0] = streams}};
    kernels set = kernels_portable;
    set.name = streams ? "reference-bf16-stream" : "reference-bf16";
    set.bf16 = bf16;
    return set;
}

#endif
