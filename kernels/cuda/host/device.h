// What device.cuh gives to kernels, for the processor: the same functions, performed by the host
// executor, which runs each thread as a fiber. For tests and machines without a card only.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

struct uint3 {
    unsigned x, y, z;
};
using dim3 = uint3;

#define HOST_VECTOR(name, type, alignment, ...)                                              \
    struct alignas(alignment) name {                                                               \
        type __VA_ARGS__;                                                                          \
    };
HOST_VECTOR(int2, int, 8, x, y)
HOST_VECTOR(int4, int, 16, x, y, z, w)
HOST_VECTOR(uint2, unsigned, 8, x, y)
HOST_VECTOR(uint4, unsigned, 16, x, y, z, w)
HOST_VECTOR(float2, float, 8, x, y)
HOST_VECTOR(float4, float, 16, x, y, z, w)
#undef HOST_VECTOR

inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace host_executor {

constexpr unsigned WARP_LANES = 32;

// What a kernel can see of its thread.
struct Thread {
    uint3 thread_index;
    uint3 block_index;
    uint3 block_size;
    uint3 grid_size;
    unsigned lane;
    uint8_t* shared;
};

// The thread that runs on this thread of the operating system. It is looked at all the time, so it
// lies where no call is needed to find it.
extern __thread Thread* current __attribute__((tls_model("initial-exec")));

// A kernel, in the list of all.
struct Registration {
    const char* name;
    unsigned threads;
    size_t args_bytes;
    void (*run)(const void* args);
    Registration* next;

    Registration(const char* name, unsigned threads, size_t args_bytes, void (*run)(const void*));
};

// Ends the launch with an error.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// The threads of a warp in `mask` meet. The last one to arrive performs `complete` with what each
// lane of the mask brought; it may write results there.
using Complete = void (*)(void* const (&lanes)[WARP_LANES], unsigned mask);
void meet(const char* name, unsigned mask, void* brought, Complete complete);

struct Exchange {
    uint64_t value;
    unsigned source;
    uint64_t result;
};
void exchange(void* const (&lanes)[WARP_LANES], unsigned mask);
// Replaces each lane's 64-bit value by the mask of lanes with the same.
void match(void* const (&lanes)[WARP_LANES], unsigned mask);

template <typename T>
inline T shuffle(const char* name, unsigned mask, T value, unsigned source) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "a number");
    Exchange lane{0, source, 0};
    std::memcpy(&lane.value, &value, sizeof(T));
    meet(name, mask, &lane, exchange);
    std::memcpy(&value, &lane.result, sizeof(T));
    return value;
}

// Combines the values of all lanes.
template <typename T, typename Combine>
void reduce(void* const (&lanes)[WARP_LANES], unsigned mask) {
    T result{};
    bool first = true;
    for (unsigned lane = 0; lane < WARP_LANES; lane++) {
        if (!(mask >> lane & 1)) continue;
        T value = *static_cast<T*>(lanes[lane]);
        result = first ? value : Combine()(result, value);
        first = false;
    }
    for (unsigned lane = 0; lane < WARP_LANES; lane++)
        if (mask >> lane & 1) *static_cast<T*>(lanes[lane]) = result;
}

struct Add {
    template <typename T> T operator()(T a, T b) const { return a + b; }
};
struct Least {
    template <typename T> T operator()(T a, T b) const { return b < a ? b : a; }
};
struct Greatest {
    template <typename T> T operator()(T a, T b) const { return a < b ? b : a; }
};
struct Union {
    template <typename T> T operator()(T a, T b) const { return a | b; }
};

// Replaces *address by change(*address) in one piece, and returns what was there.
template <typename T, typename Change> inline T atomic_change(T* address, Change change) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "atomics have 4 or 8 bytes");
    T old, wanted;
    __atomic_load(address, &old, __ATOMIC_RELAXED);
    do {
        wanted = change(old);
    } while (!__atomic_compare_exchange(address, &old, &wanted, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED));
    return old;
}

inline float exp2_flushed(float x) {
    float result = std::exp2(x);
    return result < 1.17549435e-38f ? 0.0f : result;
}

inline float reciprocal_root(float x) { return 1.0f / std::sqrt(x); }

} // namespace host_executor

#define KERNEL(name, Args, threads, blocks)                                                        \
    static void name(const Args& args);                                                            \
    static const host_executor::Registration name##_registration(                                  \
        #name, threads, sizeof(Args),                                                              \
        [](const void* args) { name(*static_cast<const Args*>(args)); });                          \
    static void name(const Args& args)

// Always inlined, as on the card, also because files may have different functions of one name.
#define DEVICE inline __attribute__((always_inline))

#define threadIdx (host_executor::current->thread_index)
#define blockIdx (host_executor::current->block_index)
#define blockDim (host_executor::current->block_size)
#define gridDim (host_executor::current->grid_size)

// --- Shared memory, barriers, copies: see device.cuh ---------------------------------------------

inline uint8_t* shared_memory() { return host_executor::current->shared; }
uint32_t shared_address(const void* pointer);

void __syncthreads();
void named_barrier(int id, int threads);

void mbarrier_init(uint64_t* barrier, uint32_t arrivals);
void mbarrier_init_fence();
void mbarrier_arrive(uint64_t* barrier);
void mbarrier_arrive_expect(uint64_t* barrier, uint32_t bytes);
void mbarrier_wait(uint64_t* barrier, uint32_t parity);

void bulk_copy(void* shared, const void* global, uint32_t bytes, uint64_t* barrier);
void async_copy16(void* shared, const void* global, bool valid);
void async_copy_commit();
void async_copy_wait_until(int pending);
template <int pending> inline void async_copy_wait() { async_copy_wait_until(pending); }

