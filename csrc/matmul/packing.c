/* packing.c - see packing.h. */
#include "matmul/packing.h"

#include <string.h>

#include "common/arithmetic.h"

int64_t panel_k(int64_t n_in) { return round_up(n_in, MATRIX_K); }

int64_t panels_bytes(int64_t n_tokens, int64_t n_in) {
    return round_up(n_tokens, MATRIX_TOKENS) * panel_k(n_in) * (int64_t)sizeof(uint16_t);
}

int64_t f32_panels_bytes(int64_t n_tokens, int64_t n_in) {
    return round_up(n_tokens, MAX_FLOAT_LANES) * n_in * (int64_t)sizeof(float);
}

int64_t packing_scratch_bytes(int64_t n_in) { return MATRIX_ROWS * quantized_row_bytes(round_up(n_in, 32)); }

/* ---- Activations ---- */

uint16_t *bf16_panel(void *panels, int token, int n_in) {
    return (uint16_t *)panels + token / MATRIX_LANES * MATRIX_LANES * panel_k(n_in);
}

matrix_block *q8_panel(void *panels, int token, int n_in) {
    return (matrix_block *)panels + (int64_t)(token / MATRIX_LANES) * (n_in / 32);
}

/* One past the last token of a panel of MATRIX_LANES. */
static int panel_end(int panel, int n_tokens) { return min_int((panel + 1) * MATRIX_LANES, n_tokens); }

void pack_bf16_panel(bf16_panel_kernel *pack, void *panels, int panel, const activation_view *x) {
    int first = panel * MATRIX_LANES;
    pack(bf16_panel(panels, first, x->n_in), x->x + first * x->ldx, x->ldx, panel_end(panel, x->n_tokens) - first,
         x->n_in);
}

/* 32 values of MATRIX_LANES quantized rows, ld bytes apart: q, and their scales d. */
static void pack_q8_block(matrix_block *block, const int8_t *q, const float *d, int64_t ld) {
    for (int64_t t = 0; t < MATRIX_LANES; t++) {
        int32_t sum = 0;
        for (int i = 0; i < 32; i++) sum += q[t * ld + i];
        for (int i = 0; i < 8; i++) memcpy(block->q[i][t], q + t * ld + 4 * i, 4);
        block->sums[t] = sum;
        memcpy(&block->d[t], (const char *)d + t * ld, sizeof(float));
    }
}

void pack_q8_panel(const kernels *k, void *panels, int panel, const activation_view *x, void *scratch) {
    int8_t *rows = scratch;
    int64_t ld = quantized_row_bytes(x->n_in), first = (int64_t)panel * MATRIX_LANES;
    memset(rows, 0, (size_t)(MATRIX_LANES * ld));
    for (int64_t t = first; t < panel_end(panel, x->n_tokens); t++)
        k->quantize_row(rows + (t - first) * ld, x->x + t * x->ldx, x->n_in);
    matrix_block *blocks = q8_panel(panels, (int)first, x->n_in);
    const float *scales = (const float *)(const void *)(rows + x->n_in);
    for (int64_t i = 0; i < x->n_in / 32; i++) pack_q8_block(blocks + i, rows + 32 * i, scales + i, ld);
}

/* out [n_in][n_lanes] = x^T, for n_rows <= n_lanes rows of x. */
static void transpose_rows(float *out, int64_t n_lanes, const float *x, int64_t ldx, int64_t n_rows, int64_t n_in) {
    for (int64_t i = 0; i < n_in; i++)
        for (int64_t t = 0; t < n_rows; t++) out[i * n_lanes + t] = x[t * ldx + i];
}

void pack_f32_panels(const kernels *k, void *panels, int first, const activation_view *x) {
    int lanes = k->floats->lanes, end = min_int(first + MAX_FLOAT_LANES, x->n_tokens);
    for (; first < end; first += lanes) {
        int n = min_int(end - first, lanes);
        float *out = (float *)panels + (int64_t)first * x->n_in;
        if (n < lanes) memset(out, 0, (size_t)(lanes * (int64_t)x->n_in) * sizeof *out);
        transpose_rows(out, lanes, x->x + first * x->ldx, x->ldx, n, x->n_in);
    }
}

/* ---- Weights ---- */

const uint8_t *unpack_u8_rows(const kernels *k, const weight *w, int first, int n_rows, void *scratch) {
    uint8_t *rows = scratch;
    for (int64_t r = 0; r < n_rows; r++)
        k->unpack_u8[w->type](rows + r * quantized_row_bytes(w->n_in), weight_row(w, first + r), w->n_in);
    return rows;
}

void weight_row_as_f32(const kernels *k, const weight *w, int64_t i, float *out) {
    if (!has_row_scales(w->type)) {
        k->to_f32[w->type](out, weight_row(w, i), w->n_in);
        return;
    }
    const int row = i % I8_TILE_ROWS;
    const tile_line_i8 *tile = (const tile_line_i8 *)(const void *)weight_row(w, i - row);
    for (int j = 0; j < w->n_in; j++)
        out[j] = w->scales[i] * (float)(tile[j / I8_LINE_K].q[row][j % I8_LINE_K] - I8_ZERO_POINT);
}

f32_view weights_as_f32(const kernels *k, const weight_tile *tile, float *scratch) {
    const weight *w = tile->w;
    const uint8_t *rows = weight_at(w, tile->first_out, tile->first_k);
    if (w->type == TYPE_F32) return (f32_view){.at = (const float *)(const void *)rows, .ld = w->n_in};
    for (int64_t r = 0; r < tile->n_out; r++)
        k->to_f32[w->type](scratch + r * tile->n_k, rows + r * row_bytes(w->type, w->n_in), tile->n_k);
    return (f32_view){.at = scratch, .ld = tile->n_k};
}
