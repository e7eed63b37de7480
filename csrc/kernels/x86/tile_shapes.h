/* tile_shapes.h - how AMX tiles are configured (Intel SDM 1, 18.2). */
#ifndef FASTGPT_TILE_SHAPES_H
#define FASTGPT_TILE_SHAPES_H

#include <stdint.h>

enum { TILE_ROWS = 16, TILE_BYTES = 64 };

typedef struct tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t n_rows[16];
} tile_shapes;

#define OF_EIGHT(x) {x, x, x, x, x, x, x, x}

/* All eight tiles full.  A constant: the compiler knows of the first eight bytes alone that the instruction reads them,
 * and may leave out what a function writes to the others. */
static void set_shapes(void) {
    static const tile_shapes full = {.palette = 1, .row_bytes = OF_EIGHT(TILE_BYTES), .n_rows = OF_EIGHT(TILE_ROWS)};
    _tile_loadconfig(&full);
}

#endif
