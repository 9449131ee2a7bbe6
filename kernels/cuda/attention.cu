// Attention over the paged cache, prefill and decode mixed.
//
// A step's work is a list of tasks in memory; a fixed number of blocks goes through them, one
// key-value head at a time, so that recorded launches serve any step. Tasks with few queries and
// such with many take different ways to the same numbers, in kernels of their own. Results of
// tasks that have but a part of their rows' partitions are merged by another.
#include "attention_flat.cuh"
#include "attention_tall.cuh"

template <class Task> DEVICE void attention(const AttentionArgs& args) {
    uint8_t* shared = shared_memory();
    uint32_t item = args.range[0] * args.kv_heads + blockIdx.x;
    for (; item < args.range[1] * args.kv_heads; item += gridDim.x) {
        Task(args, item, shared).run(shared);
        // The next task overwrites shared memory.
        __syncthreads();
    }
}

#define ATTENTION_KERNEL(name, ...)                                                                \
    KERNEL(name, AttentionArgs, ATTENTION_THREADS, 2) { attention<__VA_ARGS__>(args); }

ATTENTION_KERNEL(attention_tall_bf16_32, TallTask<Bf16Cache, 32>)
ATTENTION_KERNEL(attention_tall_bf16_64, TallTask<Bf16Cache, 64>)
ATTENTION_KERNEL(attention_tall_bf16_128, TallTask<Bf16Cache, 128>)
ATTENTION_KERNEL(attention_tall_e4m3_32, TallTask<E4m3Cache, 32>)
ATTENTION_KERNEL(attention_tall_e4m3_64, TallTask<E4m3Cache, 64>)
ATTENTION_KERNEL(attention_tall_e4m3_128, TallTask<E4m3Cache, 128>)
ATTENTION_KERNEL(attention_flat_bf16_32, FlatTask<Bf16Cache, 32>)
ATTENTION_KERNEL(attention_flat_bf16_64, FlatTask<Bf16Cache, 64>)
ATTENTION_KERNEL(attention_flat_bf16_128, FlatTask<Bf16Cache, 128>)
ATTENTION_KERNEL(attention_flat_e4m3_32, FlatTask<E4m3Cache, 32>)
ATTENTION_KERNEL(attention_flat_e4m3_64, FlatTask<E4m3Cache, 64>)
ATTENTION_KERNEL(attention_flat_e4m3_128, FlatTask<E4m3Cache, 128>)

// The partial results of one row.
struct AttentionMerge {
    uint32_t row;
    // Line of the row's first head in the first partition.
    uint32_t first_line;
    uint32_t partitions;
    // Lines of a key-value head in a partition.
    uint32_t queries;
};

struct AttentionMergeArgs {
    const AttentionMerge* merges;
    // First merge and end.
    const uint32_t* range;
    const float* partial_values;
    const float* partial_sums;
    uint8_t* output;
    int32_t heads;
    int32_t kv_heads;
    int32_t head_dim;
    int32_t capacity;
};
static_assert(sizeof(AttentionMergeArgs) == 5 * 8 + 4 * 4, "as Rust has it");

constexpr int MERGE_THREADS = 128;
// Partial results that are on their way at the same time.
constexpr int MERGE_DEPTH = 8;

// Merges one head's partitions in 32 of its dimensions, one a lane.
DEVICE void merge_slice(const AttentionMergeArgs& args, const AttentionMerge& merge, int head,
                        int slice) {
    int lane = threadIdx.x % 32, group = args.heads / args.kv_heads;
    size_t first_line = merge.first_line + head / group * merge.queries + head % group;
    size_t stride = static_cast<size_t>(args.kv_heads) * merge.queries;
    int column = slice * 32 + lane, partitions = merge.partitions;
    float maximum = -INFINITY, sum = 0.0f, value = 0.0f;
    for (int first = 0; first < partitions; first += 32) {
        // Each lane finds the factors of one partition.
        float2 part{-INFINITY, 0.0f};
        if (first + lane < partitions)
            part = reinterpret_cast<const float2*>(
                args.partial_sums)[first_line + (first + lane) * stride];
        float through = fmaxf(part.x, maximum);
        for (int distance = 1; distance < 32; distance *= 2) {
            float other = __shfl_up_sync(0xffffffffu, through, distance);
            if (lane >= distance) through = fmaxf(through, other);
        }
        float before = __shfl_up_sync(0xffffffffu, through, 1);
        Merge factors(lane == 0 ? maximum : before, part.x);
        maximum = __shfl_sync(0xffffffffu, through, 31);
        for (int begin = 0; begin < 32 && first + begin < partitions; begin += MERGE_DEPTH) {
            float added[MERGE_DEPTH];
#pragma unroll
            for (int i = 0; i < MERGE_DEPTH; i++) {
                int partition = first + begin + i;
                size_t line = first_line + partition * stride;
                added[i] = partition < partitions
                               ? args.partial_values[line * args.head_dim + column]
                               : 0.0f;
            }
#pragma unroll
            for (int i = 0; i < MERGE_DEPTH; i++) {
                float keep = __shfl_sync(0xffffffffu, factors.keep, begin + i);
                float take = __shfl_sync(0xffffffffu, factors.take, begin + i);
                value = merged(value, keep, added[i], take);
                sum = merged(sum, keep, __shfl_sync(0xffffffffu, part.y, begin + i), take);
            }
        }
    }
    size_t to = activation_offset(args.capacity, merge.row, (head * args.head_dim + column) * 2);
    *reinterpret_cast<bf16*>(args.output + to) = to_bf16(normalised(value, 1.0f / sum));
}

KERNEL(attention_merge, AttentionMergeArgs, MERGE_THREADS, 4) {
    int slices = args.head_dim / 32;
    uint32_t of_row = args.heads * slices, end = args.range[1] * of_row;
    uint32_t warps = gridDim.x * (MERGE_THREADS / 32);
    uint32_t item = blockIdx.x * (MERGE_THREADS / 32) + threadIdx.x / 32;
    for (item += args.range[0] * of_row; item < end; item += warps) {
        int of_item = item % of_row;
        merge_slice(args, args.merges[item / of_row], of_item / slices, of_item % slices);
    }
}
