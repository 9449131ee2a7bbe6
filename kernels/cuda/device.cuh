// What kernels are written in: number formats, and the instructions of sm_90a behind small
// functions. Each of these has a body for the card here and one for the processor in `host/`, so
// that the same kernels run in tests on machines without a card.
//
// Rules for kernels:
//  - `KERNEL(name, Args, threads, blocks_per_multiprocessor) { ... }` defines one; it has one
//    argument, the plain struct `args`, which Rust declares again with the same layout.
//  - No framework or toolkit headers, no blocks that wait for other blocks, no static __shared__:
//    shared memory comes from `shared_memory()`, aligned to 1024 bytes.
//  - One row's result never depends on which other rows there are, not even in the last bit.
#pragma once

#include "numbers.cuh"

#ifdef __CUDACC__

#define KERNEL(name, Args, threads, blocks)                                                        \
    extern "C" __global__ void __launch_bounds__(threads, blocks)                                  \
        name(const __grid_constant__ Args args)

#define DEVICE __device__ __forceinline__

DEVICE uint8_t* shared_memory() {
    extern __shared__ __align__(1024) uint8_t dynamic_shared_memory[];
    return dynamic_shared_memory;
}

// Address within the block's shared memory window, as instructions take it.
DEVICE uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Barrier among `threads` (a multiple of 32) threads of the block; `id` is 1 to 15.
DEVICE void named_barrier(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// --- mbarrier: 8 bytes of shared memory that count arrivals and bytes ---------------------------

DEVICE void mbarrier_init(uint64_t* barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(arrivals)
                 : "memory");
}

// After the inits, before any other thread or the copy engine uses the barriers; then a block
// barrier.
DEVICE void mbarrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

DEVICE void mbarrier_arrive(uint64_t* barrier) {
    asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared::cta.b64 state, [%0];\n}" ::"r"(
                     shared_address(barrier))
                 : "memory");
}

// Arrives, and adds `bytes` to what copies must bring before the phase completes.
DEVICE void mbarrier_arrive_expect(uint64_t* barrier, uint32_t bytes) {
    asm volatile(
        "{\n.reg .b64 state;\nmbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1;\n}" ::"r"(
            shared_address(barrier)),
        "r"(bytes)
        : "memory");
}

// Waits until the phase with this parity has completed (the first phase has parity 0). With
// BOUNDED_WAITS, which the GPU gate checks kernels with, a wait of some 2 s is an error instead of a
// hang.
DEVICE void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
#ifdef BOUNDED_WAITS
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 ".reg .u64 begin, now;\n"
                 "mov.u64 begin, %%clock64;\n"
                 "WAIT:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra DONE;\n"
                 "mov.u64 now, %%clock64;\n"
                 "sub.u64 now, now, begin;\n"
                 "setp.lt.u64 done, now, 4000000000;\n"
                 "@done bra WAIT;\n"
                 "trap;\n"
                 "DONE:\n"
                 "}" ::"r"(shared_address(barrier)),
                 "r"(parity)
                 : "memory");
#else
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "WAIT:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra DONE;\n"
                 "bra WAIT;\n"
                 "DONE:\n"
                 "}" ::"r"(shared_address(barrier)),
                 "r"(parity)
                 : "memory");
#endif
}

// --- Copies --------------------------------------------------------------------------------------

// The copy engine brings `bytes` consecutive bytes to shared memory and then counts them on the
// barrier. Pointers are aligned to 16 bytes; `bytes` is a multiple of 16. One thread calls it.
DEVICE void bulk_copy(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], "
                 "%2, [%3];" ::"r"(shared_address(shared)),
                 "l"(global), "r"(bytes), "r"(shared_address(barrier))
                 : "memory");
}

// 16 bytes from global to shared memory, done by `async_copy_wait`; zeroes if not `valid`, in
// which case `global` is not read.
DEVICE void async_copy16(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}

// Ends a group of this thread's copies.
DEVICE void async_copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `pending` of this thread's groups are not done.
template <int pending> DEVICE void async_copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Makes this thread's ordinary writes to shared memory visible to the tensor cores and the copy
// engine; a barrier must follow.
DEVICE void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// --- Warp-level matrix instructions --------------------------------------------------------------

// Four 8 x 8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8
// and receives, of each, elements 2 * (lane % 4) and + 1 of row lane / 4.
DEVICE void load_matrices(uint32_t (&out)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same with each matrix transposed.
DEVICE void load_matrices_transposed(uint32_t (&out)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// d[16 x 8] += a[16 x 16] * b[16 x 8], BF16 inputs, f32 sums. With g = lane / 4, t = lane % 4:
// d = (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1);
// a = (g, 2t..), (g+8, 2t..), (g, 2t+8..), (g+8, 2t+8..), two neighbouring columns each;
// b = (2t.., g), (2t+8.., g), two neighbouring rows each.
DEVICE void multiply_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, "
                 "%6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// --- Arithmetic ----------------------------------------------------------------------------------

// 2^x to about 2 units in the last place.
DEVICE float fast_exp2(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

#else
#include "host/device.h"
#endif

// --- Sums and maxima across lanes ----------------------------------------------------------------

DEVICE float warp_sum(float value) {
    for (int distance = 16; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

DEVICE float warp_max(float value) {
    for (int distance = 16; distance > 0; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

template <typename T> DEVICE T divide_up(T a, T b) { return (a + b - 1) / b; }
