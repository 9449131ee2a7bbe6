// Weights from the order of checkpoints into tiles.
#include "tiles.cuh"

struct RepackArgs {
    // Row-major, from row `first_row` on.
    const uint8_t* source;
    uint8_t* out;
    TiledShape shape;
    int32_t first_row;
    int32_t rows;
};
static_assert(sizeof(RepackArgs) == 40, "as in repack.rs");

constexpr int REPACK_THREADS = 256;

// 16 bytes of a row from `byte_column` on, zeroes behind its end.
DEVICE uint4 read_chunk(const uint8_t* row, int byte_column, int row_bytes) {
    bool aligned = (reinterpret_cast<uintptr_t>(row) | row_bytes) % 16 == 0;
    if (aligned && byte_column < row_bytes)
        return *reinterpret_cast<const uint4*>(row + byte_column);
    uint32_t words[4] = {};
#pragma unroll
    for (int i = 0; i < 16; i++)
        if (byte_column + i < row_bytes)
            words[i / 4] |= static_cast<uint32_t>(row[byte_column + i]) << (i % 4 * 8);
    return uint4{words[0], words[1], words[2], words[3]};
}

// A block for each row; columns are padded with zeroes, padding rows are left alone.
KERNEL(repack, RepackArgs, REPACK_THREADS, 4) {
    int row_bytes = args.shape.columns * args.shape.element_bytes;
    int panels = panels_of(args.shape);
    int place = place_of_row(args.shape, args.first_row + blockIdx.x);
    const uint8_t* row = args.source + static_cast<size_t>(blockIdx.x) * row_bytes;
    for (int byte = threadIdx.x * 16; byte < panels * PANEL_BYTES; byte += REPACK_THREADS * 16) {
        size_t offset = weight_offset(panels, place, byte);
        *reinterpret_cast<uint4*>(args.out + offset) = read_chunk(row, byte, row_bytes);
    }
}

struct RepackScalesArgs {
    // [rows]
    const float* source;
    // [padded rows]
    float* out;
    TiledShape shape;
};
static_assert(sizeof(RepackScalesArgs) == 32, "as in repack.rs");

// All scales of a matrix, zero for padding rows.
KERNEL(repack_scales, RepackScalesArgs, REPACK_THREADS, 4) {
    int place = blockIdx.x * REPACK_THREADS + threadIdx.x;
    if (place >= padded_rows(args.shape)) return;
    int row = row_of_place(args.shape, place);
    args.out[place] = row < 0 ? 0.0f : args.source[row];
}
