/* packing.h - activations and weights as the matrix kernels of kernels.h take them. */
#ifndef FASTGPT_PACKING_H
#define FASTGPT_PACKING_H

#include "kernels/kernels.h"
#include "model/model.h"

/* BF16 products: rows are filled up with zeros to a multiple of MATRIX_K numbers. */
int64_t panel_k(int64_t n_in);

/* Bytes of the panels of n_tokens, of BF16 numbers or bytes and of floats, and of the scratch that functions below
 * take. */
int64_t panels_bytes(int64_t n_tokens, int64_t n_in);
int64_t float_panels_bytes(int64_t n_tokens, int64_t n_in);
int64_t panel_scratch_bytes(int64_t n_in);

/* Where the panel of MATRIX_LANES tokens stands that holds the given one. */
uint16_t *bf16_panel(void *panels, int token, int n_in);
matrix_block *bytes_panel(void *panels, int token, int n_in);

/* Fills panel number `panel` from x [n_tokens][n_in], the activations of all panels, rows ldx apart. */
void fill_bf16_panel(bf16_panel_kernel *fill, void *panels, int panel, const float *x, int64_t ldx, int n_tokens,
                     int n_in);
void fill_bytes_panel(const kernels *k, void *panels, int panel, const float *x, int64_t ldx, int n_tokens, int n_in,
                      void *scratch);

/* Fills the panels of MAX_FLOAT_LANES tokens at most, from `first` on, a multiple of that; panels [n_tokens rounded
 * up][n_in] in all. */
void fill_float_panels(const kernels *k, void *panels, int first, const float *x, int64_t ldx, int n_tokens, int n_in);

/* Rows [first, first + n_rows) of w for `gemm_q8`, in scratch; for types that have an unpack_u8. */
const uint8_t *byte_rows(const kernels *k, const weight *w, int first, int n_rows, void *scratch);

/* Columns [first, first + n) of FLOAT_ROWS rows at most, for `gemm_f32`, *ld floats apart. */
const float *float_rows(const kernels *k, const weight *w, int first_row, int n_rows, int first, int n, int64_t *ld,
                        void *scratch);

#endif
