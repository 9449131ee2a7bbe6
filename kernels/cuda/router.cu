// Choice of experts from router logits: the best by logit, ties to the smaller index, NaN last.
#include "rows.cuh"

struct RouterArgs {
    // [parts][rows][experts]
    RowSource logits;
    // [rows]: NONE for rows that only fill up the batch. Null if there are none.
    const uint32_t* slots;
    // [rows, top_k]
    uint32_t* experts;
    float* weights;
    int32_t rows;
    int32_t num_experts;
    int32_t top_k;
    // Softmax instead of sigmoid.
    int32_t softmax;
    // Divide the chosen scores by their sum.
    int32_t renormalise;
    int32_t unused;
};
static_assert(sizeof(RouterArgs) == 96, "as in router/cuda.rs");

constexpr int ROUTER_THREADS = 128;

// Larger for larger logits; 1 for NaN, so that 0 is less than all.
DEVICE uint32_t key_of(float logit) {
    if (logit != logit) return 1;
    uint32_t bits = logit == 0.0f ? 0 : float_bits(logit);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

DEVICE float logit_of(uint32_t key) {
    if (key == 1) return NAN;
    return bits_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// The part sums of the logit of one expert.
DEVICE float read_logit(const RouterArgs& args, int row, int expert) {
    size_t part_size = static_cast<size_t>(args.logits.part_rows) * args.num_experts;
    const float* logit = static_cast<const float*>(args.logits.values);
    logit += static_cast<size_t>(row) * args.num_experts + expert;
    float sum = *logit;
#pragma unroll 4
    for (int part = 1; part < args.logits.parts; part++) sum += logit[part * part_size];
    return sum;
}

// The weight of the expert that this lane has chosen; lanes from `top_k` on have none. For softmax,
// `sum_of_rest` is this lane's part of the sum over experts that were not chosen.
DEVICE float weight_of(const RouterArgs& args, float logit, float largest, float sum_of_rest) {
    int lane = threadIdx.x % 32;
    bool chosen = lane < args.top_k;
    float score = 0.0f;
    if (args.softmax) {
        float own = chosen ? expf(logit - largest) : 0.0f;
        score = own / warp_sum(own + sum_of_rest);
    } else if (chosen) {
        score = 1.0f / (1.0f + expf(-logit));
    }
    if (args.renormalise) score /= warp_sum(score);
    return score;
}

// One warp for each row; lane i has every 32nd logit from the i-th on, and in the end the choice
// of rank i.
template <int PER_LANE> DEVICE void choose_experts(const RouterArgs& args) {
    int lane = threadIdx.x % 32;
    int row = blockIdx.x * (ROUTER_THREADS / 32) + threadIdx.x / 32;
    if (row >= args.rows) return;
    size_t slot = static_cast<size_t>(row) * args.top_k + lane;
    if (args.slots && args.slots[row] == NONE) {
        if (lane < args.top_k) {
            args.experts[slot] = NONE;
            args.weights[slot] = 0.0f;
        }
        return;
    }
    uint32_t keys[PER_LANE];
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
        int expert = i * 32 + lane;
        keys[i] = expert < args.num_experts ? key_of(read_logit(args, row, expert)) : 0;
    }
    uint32_t own_expert = NONE, own_key = 0, largest = 0;
    for (int rank = 0; rank < args.top_k; rank++) {
        uint32_t key = 0, expert = NONE;
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) {
            if (keys[i] > key) {
                key = keys[i];
                expert = i * 32 + lane;
            }
        }
        uint32_t best = __reduce_max_sync(0xffffffffu, key);
        expert = __reduce_min_sync(0xffffffffu, key == best ? expert : NONE);
        if (rank == 0) largest = best;
        if (rank == lane) own_expert = expert, own_key = best;
#pragma unroll
        for (int i = 0; i < PER_LANE; i++)
            if (i * 32 + lane == static_cast<int>(expert)) keys[i] = 0;
    }
    float sum_of_rest = 0.0f;
    if (args.softmax) {
#pragma unroll
        for (int i = 0; i < PER_LANE; i++)
            if (keys[i] != 0) sum_of_rest += expf(logit_of(keys[i]) - logit_of(largest));
    }
    float score = weight_of(args, logit_of(own_key), logit_of(largest), sum_of_rest);
    if (lane < args.top_k) {
        args.experts[slot] = own_expert;
        args.weights[slot] = score;
    }
}

KERNEL(router_128, RouterArgs, ROUTER_THREADS, 4) { choose_experts<4>(args); }
KERNEL(router_512, RouterArgs, ROUTER_THREADS, 4) { choose_experts<16>(args); }
KERNEL(router_1024, RouterArgs, ROUTER_THREADS, 4) { choose_experts<32>(args); }
