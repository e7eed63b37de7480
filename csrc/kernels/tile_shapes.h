/* tile_shapes.h - how AMX tiles are configured (Intel SDM 1, 18.2). */
#ifndef FASTGPT_TILE_SHAPES_H
#define FASTGPT_TILE_SHAPES_H

#include <stdint.h>

enum { TILE_ROWS = 16, TILE_BYTES = 64 };

/* All eight tiles full; palette 1. */
typedef struct tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t n_rows[16];
} tile_shapes;

static void set_shapes(void) {
    tile_shapes shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shapes.row_bytes[i] = TILE_BYTES;
        shapes.n_rows[i] = TILE_ROWS;
    }
    _tile_loadconfig(&shapes);
}

#endif
