/* packing.h - activations and weights, packed as the matrix kernels of kernels.h read them. */
#ifndef FASTGPT_PACKING_H
#define FASTGPT_PACKING_H

#include "kernels/kernels.h"
#include "model/model.h"

/* x [n_tokens][n_in], rows ldx apart. */
typedef struct activation_view {
    const float *x;
    int64_t ldx;
    int n_tokens, n_in;
} activation_view;

/* Columns [first_k, first_k + n_k) of rows [first_out, first_out + n_out) of w. */
typedef struct weight_tile {
    const weight *w;
    int first_out, n_out;
    int first_k, n_k;
} weight_tile;

/* Values of a row in panels of BF16: n_in, padded with zeros to a multiple of MATRIX_K. */
int64_t panel_k(int64_t n_in);

/* Bytes of the packed panels of n_tokens: of BF16 or 8-bit values, and of floats. */
int64_t panels_bytes(int64_t n_tokens, int64_t n_in);
int64_t f32_panels_bytes(int64_t n_tokens, int64_t n_in);

/* Bytes of the scratch of pack_q8_panel and unpack_u8_rows. */
int64_t packing_scratch_bytes(int64_t n_in);

/* The panel of MATRIX_LANES tokens that the given token is in. */
uint16_t *bf16_panel(void *panels, int token, int n_in);
matrix_block *q8_panel(void *panels, int token, int n_in);

/* Pack panel number `panel` of all tokens of x. */
void pack_bf16_panel(bf16_panel_kernel *pack, void *panels, int panel, const activation_view *x);
void pack_q8_panel(const kernels *k, void *panels, int panel, const activation_view *x, void *scratch);

/* Packs up to MAX_FLOAT_LANES tokens of x, from `first` on, a multiple of that; panels [n_tokens rounded up][n_in]. */
void pack_f32_panels(const kernels *k, void *panels, int first, const activation_view *x);

/* Whole rows of w as unsigned bytes, in scratch; for types that the kernels can unpack so. */
const uint8_t *unpack_u8_rows(const kernels *k, const weight *w, int first, int n_rows, void *scratch);

/* Row i of w as F32, out [n_in]. */
void weight_row_as_f32(const kernels *k, const weight *w, int64_t i, float *out);

/* A tile of weights as F32: in place, or converted to scratch [n_out][n_k]. */
f32_view weights_as_f32(const kernels *k, const weight_tile *tile, float *scratch);

#endif
