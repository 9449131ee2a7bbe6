// Matrix products of a warpgroup (four warps, the first of which has a number divisible by four),
// both factors in shared memory, sums in registers.
//
// Both factors lie in panels: rows of 128 bytes, of which the 16-byte chunk c of row r stands in
// place c ^ (r % 8) (the 128-byte swizzle), first row aligned to 1024 bytes. One product takes 32
// bytes of each row: 32 E4M3 numbers or 16 BF16.
//
// Order of calls: warpgroup_arrive, products, warpgroup_commit, warpgroup_wait; sums may not be
// touched, nor the factors overwritten, in between.
#pragma once

#include "device.cuh"

// Describes a panel to the tensor cores, 32 * `step` bytes into its rows (PTX ISA, "matrix
// descriptor"): address and strides in units of 16 bytes, 1024 bytes between groups of 8 rows,
// 128-byte swizzle. The other stride is unused in this layout.
DEVICE uint64_t panel_descriptor(const void* panel, int step) {
    uint64_t address = (shared_address(panel) + 32 * step) >> 4;
    return (address & 0x3fff) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

// Which kind of numbers.
struct E4m3 {
    // Products are multiplied by a scale for each row of either factor.
    static constexpr bool SCALED = true;
};
struct Bf16 {
    static constexpr bool SCALED = false;
};

#ifdef __CUDACC__

DEVICE void warpgroup_arrive() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void warpgroup_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most `pending` committed groups are not done.
template <int pending> DEVICE void warpgroup_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// sums[64 x N] = a[64 x 32 bytes] * b[N x 32 bytes]^T + (keep ? sums : 0). Thread t of the
// warpgroup holds, for each j < N / 8, sums 4j and 4j + 1 at row 16 * (t / 32) + t % 32 / 4,
// columns 8j + 2 * (t % 4) and the next, and sums 4j + 2 and 4j + 3 eight rows below.
#define PRODUCT(N, kind, shape, types, modifiers, registers, a_place, b_place, keep_place, ...)     \
    DEVICE void warpgroup_product(kind, float (&sums)[N / 2], uint64_t a, uint64_t b, bool keep) {  \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " keep_place ", 0;\n"                      \
                     "wgmma.mma_async.sync.aligned." shape ".f32." types " {" registers "}, "       \
                     a_place ", " b_place ", p, 1, 1" modifiers ";\n}"                             \
                     : __VA_ARGS__                                                                  \
                     : "l"(a), "l"(b), "r"(static_cast<int>(keep)));                                \
    }

#define REGISTERS_8 \
    "%0, %1, %2, %3"
#define SUMS_8 \
    "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
PRODUCT(8, E4m3, "m64n8k32", "e4m3.e4m3", "", REGISTERS_8, "%4", "%5", "%6", SUMS_8)
PRODUCT(8, Bf16, "m64n8k16", "bf16.bf16", ", 0, 0", REGISTERS_8, "%4", "%5", "%6", SUMS_8)

#define REGISTERS_16 \
    "%0, %1, %2, %3, %4, %5, %6, %7"
#define SUMS_16 \
    "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]), \
    "+f"(sums[4]), "+f"(sums[5]), "+f"(sums[6]), "+f"(sums[7])
PRODUCT(16, E4m3, "m64n16k32", "e4m3.e4m3", "", REGISTERS_16, "%8", "%9", "%10", SUMS_16)
PRODUCT(16, Bf16, "m64n16k16", "bf16.bf16", ", 0, 0", REGISTERS_16, "%8", "%9", "%10", SUMS_16)

#define REGISTERS_32 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define SUMS_32 \
    "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]), \
    "+f"(sums[4]), "+f"(sums[5]), "+f"(sums[6]), "+f"(sums[7]), \
    "+f"(sums[8]), "+f"(sums[9]), "+f"(sums[10]), "+f"(sums[11]), \
    "+f"(sums[12]), "+f"(sums[13]), "+f"(sums[14]), "+f"(sums[15])
PRODUCT(32, E4m3, "m64n32k32", "e4m3.e4m3", "", REGISTERS_32, "%16", "%17", "%18", SUMS_32)
PRODUCT(32, Bf16, "m64n32k16", "bf16.bf16", ", 0, 0", REGISTERS_32, "%16", "%17", "%18", SUMS_32)

#define REGISTERS_64 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SUMS_64 \
    "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]), \
    "+f"(sums[4]), "+f"(sums[5]), "+f"(sums[6]), "+f"(sums[7]), \
    "+f"(sums[8]), "+f"(sums[9]), "+f"(sums[10]), "+f"(sums[11]), \
    "+f"(sums[12]), "+f"(sums[13]), "+f"(sums[14]), "+f"(sums[15]), \
    "+f"(sums[16]), "+f"(sums[17]), "+f"(sums[18]), "+f"(sums[19]), \
    "+f"(sums[20]), "+f"(sums[21]), "+f"(sums[22]), "+f"(sums[23]), \
    "+f"(sums[24]), "+f"(sums[25]), "+f"(sums[26]), "+f"(sums[27]), \
    "+f"(sums[28]), "+f"(sums[29]), "+f"(sums[30]), "+f"(sums[31])
PRODUCT(64, E4m3, "m64n64k32", "e4m3.e4m3", "", REGISTERS_64, "%32", "%33", "%34", SUMS_64)
PRODUCT(64, Bf16, "m64n64k16", "bf16.bf16", ", 0, 0", REGISTERS_64, "%32", "%33", "%34", SUMS_64)

#define REGISTERS_128 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SUMS_128 \
    "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]), \
    "+f"(sums[4]), "+f"(sums[5]), "+f"(sums[6]), "+f"(sums[7]), \
    "+f"(sums[8]), "+f"(sums[9]), "+f"(sums[10]), "+f"(sums[11]), \
    "+f"(sums[12]), "+f"(sums[13]), "+f"(sums[14]), "+f"(sums[15]), \
    "+f"(sums[16]), "+f"(sums[17]), "+f"(sums[18]), "+f"(sums[19]), \
    "+f"(sums[20]), "+f"(sums[21]), "+f"(sums[22]), "+f"(sums[23]), \
    "+f"(sums[24]), "+f"(sums[25]), "+f"(sums[26]), "+f"(sums[27]), \
    "+f"(sums[28]), "+f"(sums[29]), "+f"(sums[30]), "+f"(sums[31]), \
    "+f"(sums[32]), "+f"(sums[33]), "+f"(sums[34]), "+f"(sums[35]), \
    "+f"(sums[36]), "+f"(sums[37]), "+f"(sums[38]), "+f"(sums[39]), \
    "+f"(sums[40]), "+f"(sums[41]), "+f"(sums[42]), "+f"(sums[43]), \
    "+f"(sums[44]), "+f"(sums[45]), "+f"(sums[46]), "+f"(sums[47]), \
    "+f"(sums[48]), "+f"(sums[49]), "+f"(sums[50]), "+f"(sums[51]), \
    "+f"(sums[52]), "+f"(sums[53]), "+f"(sums[54]), "+f"(sums[55]), \
    "+f"(sums[56]), "+f"(sums[57]), "+f"(sums[58]), "+f"(sums[59]), \
    "+f"(sums[60]), "+f"(sums[61]), "+f"(sums[62]), "+f"(sums[63])
PRODUCT(128, E4m3, "m64n128k32", "e4m3.e4m3", "", REGISTERS_128, "%64", "%65", "%66", SUMS_128)
PRODUCT(128, Bf16, "m64n128k16", "bf16.bf16", ", 0, 0", REGISTERS_128, "%64", "%65", "%66", SUMS_128)


#else
#include "host/wgmma.h"
#endif
