// From rows to panels: BF16, or E4M3 with one scale for each row.
#include "rows.cuh"

struct PackArgs {
    RowSource source;
    // Rows for which this is NONE are left alone, if it is there.
    const uint32_t* token_of_row;
    PanelOutput out;
    int32_t rows;
    int32_t columns;
};
static_assert(sizeof(PackArgs) == 96, "as in pack.rs");

constexpr int PACK_THREADS = 128;

// One warp for each row, twice over it if it needs a scale.
KERNEL(pack, PackArgs, PACK_THREADS, 4) {
    int row = blockIdx.x * (PACK_THREADS / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= args.rows || (args.token_of_row && args.token_of_row[row] == NONE)) return;
    bool quantises = args.out.e4m3_panels != nullptr;
    float scale = 1.0f;
    if (quantises) {
        float largest = 0.0f;
        for (int column = lane * 8; column < args.columns; column += 32 * 8) {
            Eight values = read_eight(args.source, args.columns, row, column);
            largest = fmaxf(largest, largest_magnitude(values));
        }
        scale = scale_of(warp_max(largest));
        if (lane == 0) args.out.scales[row] = scale;
    }
    int padded = padded_columns(args.out, args.columns);
    for (int column = lane * 8; column < padded; column += 32 * 8) {
        Eight values = {};
        if (column < args.columns) values = read_eight(args.source, args.columns, row, column);
        store_bf16_panel(args.out, args.columns, row, column, values);
        if (quantises) store_e4m3_panel(args.out, row, column, values, scale);
    }
}
