// How matrices lie in memory for the tensor cores.
//
// A panel is 128 bytes of each row: 64 BF16 or 128 E4M3 numbers. Within it the 16-byte chunk c of
// row r stands in place c ^ (r % 8). Columns are padded with zeroes to whole panels.
//
// Activations: [panel][row capacity][128 bytes], so that any 8-aligned range of rows of a panel is
// one consecutive piece. Weights: [tile of 64 rows][panel][64][128 bytes], so that whoever works
// on a tile reads one consecutive stream; rows are padded with zeroes to whole tiles.
//
// In gate-and-up matrices each group of 16 rows holds the gate rows of 8 intermediate elements and
// then their up rows, which puts both into the same thread's registers.
#pragma once

#include "device.cuh"

constexpr int PANEL_BYTES = 128;
constexpr int TILE_ROWS = 64;

// Offset of a byte of an activation.
DEVICE size_t activation_offset(int capacity, int row, int byte_column) {
    int panel = byte_column / PANEL_BYTES, chunk = byte_column % PANEL_BYTES / 16;
    size_t line = static_cast<size_t>(panel) * capacity + row;
    return line * PANEL_BYTES + ((chunk ^ (row & 7)) * 16) + byte_column % 16;
}

// Offset of a byte of a weight matrix with `panels` panels.
DEVICE size_t weight_offset(int panels, int row, int byte_column) {
    int panel = byte_column / PANEL_BYTES, chunk = byte_column % PANEL_BYTES / 16;
    size_t piece = static_cast<size_t>(row / TILE_ROWS) * panels + panel;
    return (piece * TILE_ROWS + row % TILE_ROWS) * PANEL_BYTES + ((chunk ^ (row & 7)) * 16) +
           byte_column % 16;
}

// A float32 matrix [rows, columns] in `parts` parts, one after the other, to be summed in order.
// With `rounded`, the sum stands for its nearest bfloat16.
struct Parts {
    const float* values;
    int32_t parts;
    int32_t rounded;
};

DEVICE float sum_parts(const Parts& matrix, size_t part_size, size_t index) {
    float sum = matrix.values[index];
    for (int part = 1; part < matrix.parts; part++) sum += matrix.values[part * part_size + index];
    return matrix.rounded ? to_float(to_bf16(sum)) : sum;
}

// Some consecutive rows of the sorted pairs of token and expert that one expert computes.
struct TokenTile {
    uint32_t expert;
    // First pair, a multiple of 8.
    uint32_t first;
    // Pairs that are real.
    uint32_t count;
    uint32_t unused;
};
