// Random weights, made where they are used. Each number is a function of the seed, the tensor and
// its place alone, computed with integers and single rounded operations, so that synthetic.rs
// makes the same bits.
#include "tiles.cuh"

constexpr int SYNTHETIC_THREADS = 256;

// The SplitMix64 finaliser.
DEVICE uint64_t mix(uint64_t bits) {
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9ull;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebull;
    return bits ^ (bits >> 31);
}

// What the numbers of a row have in common.
DEVICE uint64_t row_key(uint64_t tensor_key, uint32_t row) { return mix(tensor_key + row); }

// Roughly normal: the sum of four uniform numbers, of mean 0 and deviation 1.
DEVICE float normal(uint64_t row_key, uint32_t column) {
    constexpr float UNIT = 1.0f / 37837.227f;
    uint64_t bits = mix(row_key + column);
    int32_t sum = static_cast<int32_t>((bits & 0xffff) + (bits >> 16 & 0xffff) +
                                       (bits >> 32 & 0xffff) + (bits >> 48));
    return static_cast<float>(sum - 2 * 0xffff) * UNIT;
}

struct SyntheticMatrixArgs {
    // One tiled matrix after the other; their rows are numbered through.
    uint8_t* out;
    // f32 [matrices * rows]: one more factor for each row, or null.
    const float* row_factors;
    uint64_t tensor_key;
    TiledShape shape;
    float deviation;
    int32_t unused;
};
static_assert(sizeof(SyntheticMatrixArgs) == 48, "as in synthetic.rs");

// 16 bytes of row `row` from `column` on.
template <int ELEMENT_BYTES>
DEVICE uint4 synthetic_chunk(const SyntheticMatrixArgs& args, uint32_t row, int column) {
    uint64_t key = row_key(args.tensor_key, row);
    float factor = args.row_factors ? args.row_factors[row] : 1.0f;
    uint32_t words[4];
#pragma unroll
    for (int word = 0; word < 4; word++) {
        float v[4];
#pragma unroll
        for (int i = 0; i < 4 / ELEMENT_BYTES; i++) {
            int place = column + word * (4 / ELEMENT_BYTES) + i;
            float value = normal(key, place) * args.deviation * factor;
            v[i] = place < args.shape.columns ? value : 0.0f;
        }
        if constexpr (ELEMENT_BYTES == 2) {
            words[word] = pack_bf16(v[0], v[1]);
        } else {
            words[word] = pack_e4m3(v[0], v[1]) |
                          static_cast<uint32_t>(pack_e4m3(v[2], v[3])) << 16;
        }
    }
    return uint4{words[0], words[1], words[2], words[3]};
}

// A block for each place of each matrix; padding becomes zero.
template <int ELEMENT_BYTES> DEVICE void synthetic_row(const SyntheticMatrixArgs& args) {
    int panels = panels_of(args.shape), places = padded_rows(args.shape);
    int matrix = blockIdx.x / places, place = blockIdx.x % places;
    int row = row_of_place(args.shape, place);
    uint8_t* out = args.out + static_cast<size_t>(matrix) * places * panels * PANEL_BYTES;
    int row_bytes = panels * PANEL_BYTES;
    for (int byte = threadIdx.x * 16; byte < row_bytes; byte += SYNTHETIC_THREADS * 16) {
        uint4 values = {};
        if (row >= 0) {
            uint32_t number = static_cast<uint32_t>(matrix) * args.shape.rows + row;
            values = synthetic_chunk<ELEMENT_BYTES>(args, number, byte / ELEMENT_BYTES);
        }
        *reinterpret_cast<uint4*>(out + weight_offset(panels, place, byte)) = values;
    }
}

KERNEL(synthetic_bf16, SyntheticMatrixArgs, SYNTHETIC_THREADS, 4) { synthetic_row<2>(args); }
KERNEL(synthetic_e4m3, SyntheticMatrixArgs, SYNTHETIC_THREADS, 4) { synthetic_row<1>(args); }

struct SyntheticVectorArgs {
    float* out;
    uint64_t tensor_key;
    // The matrices for whose rows the numbers are; each matrix has so many `places`.
    TiledShape shape;
    float mean;
    float deviation;
    int32_t places;
    int32_t unused;
};
static_assert(sizeof(SyntheticVectorArgs) == 48, "as in synthetic.rs");

// A number for each place of each matrix, which blockIdx.x counts; padding becomes zero.
KERNEL(synthetic_vector, SyntheticVectorArgs, SYNTHETIC_THREADS, 4) {
    int place = blockIdx.y * SYNTHETIC_THREADS + threadIdx.x;
    if (place >= args.places) return;
    int row = row_of_place(args.shape, place);
    float value = 0.0f;
    if (row >= 0) {
        uint32_t number = blockIdx.x * args.shape.rows + row;
        value = fmaf(normal(row_key(args.tensor_key, number), 0), args.deviation, args.mean);
    }
    args.out[static_cast<size_t>(blockIdx.x) * args.places + place] = value;
}
