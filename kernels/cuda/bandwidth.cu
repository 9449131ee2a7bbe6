// Kernels that do nothing but move memory: what all others are measured against.
#include "device.cuh"

struct BandwidthArgs {
    const uint4* from;
    uint4* to;
    // Whole chunks of 16-byte vectors.
    uint64_t chunks;
};
static_assert(sizeof(BandwidthArgs) == 24, "as in bandwidth.rs");

constexpr int BANDWIDTH_THREADS = 512;
// 16-byte loads that a thread has in flight.
constexpr int LOADS = 8;
constexpr int CHUNK = BANDWIDTH_THREADS * LOADS;

DEVICE void load_chunk(uint4 (&out)[LOADS], const uint4* from, uint64_t chunk) {
    const uint4* first = from + chunk * CHUNK + threadIdx.x;
#pragma unroll
    for (int i = 0; i < LOADS; i++) out[i] = first[i * BANDWIDTH_THREADS];
}

KERNEL(bandwidth_copy, BandwidthArgs, BANDWIDTH_THREADS, 2) {
    for (uint64_t chunk = blockIdx.x; chunk < args.chunks; chunk += gridDim.x) {
        uint4 vectors[LOADS];
        load_chunk(vectors, args.from, chunk);
        uint4* first = args.to + chunk * CHUNK + threadIdx.x;
#pragma unroll
        for (int i = 0; i < LOADS; i++) first[i * BANDWIDTH_THREADS] = vectors[i];
    }
}

// Writes for each thread the exclusive or of all that it read, so that nothing read is unneeded.
KERNEL(bandwidth_read, BandwidthArgs, BANDWIDTH_THREADS, 2) {
    uint4 sum = {0, 0, 0, 0};
    for (uint64_t chunk = blockIdx.x; chunk < args.chunks; chunk += gridDim.x) {
        uint4 vectors[LOADS];
        load_chunk(vectors, args.from, chunk);
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            sum.x ^= vectors[i].x;
            sum.y ^= vectors[i].y;
            sum.z ^= vectors[i].z;
            sum.w ^= vectors[i].w;
        }
    }
    args.to[blockIdx.x * BANDWIDTH_THREADS + threadIdx.x] = sum;
}
