/* packing.c - see packing.h. */
#include "matmul/packing.h"

#include <string.h>

#include "common/arithmetic.h"

int64_t panel_k(int64_t n_in) { return round_up(n_in, MATRIX_K); }

int64_t panels_bytes(int64_t n_tokens, int64_t n_in) {
    return round_up(n_tokens, MATRIX_TOKENS) * panel_k(n_in) * (int64_t)sizeof(uint16_t);
}

int64_t float_panels_bytes(int64_t n_tokens, int64_t n_in) {
    return round_up(n_tokens, MAX_FLOAT_LANES) * n_in * (int64_t)sizeof(float);
}

uint16_t *bf16_panel(void *panels, int token, int n_in) {
    return (uint16_t *)panels + token / MATRIX_LANES * MATRIX_LANES * panel_k(n_in);
}

matrix_block *bytes_panel(void *panels, int token, int n_in) {
    return (matrix_block *)panels + (int64_t)(token / MATRIX_LANES) * (n_in / 32);
}

/* out[i][t] = rows[t][i]; out [n][n_lanes], rows [n_rows][n], ld apart, n_rows <= n_lanes */
static void interleave(float *out, const float *rows, int64_t ld, int64_t n, int64_t n_lanes, int64_t n_rows) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t t = 0; t < n_rows; t++) out[i * n_lanes + t] = rows[t * ld + i];
}

/* The tokens of a panel of MATRIX_LANES end here. */
static int end_of(int panel, int n_tokens) { return min_int((panel + 1) * MATRIX_LANES, n_tokens); }

void fill_bf16_panel(bf16_panel_kernel *fill, void *panels, int panel, const float *x, int64_t ldx, int n_tokens,
                     int n_in) {
    int first = panel * MATRIX_LANES;
    fill(bf16_panel(panels, first, n_in), x + first * ldx, ldx, end_of(panel, n_tokens) - first, n_in);
}

static void fill_block(matrix_block *block, const int8_t *q, const float *d, int64_t ld) {
    for (int64_t t = 0; t < MATRIX_LANES; t++) {
        int32_t sum = 0;
        for (int i = 0; i < 32; i++) sum += q[t * ld + i];
        for (int i = 0; i < 8; i++) memcpy(block->q[i][t], q + t * ld + 4 * i, 4);
        block->sums[t] = sum;
        memcpy(&block->d[t], (const char *)d + t * ld, sizeof(float));
    }
}

void fill_bytes_panel(const kernels *k, void *panels, int panel, const float *x, int64_t ldx, int n_tokens, int n_in,
                      void *scratch) {
    int8_t *rows = scratch;
    int64_t ld = quantized_row_bytes(n_in), first = (int64_t)panel * MATRIX_LANES;
    memset(rows, 0, (size_t)(MATRIX_LANES * ld));
    for (int64_t t = first; t < end_of(panel, n_tokens); t++)
        k->quantize_row(rows + (t - first) * ld, x + t * ldx, n_in);
    matrix_block *blocks = bytes_panel(panels, (int)first, n_in);
    const float *scales = (const float *)(const void *)(rows + n_in);
    for (int64_t i = 0; i < n_in / 32; i++) fill_block(blocks + i, rows + 32 * i, scales + i, ld);
}

void fill_float_panels(const kernels *k, void *panels, int first, const float *x, int64_t ldx, int n_tokens, int n_in) {
    int lanes = k->floats->lanes, end = min_int(first + MAX_FLOAT_LANES, n_tokens);
    for (; first < end; first += lanes) {
        int n = min_int(end - first, lanes);
        float *out = (float *)panels + (int64_t)first * n_in;
        if (n < lanes) memset(out, 0, (size_t)(lanes * (int64_t)n_in) * sizeof *out);
        interleave(out, x + first * ldx, ldx, n_in, lanes, n);
    }
}

int64_t panel_scratch_bytes(int64_t n_in) { return MATRIX_ROWS * quantized_row_bytes(round_up(n_in, 32)); }

const uint8_t *byte_rows(const kernels *k, const weight *w, int first, int n_rows, void *scratch) {
    uint8_t *rows = scratch;
    for (int64_t r = 0; r < n_rows; r++)
        k->unpack_u8[w->type](rows + r * quantized_row_bytes(w->n_in), weight_row(w, first + r), w->n_in);
    return rows;
}

const float *float_rows(const kernels *k, const weight *w, int first_row, int n_rows, int first, int n, int64_t *ld,
                        void *scratch) {
    const uint8_t *rows = weight_at(w, first_row, first);
    *ld = w->type == TYPE_F32 ? w->n_in : n;
    if (w->type == TYPE_F32) return (const float *)(const void *)rows;
    float *wide = scratch;
    for (int64_t r = 0; r < n_rows; r++) k->to_f32[w->type](wide + r * n, rows + r * row_bytes(w->type, w->n_in), n);
    return wide;
}
