// Products of activations and weights on the tensor cores: output^T = weights * input^T.
//
// The weights are the first factor, 64 rows for each warpgroup, so that the number of tokens is
// the free dimension of the instruction: 8 tokens in decode, 128 in prefill. The order of
// additions of an output element is the same for every token tile: runs of panels are summed by
// the tensor cores, and the runs' sums are added in order. That makes a row's result independent
// of its batch.
//
// A block is one warp that lets the copy engine fill a ring of stages, and one or two warpgroups
// that multiply. Blocks stay and walk over the work, so that the ring never runs dry between
// tiles (persistent, warp-specialised: CUTLASS's and DeepGEMM's structure).
#pragma once

#include "layout.cuh"
#include "wgmma.cuh"

// What becomes of the sums.
enum Epilogue : int32_t {
    // f32 [part][token][row], times `scale`.
    EPILOGUE_PARTS = 0,
    // BF16 [token][row].
    EPILOGUE_BF16 = 1,
    // silu(gate) * up as BF16 [token][width].
    EPILOGUE_SWIGLU = 2,
    // The same in panels.
    EPILOGUE_SWIGLU_PANELS = 3,
};

struct ProductArgs {
    // Tiled; grouped products have one matrix after the other.
    const uint8_t* weights;
    // Panels.
    const uint8_t* input;
    // E4M3 only: for each row of each matrix, padded rows included.
    const float* weight_scales;
    // E4M3 only: for each row of the input.
    const float* input_scales;
    void* output;
    // BF16 only: for each row; null if there is none.
    const float* bias;
    // Grouped products only: the token tiles of all experts, and their number.
    const TokenTile* tiles;
    const uint32_t* num_tiles;
    // Elements between the parts of EPILOGUE_PARTS.
    uint64_t part_stride;
    // Tiles of 64 rows, padded ones included.
    int32_t row_tiles;
    // Columns of the output.
    int32_t rows;
    int32_t panels;
    // Panels whose products the tensor cores sum before the sum is added to the others.
    int32_t run_panels;
    // Runs may be computed by different blocks, each writing a part.
    int32_t parts;
    // Tokens, unless grouped.
    int32_t tokens;
    // Row capacity of the input, and of an output in panels.
    int32_t capacity;
    int32_t epilogue;
    float scale;
    int32_t unused;
};
static_assert(sizeof(ProductArgs) == 112);

// Sizes that follow from the number of tokens in a tile.
template <int N> struct Shape {
    static constexpr int WARPGROUPS = N == 128 ? 2 : 1;
    static constexpr int CONSUMERS = WARPGROUPS * 128;
    static constexpr int THREADS = CONSUMERS + 32;
    static constexpr int BLOCKS = N == 128 ? 1 : N == 64 ? 2 : 3;
    static constexpr int STAGES = N == 8 ? 7 : 6;
    static constexpr int WEIGHT_BYTES = TILE_ROWS * PANEL_BYTES;
    static constexpr int INPUT_BYTES = N * PANEL_BYTES;
    static constexpr int STAGE_BYTES = WARPGROUPS * WEIGHT_BYTES + INPUT_BYTES;
    // The ring, then two barriers for each stage.
    static constexpr int SHARED_BYTES = STAGES * STAGE_BYTES + STAGES * 16;
};

// One piece of work: some rows of the weights, some tokens, some of the columns.
struct Work {
    int row_tile;
    int expert;
    // First row of the input, and how many rows count.
    int first;
    int count;
    int part;
    int first_panel;
    int end_panel;
};

template <int N> DEVICE int work_count(const ProductArgs& args) {
    int groups = divide_up(args.row_tiles, Shape<N>::WARPGROUPS) * args.parts;
    int tiles = args.tiles ? static_cast<int>(*args.num_tiles) : divide_up(args.tokens, N);
    return groups * tiles;
}

// Blocks side by side work on the same tokens, so that the weights they read together stay in the
// second-level cache for the next tokens.
template <int N> DEVICE Work work_at(const ProductArgs& args, int index) {
    int row_groups = divide_up(args.row_tiles, Shape<N>::WARPGROUPS);
    int tile = index / (row_groups * args.parts), rest = index % (row_groups * args.parts);
    Work work;
    work.row_tile = rest / args.parts * Shape<N>::WARPGROUPS;
    work.part = rest % args.parts;
    int panels = args.parts == 1 ? args.panels : args.run_panels;
    work.first_panel = work.part * panels;
    work.end_panel = min(work.first_panel + panels, args.panels);
    if (args.tiles) {
        TokenTile tokens = args.tiles[tile];
        work.expert = static_cast<int>(tokens.expert);
        work.first = static_cast<int>(tokens.first);
        work.count = static_cast<int>(tokens.count);
    } else {
        work.expert = 0;
        work.first = tile * N;
        work.count = min(args.tokens - work.first, N);
    }
    return work;
}

