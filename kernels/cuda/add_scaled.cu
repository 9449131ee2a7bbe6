// (a + b) * scale.
#include "rows.cuh"

struct AddScaledArgs {
    RowSource a;
    RowSource b;
    // f32 [rows, columns]; may be where one of the addends is.
    float* out;
    float scale;
    int32_t columns;
};
static_assert(sizeof(AddScaledArgs) == 112, "as in add_scaled/cuda.rs");

constexpr int ADD_THREADS = 128;

// A block for each row and 1024 columns.
KERNEL(add_scaled, AddScaledArgs, ADD_THREADS, 4) {
    int row = blockIdx.x, column = (blockIdx.y * ADD_THREADS + threadIdx.x) * 8;
    if (column >= args.columns) return;
    Eight sum = read_eight(args.a, args.columns, row, column);
    Eight more = read_eight(args.b, args.columns, row, column);
#pragma unroll
    for (int i = 0; i < 8; i++) sum.v[i] = (sum.v[i] + more.v[i]) * args.scale;
    store_f32(args.out + static_cast<size_t>(row) * args.columns, column, args.columns, sum);
}
