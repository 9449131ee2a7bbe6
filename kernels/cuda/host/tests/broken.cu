// Kernels with the mistakes that the host executor must notice.
#include "../../layout.cuh"
#include "../../wgmma.cuh"

struct Args {
    const uint8_t* in;
    uint32_t* out;
    int32_t broken;
    int32_t unused;
};

DEVICE uint32_t* words() { return reinterpret_cast<uint32_t*>(shared_memory()); }

KERNEL(test_barrier_dropped, Args, 64, 1) {
    words()[threadIdx.x] = threadIdx.x;
    if (!args.broken) __syncthreads();
    args.out[threadIdx.x] = words()[63 - threadIdx.x];
}

KERNEL(test_divergent_shuffle, Args, 64, 1) {
    uint32_t value = threadIdx.x;
    if (!args.broken || threadIdx.x % 32 < 16) value = __shfl_xor_sync(0xffffffffu, value, 1);
    __syncthreads();
    args.out[threadIdx.x] = value;
}

KERNEL(test_lane_ends, Args, 64, 1) {
    if (args.broken && threadIdx.x == 40) return;
    args.out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, threadIdx.x, 1);
}

KERNEL(test_thread_ends, Args, 64, 1) {
    if (args.broken && threadIdx.x == 40) return;
    __syncthreads();
    args.out[threadIdx.x] = 0;
}

KERNEL(test_divergent_barrier, Args, 64, 1) {
    if (args.broken && threadIdx.x % 2 == 0) named_barrier(1, 32);
    else if (threadIdx.x < 32) named_barrier(1, 32);
    args.out[threadIdx.x] = 0;
}

KERNEL(test_write_behind, Args, 64, 1) {
    if (args.broken && threadIdx.x == 7) words()[64] = 1;
    args.out[threadIdx.x] = 0;
}

// What only sanitizers notice.
KERNEL(test_read_behind, Args, 64, 1) {
    constexpr int shared = 1, global = 2, copied = 3, misaligned = 4;
    const uint32_t* in = reinterpret_cast<const uint32_t*>(args.in);
    unsigned thread = threadIdx.x;
    words()[thread] = thread;
    async_copy16(shared_memory(), args.in + (args.broken == copied ? 256 : 0), thread == 0);
    async_copy_commit();
    async_copy_wait<0>();
    uint32_t value = words()[args.broken == shared ? thread + 1 : thread];
    value += in[args.broken == global ? thread + 1 : thread];
    const uint8_t* vector = shared_memory() + (args.broken == misaligned ? 4 : 0);
    args.out[thread] = value + reinterpret_cast<const uint2*>(vector)->x;
}

KERNEL(test_address_behind, Args, 64, 1) {
    uint32_t part[4];
    load_matrices(part, shared_memory() + (args.broken && threadIdx.x == 33 ? 256 : 0));
    args.out[threadIdx.x] = part[0];
}

// Copies the input by way of shared memory; `broken` says which part is wrong.
KERNEL(test_bulk_copy, Args, 64, 1) {
    uint64_t* barrier = reinterpret_cast<uint64_t*>(shared_memory() + 256);
    constexpr int no_expect = 1, no_arrival = 2, no_init = 3, no_fence = 4, misaligned = 5,
                  odd_size = 6, two_arrivals = 7, no_wait = 8, overwritten = 9;
    int mistake = args.broken;
    if (threadIdx.x == 0) {
        if (mistake != no_init) mbarrier_init(barrier, 1);
        if (mistake != no_fence) mbarrier_init_fence();
        if (mistake == overwritten) *barrier = 0;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        if (mistake == no_expect) mbarrier_arrive(barrier);
        else if (mistake != no_arrival) mbarrier_arrive_expect(barrier, 256);
        if (mistake == two_arrivals) mbarrier_arrive_expect(barrier, 256);
        bulk_copy(shared_memory(), args.in + (mistake == misaligned ? 8 : 0),
                  mistake == odd_size ? 248 : 256, barrier);
    }
    if (mistake != no_wait) mbarrier_wait(barrier, 0);
    args.out[threadIdx.x] = words()[threadIdx.x];
}

KERNEL(test_async_copy, Args, 64, 1) {
    constexpr int no_wait = 1, misaligned = 2, read_early = 3;
    if (threadIdx.x < 16)
        async_copy16(shared_memory() + 16 * threadIdx.x,
                     args.in + 16 * threadIdx.x + (args.broken == misaligned ? 4 : 0), true);
    async_copy_commit();
    if (args.broken == read_early) async_copy_wait<1>();
    else if (args.broken != no_wait) async_copy_wait<0>();
    __syncthreads();
    args.out[threadIdx.x] = words()[threadIdx.x];
    async_copy_wait<0>();
}

// A product of two factors full of ones (E4M3): 32 everywhere, in 64 threads' first sums.
KERNEL(test_warpgroup, Args, 128, 1) {
    constexpr int overwritten = 1, read_early = 2, no_arrive = 3, no_wait = 4, no_swizzle = 5,
                  different = 6, behind = 7, not_committed = 8;
    uint8_t* a = shared_memory();
    uint8_t* b = a + TILE_ROWS * PANEL_BYTES;
    for (int i = threadIdx.x; i < (TILE_ROWS + 8) * PANEL_BYTES; i += 128) a[i] = 0x38;
    fence_async_proxy();
    __syncthreads();
    int mistake = args.broken;
    float sums[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    uint64_t a_place = panel_descriptor(a, 0), b_place = panel_descriptor(b, 0);
    if (mistake == no_swizzle) a_place &= ~(3ull << 62);
    if (mistake == different && threadIdx.x == 99) b_place = panel_descriptor(b, 1);
    if (mistake == behind) b_place = panel_descriptor(b + 1024, 0);
    if (mistake != no_arrive) warpgroup_arrive();
    warpgroup_product(E4m3(), sums, a_place, b_place, false);
    if (mistake != not_committed) warpgroup_commit();
    if (mistake == overwritten) a[threadIdx.x * 64] = 0;
    float early = sums[0];
    if (mistake != no_wait) warpgroup_wait<0>();
    args.out[threadIdx.x] = static_cast<uint32_t>(mistake == read_early ? early : sums[0]);
}
