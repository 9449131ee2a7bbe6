// Which row of a checkpoint's matrix lies where in a tiled one.
#pragma once

#include "layout.cuh"

// As `TiledMatrix` of layout.rs.
struct TiledShape {
    int32_t rows;
    int32_t columns;
    // Bytes of a number: 1 or 2.
    int32_t element_bytes;
    // Of gate-and-up matrices the intermediate elements, else 0.
    int32_t width;
};

DEVICE int panels_of(const TiledShape& shape) {
    return divide_up(shape.columns * shape.element_bytes, PANEL_BYTES);
}

DEVICE int padded_rows(const TiledShape& shape) {
    int rows = shape.width ? divide_up(shape.width, 8) * 16 : shape.rows;
    return divide_up(rows, TILE_ROWS) * TILE_ROWS;
}

DEVICE int place_of_row(const TiledShape& shape, int row) {
    if (!shape.width) return row;
    int up = row >= shape.width, element = up ? row - shape.width : row;
    return element / 8 * 16 + up * 8 + element % 8;
}

// Row of the checkpoint in a place, or -1 for padding.
DEVICE int row_of_place(const TiledShape& shape, int place) {
    if (!shape.width) return place < shape.rows ? place : -1;
    int element = place / 16 * 8 + place % 8;
    if (element >= shape.width) return -1;
    return place % 16 / 8 * shape.width + element;
}