// The ring of stages in shared memory.
template <int N> struct Ring {
    using S = Shape<N>;
    uint8_t* stages;
    uint64_t* filled;
    uint64_t* emptied;
    // Stages passed so far by this thread.
    uint32_t passed = 0;

    DEVICE explicit Ring(uint8_t* memory)
        : stages(memory), filled(reinterpret_cast<uint64_t*>(memory + S::STAGES * S::STAGE_BYTES)),
          emptied(filled + S::STAGES) {}

    DEVICE void init() {
        for (int stage = 0; stage < S::STAGES; stage++) {
            mbarrier_init(&filled[stage], 1);
            mbarrier_init(&emptied[stage], S::CONSUMERS / 32);
        }
        mbarrier_init_fence();
    }

    DEVICE int stage() const { return passed % S::STAGES; }
    DEVICE uint32_t parity() const { return passed / S::STAGES & 1; }
    DEVICE uint8_t* memory() const { return stages + stage() * S::STAGE_BYTES; }
    DEVICE uint8_t* input() const { return memory() + S::WARPGROUPS * S::WEIGHT_BYTES; }
};

// Fills the ring; one thread.
template <int N> DEVICE void produce(const ProductArgs& args, Ring<N> ring) {
    using S = Shape<N>;
    int count = work_count<N>(args);
    size_t matrix = static_cast<size_t>(args.row_tiles) * args.panels * S::WEIGHT_BYTES;
    for (int index = blockIdx.x; index < count; index += gridDim.x) {
        Work work = work_at<N>(args, index);
        const uint8_t* weights = args.weights + work.expert * matrix;
        for (int panel = work.first_panel; panel < work.end_panel; panel++, ring.passed++) {
            mbarrier_wait(&ring.emptied[ring.stage()], ring.parity() ^ 1);
            uint64_t* filled = &ring.filled[ring.stage()];
            mbarrier_arrive_expect(filled, S::STAGE_BYTES);
            for (int group = 0; group < S::WARPGROUPS; group++) {
                // A second tile past the end repeats the last one; its sums are not stored.
                int tile = min(work.row_tile + group, args.row_tiles - 1);
                size_t piece = static_cast<size_t>(tile) * args.panels + panel;
                bulk_copy(ring.memory() + group * S::WEIGHT_BYTES,
                          weights + piece * S::WEIGHT_BYTES, S::WEIGHT_BYTES, filled);
            }
            size_t line = static_cast<size_t>(panel) * args.capacity + work.first;
            bulk_copy(ring.input(), args.input + line * PANEL_BYTES, S::INPUT_BYTES, filled);
        }
    }
}

// Queues the products of one stage.
template <typename Kind, int N>
DEVICE void multiply_stage(const Ring<N>& ring, int group, float (&sums)[N / 2], bool keep) {
    const uint8_t* weights = ring.memory() + group * Shape<N>::WEIGHT_BYTES;
    warpgroup_arrive();
#pragma unroll
    for (int step = 0; step < 4; step++)
        warpgroup_product(Kind(), sums, panel_descriptor(weights, step),
                          panel_descriptor(ring.input(), step), keep || step > 0);
    warpgroup_commit();
}

// One run: the sums of `panels` panels, which end in `sums`. The tensor cores always have the next
// stage queued while the one before is given back.
template <typename Kind, int N>
DEVICE void multiply_run(Ring<N>& ring, int group, int panels, float (&sums)[N / 2]) {
    bool leader = threadIdx.x % 32 == 0;
    mbarrier_wait(&ring.filled[ring.stage()], ring.parity());
    multiply_stage<Kind>(ring, group, sums, false);
    for (int panel = 1; panel < panels; panel++) {
        uint64_t* emptied = &ring.emptied[ring.stage()];
        ring.passed++;
        mbarrier_wait(&ring.filled[ring.stage()], ring.parity());
        multiply_stage<Kind>(ring, group, sums, true);
        warpgroup_wait<1>();
        if (leader) mbarrier_arrive(emptied);
    }
    warpgroup_wait<0>();
    if (leader) mbarrier_arrive(&ring.emptied[ring.stage()]);
    ring.passed++;
}

// Neighbouring lanes of a column hold neighbouring rows. Each pair of lanes swaps halves, so that
// a lane has two neighbouring rows of one column and can store them as one word: even lanes get
// the first of two columns, odd ones the second.
struct RowPair {
    uint32_t word;
    // 0 or 1: which of the two columns.
    int column;
};

DEVICE RowPair pair_rows(float first_column, float second_column) {
    bool odd = threadIdx.x / 4 % 2 == 1;
    float other = __shfl_xor_sync(0xffffffffu, odd ? first_column : second_column, 4);
    return odd ? RowPair{pack_bf16(other, second_column), 1}
               : RowPair{pack_bf16(first_column, other), 0};
}

DEVICE float silu_times(float gate, float up) {
    return gate / (1.0f + fast_exp2(gate * -1.4426950408889634f)) * up;
}

