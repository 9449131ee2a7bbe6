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

struct Sum {
    DEVICE static float of_warp(float value) { return warp_sum(value); }
};
struct Maximum {
    DEVICE static float of_warp(float value) { return warp_max(value); }
};

// Combines the values of all threads, in an order that only the number of threads decides. Each
// use in a kernel has memory of its own.
template <typename Combine, int THREADS> DEVICE float of_block(float value, float* shared) {
    int lane = threadIdx.x % 32;
    value = Combine::of_warp(value);
    if (lane == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    return Combine::of_warp(lane < THREADS / 32 ? shared[lane] : 0.0f);
}

// A row in shared memory, in chunks of eight columns: first all their lower halves, then all their
// upper ones, so that neighbouring threads have neighbouring addresses. Each thread has every
// THREADS-th chunk for itself.
struct Row {
    float4* halves;
    int chunks;

    DEVICE Eight get(int chunk) const {
        float4 low = halves[chunk], high = halves[chunks + chunk];
        return {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    }

    DEVICE void set(int chunk, const Eight& values) {
        const float* v = values.v;
        halves[chunk] = float4{v[0], v[1], v[2], v[3]};
        halves[chunks + chunk] = float4{v[4], v[5], v[6], v[7]};
    }
};

// Adds the addends to eight columns of the residual stream.
DEVICE Eight add_addends(const NormArgs& args, int row, int column) {
    float* residual = args.residual + static_cast<size_t>(row) * args.columns;
    Eight values = load_f32(residual, column, args.columns);
    if (args.addends[0].kind == SOURCE_NONE && args.addends[1].kind == SOURCE_NONE) return values;
#pragma unroll
    for (int addend = 0; addend < 2; addend++) {
        Eight more = read_eight(args.addends[addend], args.columns, row, column);
#pragma unroll
        for (int i = 0; i < 8; i++) values.v[i] += more.v[i];
    }
    store_f32(residual, column, args.columns, values);
    return values;
}

// The numbers (x - mean) * factor * weight.
DEVICE Eight normed(const Eight& values, const Eight& weight, float mean, float factor) {
    Eight out;
#pragma unroll
    for (int i = 0; i < 8; i++) out.v[i] = (values.v[i] - mean) * factor * weight.v[i];
    return out;
}

template <int THREADS> DEVICE float mean_of(const NormArgs& args, const Row& row, float* shared) {
    float sum = 0.0f;
    for (int chunk = threadIdx.x; chunk < row.chunks; chunk += THREADS) {
        Eight values = row.get(chunk);
#pragma unroll
        for (int i = 0; i < 8; i++) sum += values.v[i];
    }
    return of_block<Sum, THREADS>(sum, shared) / args.columns;
}

template <int THREADS>
DEVICE float variance_of(const NormArgs& args, const Row& row, float mean, float* shared) {
    float squares = 0.0f;
    for (int chunk = threadIdx.x; chunk < row.chunks; chunk += THREADS) {
        Eight values = row.get(chunk);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float centred = chunk * 8 + i < args.columns ? values.v[i] - mean : 0.0f;
            squares = fmaf(centred, centred, squares);
        }
    }
    return of_block<Sum, THREADS>(squares, shared) / args.columns;
}

// One block for each row.
template <int THREADS> DEVICE void norm_row(const NormArgs& args) {
    int chunks = divide_up(args.columns, 8);
    float4* memory = reinterpret_cast<float4*>(shared_memory());
    Row row = {memory, chunks}, weight = {memory + 2 * chunks, chunks};
    float* shared = reinterpret_cast<float*>(memory + 4 * chunks);
    for (int chunk = threadIdx.x; chunk < chunks; chunk += THREADS) {
        // The weight is wanted last, but waits for nothing.
        Eight factors = load_f32(args.weight, chunk * 8, args.columns);
        row.set(chunk, add_addends(args, blockIdx.x, chunk * 8));
        weight.set(chunk, factors);
    }
    float mean = args.centred ? mean_of<THREADS>(args, row, shared) : 0.0f;
    float variance = variance_of<THREADS>(args, row, mean, shared + THREADS / 32);
    float factor = 1.0f / sqrtf(variance + args.epsilon), scale = 1.0f;
    bool quantises = args.out.e4m3_panels != nullptr;
    if (quantises) {
        float largest = 0.0f;
        for (int chunk = threadIdx.x; chunk < chunks; chunk += THREADS) {
            Eight values = normed(row.get(chunk), weight.get(chunk), mean, factor);
            largest = fmaxf(largest, largest_magnitude(values));
        }
        scale = scale_of(of_block<Maximum, THREADS>(largest, shared + 2 * (THREADS / 32)));
        if (threadIdx.x == 0) args.out.scales[blockIdx.x] = scale;
    }
    int padded_chunks = padded_columns(args.out, args.columns) / 8;
    for (int chunk = threadIdx.x; chunk < padded_chunks; chunk += THREADS) {
        Eight values = {};
        if (chunk < chunks) values = normed(row.get(chunk), weight.get(chunk), mean, factor);
        store_bf16_panel(args.out, args.columns, blockIdx.x, chunk * 8, values);
        if (quantises) store_e4m3_panel(args.out, blockIdx.x, chunk * 8, values, scale);
    }
}

KERNEL(norm_short, NormArgs, 256, 2) { norm_row<256>(args); }
KERNEL(norm_long, NormArgs, 512, 1) { norm_row<512>(args); }
