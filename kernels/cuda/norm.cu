// Residual additions and the norm after them, and its quantisation.
#include "rows.cuh"

struct NormArgs {
    // f32 [rows, columns]; the addends are added to it in place.
    float* residual;
    // f32 [columns]
    const float* weight;
    RowSource addends[2];
    PanelOutput out;
    float epsilon;
    // Subtract the mean first.
    int32_t centred;
    int32_t rows;
    int32_t columns;
};
static_assert(sizeof(NormArgs) == 160, "as in norm/cuda.rs");

constexpr int NORM_THREADS = 256;
constexpr int NORM_WARPS = NORM_THREADS / 32;

struct Sum {
    DEVICE static float of_warp(float value) { return warp_sum(value); }
};
struct Maximum {
    DEVICE static float of_warp(float value) { return warp_max(value); }
};

// Combines the values of all threads, in an order that only the number of threads decides. Each
// use in a kernel has memory of its own.
template <typename Combine> DEVICE float of_block(float value, float* shared) {
    int lane = threadIdx.x % 32;
    value = Combine::of_warp(value);
    if (lane == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    return Combine::of_warp(lane < NORM_WARPS ? shared[lane] : 0.0f);
}

// One thread's columns: chunks of eight, NORM_THREADS chunks apart.
template <int CHUNKS> struct Row {
    Eight chunks[CHUNKS];
};

DEVICE int column_of(int chunk) { return (chunk * NORM_THREADS + threadIdx.x) * 8; }

template <int CHUNKS> DEVICE Row<CHUNKS> add_addends(const NormArgs& args, int row) {
    float* residual = args.residual + static_cast<size_t>(row) * args.columns;
    bool changes = args.addends[0].kind != SOURCE_NONE || args.addends[1].kind != SOURCE_NONE;
    Row<CHUNKS> out;
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        Eight& values = out.chunks[chunk];
        values = Eight{};
        int column = column_of(chunk);
        if (column >= args.columns) continue;
        values = load_f32(residual, column, args.columns);
#pragma unroll
        for (int addend = 0; addend < 2; addend++) {
            Eight more = read_eight(args.addends[addend], args.columns, row, column);
#pragma unroll
            for (int i = 0; i < 8; i++) values.v[i] += more.v[i];
        }
        if (changes) store_f32(residual, column, args.columns, values);
    }
    return out;
}

template <int CHUNKS> DEVICE Row<CHUNKS> load_weight(const NormArgs& args) {
    Row<CHUNKS> out;
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        int column = column_of(chunk);
        out.chunks[chunk] = Eight{};
        if (column < args.columns)
            out.chunks[chunk] = load_f32(args.weight, column, args.columns);
    }
    return out;
}

// Replaces the row by its norm.
template <int CHUNKS>
DEVICE void normalise(const NormArgs& args, Row<CHUNKS>& row, const Row<CHUNKS>& weight,
                      float* shared) {
    float mean = 0.0f;
    if (args.centred) {
        float sum = 0.0f;
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
#pragma unroll
            for (int i = 0; i < 8; i++) sum += row.chunks[chunk].v[i];
        }
        mean = of_block<Sum>(sum, shared) / args.columns;
    }
    float squares = 0.0f;
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float centred = row.chunks[chunk].v[i] - mean;
            if (column_of(chunk) + i >= args.columns) centred = 0.0f;
            squares = fmaf(centred, centred, squares);
        }
    }
    squares = of_block<Sum>(squares, shared + NORM_WARPS);
    float factor = 1.0f / sqrtf(squares / args.columns + args.epsilon);
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        float* v = row.chunks[chunk].v;
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = (v[i] - mean) * factor * weight.chunks[chunk].v[i];
    }
}

// One block for each row, which stays in registers.
template <int CHUNKS> DEVICE void norm_row(const NormArgs& args) {
    float* shared = reinterpret_cast<float*>(shared_memory());
    // Before anything waits.
    Row<CHUNKS> weight = load_weight<CHUNKS>(args);
    Row<CHUNKS> row = add_addends<CHUNKS>(args, blockIdx.x);
    normalise(args, row, weight, shared);
    bool quantises = args.out.e4m3_panels != nullptr;
    float scale = 1.0f;
    if (quantises) {
        float largest = 0.0f;
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk++)
            largest = fmaxf(largest, largest_magnitude(row.chunks[chunk]));
        scale = scale_of(of_block<Maximum>(largest, shared + 2 * NORM_WARPS));
        if (threadIdx.x == 0) args.out.scales[blockIdx.x] = scale;
    }
    int padded = padded_columns(args.out, args.columns);
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        int column = column_of(chunk);
        if (column >= padded) continue;
        store_bf16_panel(args.out, args.columns, blockIdx.x, column, row.chunks[chunk]);
        if (quantises) store_e4m3_panel(args.out, blockIdx.x, column, row.chunks[chunk], scale);
    }
}

KERNEL(norm_2048, NormArgs, NORM_THREADS, 2) { norm_row<1>(args); }
KERNEL(norm_4096, NormArgs, NORM_THREADS, 2) { norm_row<2>(args); }
KERNEL(norm_8192, NormArgs, NORM_THREADS, 1) { norm_row<4>(args); }
KERNEL(norm_16384, NormArgs, NORM_THREADS, 1) { norm_row<8>(args); }