// Stores one column pair's rows `row` and `row + 8` in the form of the epilogue. `token` is the
// first of the two columns, `valid` how many of them count.
DEVICE void store(const ProductArgs& args, const Work& work, int row, int column,
                  const float (&sums)[4]) {
    size_t token = work.first + column;
    int lower = row & ~1;
    if (args.epilogue == EPILOGUE_PARTS) {
        float* out = static_cast<float*>(args.output) + work.part * args.part_stride;
        for (int k = 0; k < 4; k++) {
            int output_row = row + k / 2 * 8;
            if (output_row < args.rows && column + k % 2 < work.count)
                out[(token + k % 2) * args.rows + output_row] = sums[k] * args.scale;
        }
    } else if (args.epilogue == EPILOGUE_BF16) {
        bf16* out = static_cast<bf16*>(args.output);
        for (int half = 0; half < 2; half++) {
            RowPair pair = pair_rows(sums[2 * half], sums[2 * half + 1]);
            int output_row = lower + half * 8;
            if (output_row < args.rows && column + pair.column < work.count)
                *reinterpret_cast<uint32_t*>(out + (token + pair.column) * args.rows +
                                             output_row) = pair.word;
        }
    } else {
        RowPair pair = pair_rows(silu_times(sums[0], sums[2]), silu_times(sums[1], sums[3]));
        int element = row / 16 * 8 + lower % 8;
        if (column + pair.column >= work.count) return;
        if (args.epilogue == EPILOGUE_SWIGLU_PANELS) {
            uint8_t* out = static_cast<uint8_t*>(args.output);
            int output_row = static_cast<int>(token) + pair.column;
            *reinterpret_cast<uint32_t*>(
                out + activation_offset(args.capacity, output_row, element * 2)) = pair.word;
            // Half a panel is left over: its padding must be zero.
            if (row / TILE_ROWS == args.row_tiles - 1 && args.row_tiles % 2 == 1)
                *reinterpret_cast<uint32_t*>(
                    out + activation_offset(args.capacity, output_row, element * 2 + 64)) = 0;
        } else if (element < args.rows) {
            bf16* out = static_cast<bf16*>(args.output);
            *reinterpret_cast<uint32_t*>(out + (token + pair.column) * args.rows + element) =
                pair.word;
        }
    }
}

// Applies the scales and stores a warpgroup's sums.
template <bool scaled, int N>
DEVICE void finish(const ProductArgs& args, const Work& work, int group,
                   const float (&sums)[N / 2]) {
    int tile = work.row_tile + group;
    if (tile >= args.row_tiles) return;
    int thread = threadIdx.x % 128;
    int row = tile * TILE_ROWS + thread / 32 * 16 + thread % 32 / 4;
    float upper = 1, lower = 1;
    if (scaled) {
        const float* scales = args.weight_scales +
                              static_cast<size_t>(work.expert) * args.row_tiles * TILE_ROWS;
        upper = scales[row];
        lower = scales[row + 8];
    }
#pragma unroll
    for (int j = 0; j < N / 8; j++) {
        int column = j * 8 + thread % 4 * 2;
        float four[4] = {sums[4 * j], sums[4 * j + 1], sums[4 * j + 2], sums[4 * j + 3]};
        if (scaled) {
            float first = args.input_scales[work.first + column];
            float second = args.input_scales[work.first + column + 1];
            four[0] *= upper * first;
            four[1] *= upper * second;
            four[2] *= lower * first;
            four[3] *= lower * second;
        }
        store(args, work, row, column, four);
    }
}

// What a warpgroup's sums begin with: the bias, in the first part. So the order of additions is the
// same whether parts are summed here or by whoever reads them.
template <int N> DEVICE void begin(const ProductArgs& args, const Work& work, int group,
                                   float (&sums)[N / 2]) {
    float upper = 0, lower = 0;
    if (args.bias && work.part == 0) {
        int thread = threadIdx.x % 128;
        int row = (work.row_tile + group) * TILE_ROWS + thread / 32 * 16 + thread % 32 / 4;
        if (row < args.rows) upper = args.bias[row];
        if (row + 8 < args.rows) lower = args.bias[row + 8];
    }
#pragma unroll
    for (int i = 0; i < N / 2; i++) sums[i] = i % 4 < 2 ? upper : lower;
}

template <typename Kind, int N> DEVICE void consume(const ProductArgs& args, Ring<N> ring) {
    int group = threadIdx.x / 128;
    int count = work_count<N>(args);
    for (int index = blockIdx.x; index < count; index += gridDim.x) {
        Work work = work_at<N>(args, index);
        float total[N / 2];
        begin<N>(args, work, group, total);
        for (int panel = work.first_panel; panel < work.end_panel; panel += args.run_panels) {
            float sums[N / 2];
            int panels = min(args.run_panels, work.end_panel - panel);
            multiply_run<Kind>(ring, group, panels, sums);
#pragma unroll
            for (int i = 0; i < N / 2; i++) total[i] += sums[i];
        }
        finish<Kind::SCALED, N>(args, work, group, total);
    }
}

template <typename Kind, int N> DEVICE void product(const ProductArgs& args) {
    Ring<N> ring(shared_memory());
    if (threadIdx.x == 0) ring.init();
    __syncthreads();
    if (threadIdx.x < Shape<N>::CONSUMERS)
        consume<Kind, N>(args, ring);
    else if (threadIdx.x == Shape<N>::CONSUMERS)
        produce<N>(args, ring);
}
