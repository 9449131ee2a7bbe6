// Cosines and sines of rotary position embedding, for every position, once.
#include "device.cuh"

struct RopeTableArgs {
    // [position][half_dim] cosine and sine.
    float2* rotations;
    // [half_dim]
    const float* frequencies;
    int32_t positions;
    int32_t half_dim;
    // Factor on both functions.
    float magnitude;
    int32_t unused;
};
static_assert(sizeof(RopeTableArgs) == 32, "as in cuda.rs");

constexpr int ROPE_TABLE_THREADS = 256;

// The angle in float, as transformers have it; both functions to the last bit, which takes double
// and, for large angles, local memory.
KERNEL(rope_table, RopeTableArgs, ROPE_TABLE_THREADS, 1) {
    size_t entries = static_cast<size_t>(args.positions) * args.half_dim;
    size_t stride = static_cast<size_t>(gridDim.x) * ROPE_TABLE_THREADS;
    size_t index = static_cast<size_t>(blockIdx.x) * ROPE_TABLE_THREADS + threadIdx.x;
    for (; index < entries; index += stride) {
        float position = static_cast<float>(index / args.half_dim);
        double angle = position * args.frequencies[index % args.half_dim];
        args.rotations[index] = float2{static_cast<float>(cos(angle)) * args.magnitude,
                                       static_cast<float>(sin(angle)) * args.magnitude};
    }
}