// The order of memory accesses is the program's here.
inline void fence_async_proxy() {}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() {}

// --- Warps ---------------------------------------------------------------------------------------

void load_matrices(uint32_t (&out)[4], const void* row);
void load_matrices_transposed(uint32_t (&out)[4], const void* row);
void multiply_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

void __syncwarp(unsigned mask = 0xffffffffu);
unsigned __ballot_sync(unsigned mask, int predicate);
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }

template <typename T> inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    unsigned lane = host_executor::current->lane, first = lane & ~(width - 1u);
    return host_executor::shuffle("__shfl_sync", mask, value, first | (source & (width - 1u)));
}

template <typename T> inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    unsigned lane = host_executor::current->lane, source = lane ^ bits;
    unsigned end = (lane & ~(width - 1u)) + width;
    return host_executor::shuffle("__shfl_xor_sync", mask, value, source < end ? source : lane);
}

template <typename T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
    unsigned lane = host_executor::current->lane;
    bool inside = (lane & (width - 1u)) >= distance;
    return host_executor::shuffle("__shfl_up_sync", mask, value, inside ? lane - distance : lane);
}

template <typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
    unsigned lane = host_executor::current->lane;
    bool inside = (lane & (width - 1u)) + distance < static_cast<unsigned>(width);
    return host_executor::shuffle("__shfl_down_sync", mask, value, inside ? lane + distance : lane);
}

// The lanes that have the same value.
template <typename T> inline unsigned __match_any_sync(unsigned mask, T value) {
    static_assert(sizeof(T) <= 8, "a number");
    uint64_t lane = 0;
    std::memcpy(&lane, &value, sizeof(T));
    host_executor::meet("__match_any_sync", mask, &lane, host_executor::match);
    return static_cast<unsigned>(lane);
}

#define HOST_REDUCE(name, T, Combine)                                                              \
    inline T name(unsigned mask, T value) {                                                        \
        host_executor::meet(#name, mask, &value,                                                   \
                            host_executor::reduce<T, host_executor::Combine>);                     \
        return value;                                                                              \
    }
HOST_REDUCE(__reduce_add_sync, unsigned, Add)
HOST_REDUCE(__reduce_add_sync, int, Add)
HOST_REDUCE(__reduce_min_sync, unsigned, Least)
HOST_REDUCE(__reduce_min_sync, int, Least)
HOST_REDUCE(__reduce_max_sync, unsigned, Greatest)
HOST_REDUCE(__reduce_max_sync, int, Greatest)
HOST_REDUCE(__reduce_or_sync, unsigned, Union)
#undef HOST_REDUCE

// --- Arithmetic ----------------------------------------------------------------------------------

inline float fast_exp2(float x) { return host_executor::exp2_flushed(x); }

inline unsigned __float_as_uint(float value) { return float_bits(value); }
inline int __float_as_int(float value) { return static_cast<int>(float_bits(value)); }
inline float __uint_as_float(unsigned bits) { return bits_float(bits); }
inline float __int_as_float(int bits) { return bits_float(static_cast<unsigned>(bits)); }

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz(value); }
inline int __clzll(long long value) { return value == 0 ? 64 : __builtin_clzll(value); }
inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __expf(float a) { return std::exp(a); }
inline float __logf(float a) { return std::log(a); }
inline float __log2f(float a) { return std::log2(a); }
#define rsqrtf host_executor::reciprocal_root

template <typename A, typename B> inline std::common_type_t<A, B> min(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point<T>::value) return std::fmin(T(a), T(b));
    else return T(b) < T(a) ? T(b) : T(a);
}

template <typename A, typename B> inline std::common_type_t<A, B> max(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point<T>::value) return std::fmax(T(a), T(b));
    else return T(a) < T(b) ? T(b) : T(a);
}

template <typename T> inline T __ldg(const T* address) { return *address; }
template <typename T> inline T __ldcg(const T* address) { return *address; }
template <typename T> inline T __ldcs(const T* address) { return *address; }
template <typename T> inline void __stcs(T* address, T value) { *address = value; }
template <typename T> inline void __stcg(T* address, T value) { *address = value; }

// --- Atomics, on global and shared memory; they return what was there ----------------------------

template <typename T> inline T atomicAdd(T* address, std::common_type_t<T> value) {
    return host_executor::atomic_change(address, [&](T old) { return static_cast<T>(old + value); });
}
template <typename T> inline T atomicSub(T* address, std::common_type_t<T> value) {
    return host_executor::atomic_change(address, [&](T old) { return static_cast<T>(old - value); });
}
template <typename T> inline T atomicMax(T* address, std::common_type_t<T> value) {
    return host_executor::atomic_change(address, [&](T old) { return old < value ? value : old; });
}
template <typename T> inline T atomicMin(T* address, std::common_type_t<T> value) {
    return host_executor::atomic_change(address, [&](T old) { return value < old ? value : old; });
}
template <typename T> inline T atomicOr(T* address, std::common_type_t<T> value) {
    return host_executor::atomic_change(address, [&](T old) { return static_cast<T>(old | value); });
}
template <typename T> inline T atomicAnd(T* address, std::common_type_t<T> value) {
    return host_executor::atomic_change(address, [&](T old) { return static_cast<T>(old & value); });
}
template <typename T> inline T atomicExch(T* address, std::common_type_t<T> value) {
    return host_executor::atomic_change(address, [&](T) { return value; });
}
template <typename T>
inline T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> value) {
    return host_executor::atomic_change(address,
                                        [&](T old) { return old == expected ? value : old; });
}
