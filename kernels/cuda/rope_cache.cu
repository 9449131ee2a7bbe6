// Norm and rotary position embedding of a step's queries and keys, and keys and values into the
// cache.
#include "rows.cuh"

struct RopeCacheArgs {
    // [rows][(heads + 2 * kv_heads) * head_dim]: queries, keys, values.
    RowSource qkv;
    // BF16 [rows][heads * head_dim]
    uint8_t* queries;
    // One layer's: [block][kv_head], and for each keys, then values [block_size][head_dim].
    uint8_t* cache;
    // [position][head_dim / 2] cosine and sine; null if nothing is rotated.
    const float2* rotations;
    // [head_dim] each: what normed queries and keys are multiplied with; null if nothing is normed.
    const float* query_gain;
    const float* key_gain;
    const uint32_t* positions;
    // NONE: not a row.
    const uint32_t* slots;
    // [slot][table_stride]
    const uint32_t* tables;
    int32_t rows;
    int32_t heads;
    int32_t kv_heads;
    // A multiple of 16.
    int32_t head_dim;
    int32_t block_size;
    int32_t table_stride;
    // Elements i and i + head_dim / 2 belong together, else 2i and 2i + 1.
    int32_t halves;
    // The cache holds E4M3, else BF16.
    int32_t e4m3;
    // Of the norm.
    float epsilon;
    int32_t unused;
};
static_assert(sizeof(RopeCacheArgs) == 152, "as in cuda.rs");

constexpr int ROPE_CACHE_THREADS = 128;

// Results of matrix products come in parts or in BF16.
DEVICE Eight read(const RowSource& source, int columns, int row, int column) {
    if (source.kind == SOURCE_PARTS) return sum_parts(source, columns, row, column);
    const bf16* values = static_cast<const bf16*>(source.values);
    return widen(load_bf16(values + static_cast<size_t>(row) * columns, column, columns));
}

// RMSNorm of a head, of which neighbouring lanes have their elements `column`.. and those of the
// upper half each.
DEVICE void normalise(const RopeCacheArgs& args, const float* gain, int column, Eight& low,
                      Eight& high) {
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) squares = fmaf(low.v[i], low.v[i], squares);
#pragma unroll
    for (int i = 0; i < 8; i++) squares = fmaf(high.v[i], high.v[i], squares);
    int of_head = args.head_dim / 16;
    uint32_t lanes = ((1u << of_head) - 1) << threadIdx.x % 32 / of_head * of_head;
    for (int distance = of_head / 2; distance > 0; distance /= 2)
        squares += __shfl_xor_sync(lanes, squares, distance);
    float factor = 1.0f / sqrtf(squares / args.head_dim + args.epsilon);
    Eight low_gain = load_f32(gain, column, args.head_dim);
    Eight high_gain = load_f32(gain, column + args.head_dim / 2, args.head_dim);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        low.v[i] = low.v[i] * factor * low_gain.v[i];
        high.v[i] = high.v[i] * factor * high_gain.v[i];
    }
}

// Each product and sum as written: other source formats must not give other bits.
DEVICE void rotate(float& x, float& y, float cosine, float sine) {
    float rotated = fmaf(x, cosine, -(y * sine));
    y = fmaf(y, cosine, x * sine);
    x = rotated;
}

// Elements `column`.. of a head and of its upper half.
DEVICE void rotate(const RopeCacheArgs& args, int row, int column, Eight& low, Eight& high) {
    int half = args.head_dim / 2;
    const float2* of_row = args.rotations + static_cast<size_t>(args.positions[row]) * half;
    const float4* first =
        reinterpret_cast<const float4*>(of_row + (args.halves ? column : column / 2));
    const float4* second = reinterpret_cast<const float4*>(
        of_row + (args.halves ? column + 4 : (column + half) / 2));
    float4 turns[4] = {first[0], first[1], second[0], second[1]};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float4 turn = turns[i];
        if (args.halves) {
            rotate(low.v[2 * i], high.v[2 * i], turn.x, turn.y);
            rotate(low.v[2 * i + 1], high.v[2 * i + 1], turn.z, turn.w);
        } else {
            Eight& both = i < 2 ? low : high;
            int at = i % 2 * 4;
            rotate(both.v[at], both.v[at + 1], turn.x, turn.y);
            rotate(both.v[at + 2], both.v[at + 3], turn.z, turn.w);
        }
    }
}

DEVICE uint2 narrow_e4m3(const Eight& values) {
    const float* v = values.v;
    return uint2{pack_e4m3(v[0], v[1]) | static_cast<uint32_t>(pack_e4m3(v[2], v[3])) << 16,
                 pack_e4m3(v[4], v[5]) | static_cast<uint32_t>(pack_e4m3(v[6], v[7])) << 16};
}

// Elements of a head of keys (or, behind them, of values) to their place in the cache.
DEVICE void store_cache(const RopeCacheArgs& args, int row, int kv, int column, const Eight& low,
                        const Eight& high) {
    int position = args.positions[row], half = args.head_dim / 2;
    size_t entry =
        static_cast<size_t>(args.slots[row]) * args.table_stride + position / args.block_size;
    size_t piece = static_cast<size_t>(args.tables[entry]) * args.kv_heads + kv % args.kv_heads;
    size_t line = (piece * 2 + kv / args.kv_heads) * args.block_size + position % args.block_size;
    size_t element = line * args.head_dim + column;
    if (args.e4m3) {
        *reinterpret_cast<uint2*>(args.cache + element) = narrow_e4m3(low);
        *reinterpret_cast<uint2*>(args.cache + element + half) = narrow_e4m3(high);
    } else {
        *reinterpret_cast<uint4*>(args.cache + element * 2) = narrow(low);
        *reinterpret_cast<uint4*>(args.cache + (element + half) * 2) = narrow(high);
    }
}

// A thread takes eight elements of a head, and the eight that are half a head further.
KERNEL(rope_cache, RopeCacheArgs, ROPE_CACHE_THREADS, 6) {
    int of_head = args.head_dim / 16;
    int of_row = (args.heads + 2 * args.kv_heads) * of_head;
    int columns = (args.heads + 2 * args.kv_heads) * args.head_dim;
    int stride = gridDim.x * ROPE_CACHE_THREADS;
    int index = blockIdx.x * ROPE_CACHE_THREADS + threadIdx.x;
    for (; index < args.rows * of_row; index += stride) {
        int row = index / of_row, head = index % of_row / of_head;
        if (args.slots[row] == NONE) continue;
        int column = index % of_head * 8;
        int from = head * args.head_dim + column;
        Eight low = read(args.qkv, columns, row, from);
        Eight high = read(args.qkv, columns, row, from + args.head_dim / 2);
        if (head < args.heads + args.kv_heads) {
            const float* gain = head < args.heads ? args.query_gain : args.key_gain;
            if (gain) normalise(args, gain, column, low, high);
            if (args.rotations) rotate(args, row, column, low, high);
        }
        if (head < args.heads) {
            size_t line = static_cast<size_t>(row) * args.heads + head;
            uint8_t* to = args.queries + (line * args.head_dim + column) * 2;
            *reinterpret_cast<uint4*>(to) = narrow(low);
            *reinterpret_cast<uint4*>(to + args.head_dim) = narrow(high);
        } else {
            store_cache(args, row, head - args.heads, column, low, high);
        }
    }
}
