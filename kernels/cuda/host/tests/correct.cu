// Kernels that use each of the executor's functions rightly.
#include "../../layout.cuh"
#include "../../wgmma.cuh"

// A factor of 64 (a) or `columns` (b) rows of one panel each, row-major; multiplied 32 bytes of
// each row at a time.
struct WarpgroupArgs {
    const uint8_t* a;
    const uint8_t* b;
    float* sums;
    int32_t panels;
    int32_t unused;
};

constexpr int STAGES = 2;

// One warp brings panels, a warpgroup multiplies them: the pipeline of every large product.
template <typename Kind, int COLUMNS> DEVICE void pipeline(const WarpgroupArgs& args) {
    uint8_t* memory = shared_memory();
    constexpr int STAGE = (TILE_ROWS + COLUMNS) * PANEL_BYTES;
    uint64_t* full = reinterpret_cast<uint64_t*>(memory + STAGES * STAGE);
    uint64_t* empty = full + STAGES;
    int thread = threadIdx.x;
    if (thread == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            mbarrier_init(&full[stage], 1);
            mbarrier_init(&empty[stage], 4);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    if (thread >= 128) {
        for (int panel = 0; thread == 128 && panel < args.panels; panel++) {
            int stage = panel % STAGES;
            mbarrier_wait(&empty[stage], (panel / STAGES & 1) ^ 1);
            mbarrier_arrive_expect(&full[stage], STAGE);
            uint8_t* to = memory + stage * STAGE;
            int a_bytes = TILE_ROWS * PANEL_BYTES, b_bytes = COLUMNS * PANEL_BYTES;
            bulk_copy(to, args.a + panel * a_bytes, a_bytes, &full[stage]);
            bulk_copy(to + a_bytes, args.b + panel * b_bytes, b_bytes, &full[stage]);
        }
        return;
    }
    float sums[COLUMNS / 2];
    for (int i = 0; i < COLUMNS / 2; i++) sums[i] = 0.0f;
    for (int panel = 0; panel < args.panels; panel++) {
        int stage = panel % STAGES;
        mbarrier_wait(&full[stage], panel / STAGES & 1);
        warpgroup_arrive();
        const uint8_t* a = memory + stage * STAGE;
        for (int step = 0; step < 4; step++)
            warpgroup_product(Kind(), sums, panel_descriptor(a, step),
                              panel_descriptor(a + TILE_ROWS * PANEL_BYTES, step),
                              panel > 0 || step > 0);
        warpgroup_commit();
        // The panel before this one has been multiplied.
        warpgroup_wait<1>();
        if (panel > 0 && thread % 32 == 0) mbarrier_arrive(&empty[(panel - 1) % STAGES]);
    }
    warpgroup_wait<0>();
    int row = thread / 32 * 16 + thread % 32 / 4, column = 2 * (thread % 4);
    for (int j = 0; j < COLUMNS / 8; j++)
        for (int i = 0; i < 4; i++)
            args.sums[(row + i / 2 * 8) * COLUMNS + 8 * j + column + i % 2] = sums[4 * j + i];
}

#define PIPELINE(kind, Kind, columns)                                                              \
    KERNEL(test_warpgroup_##kind##_##columns, WarpgroupArgs, 160, 1) {                             \
        pipeline<Kind, columns>(args);                                                             \
    }
PIPELINE(e4m3, E4m3, 8)
PIPELINE(e4m3, E4m3, 16)
PIPELINE(e4m3, E4m3, 32)
PIPELINE(e4m3, E4m3, 64)
PIPELINE(e4m3, E4m3, 128)
PIPELINE(bf16, Bf16, 8)
PIPELINE(bf16, Bf16, 16)
PIPELINE(bf16, Bf16, 32)
PIPELINE(bf16, Bf16, 64)
PIPELINE(bf16, Bf16, 128)

// d[16, 8] = a[16, 16] * b[8, 16]^T, or with b[16, 8] if it is to be transposed, of BF16.
struct WarpArgs {
    const uint8_t* a;
    const uint8_t* b;
    float* d;
    int32_t transposed;
    int32_t unused;
};

KERNEL(test_warp_product, WarpArgs, 32, 1) {
    uint8_t* a = shared_memory();
    uint8_t* b = a + 512;
    int lane = threadIdx.x;
    async_copy16(a + 16 * lane, args.a + 16 * lane, true);
    async_copy16(b + 16 * lane, args.b + 16 * lane, lane < 16);
    async_copy_commit();
    async_copy_wait<0>();
    __syncwarp();
    uint32_t a_part[4], b_part[4];
    load_matrices(a_part, a + (lane % 16) * 32 + lane / 16 * 16);
    // Matrices 2 and 3 are the zeroes behind b.
    if (args.transposed) load_matrices_transposed(b_part, b + 16 * lane);
    else load_matrices(b_part, lane < 16 ? b + lane % 8 * 32 + lane / 8 * 16 : b + 16 * lane);
    if (b_part[2] != 0 || b_part[3] != 0) return;
    float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    uint32_t factor[2] = {b_part[0], b_part[1]};
    multiply_16x8x16(d, a_part, factor);
    int row = lane / 4, column = 2 * (lane % 4);
    for (int i = 0; i < 4; i++) args.d[(row + i / 2 * 8) * 8 + column + i % 2] = d[i];
}

// Everything that lanes and blocks have in common; one number for each thread.
struct CommonArgs {
    uint32_t* out;
    uint32_t* counter;
};

KERNEL(test_lanes, CommonArgs, 128, 1) {
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, all = 0xffffffffu;
    unsigned errors = 0;
    errors |= __shfl_sync(all, lane, 5) != 5 ? 1 : 0;
    errors |= __shfl_sync(all, lane, 1, 4) != lane / 4 * 4 + 1 ? 2 : 0;
    errors |= __shfl_xor_sync(all, 1.5f * lane, 3) != 1.5f * (lane ^ 3) ? 4 : 0;
    errors |= __shfl_up_sync(all, 3ull * lane, 2) != 3ull * (lane < 2 ? lane : lane - 2) ? 8 : 0;
    errors |= __shfl_down_sync(all, lane, 8, 16) != (lane % 16 < 8 ? lane + 8 : lane) ? 16 : 0;
    errors |= __ballot_sync(all, lane < 3) != 7 ? 32 : 0;
    errors |= __any_sync(all, lane == 9) != 1 || __any_sync(all, 0) != 0 ? 64 : 0;
    errors |= __all_sync(all, 1) != 1 || __all_sync(all, lane != 9) != 0 ? 128 : 0;
    errors |= __reduce_add_sync(all, lane) != 496 ? 256 : 0;
    errors |= warp_sum(1.0f) != 32.0f || warp_max(-1.0f * lane) != 0.0f ? 512 : 0;
    errors |= __match_any_sync(all, lane % 3) != 0x49249249u << lane % 3 ? 8192 : 0;
    // Halves of a warp on their own ways.
    unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
    unsigned sum = lane < 16 ? __reduce_add_sync(half, 1u) : __reduce_add_sync(half, 2u);
    errors |= sum != (lane < 16 ? 16u : 32u) ? 1024 : 0;
    // Warps 0 and 1 exchange something, and then the block.
    uint32_t* words = reinterpret_cast<uint32_t*>(shared_memory());
    words[threadIdx.x] = threadIdx.x;
    if (warp < 2) {
        named_barrier(1, 64);
        errors |= words[threadIdx.x ^ 32] != (threadIdx.x ^ 32) ? 2048 : 0;
    }
    __syncthreads();
    errors |= words[127 - threadIdx.x] != 127 - threadIdx.x ? 4096 : 0;
    atomicAdd(args.counter, 1u);
    args.out[blockIdx.x * blockDim.x + threadIdx.x] = errors;
}
