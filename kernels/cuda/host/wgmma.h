// Warpgroup products on the processor, see wgmma.cuh. They are computed late: sums hold NaN from
// the product until the wait, and whoever overwrites a factor too early gets wrong sums.
#pragma once

namespace host_executor {

enum class Numbers { e4m3, bf16 };

void warpgroup_issue(Numbers numbers, unsigned columns, float* sums, uint64_t a, uint64_t b,
                     bool keep);
void warpgroup_wait_until(int pending);

template <int count> constexpr bool product_exists() {
    return count == 4 || count == 8 || count == 16 || count == 32 || count == 64;
}

} // namespace host_executor

void warpgroup_arrive();
void warpgroup_commit();
template <int pending> inline void warpgroup_wait() {
    host_executor::warpgroup_wait_until(pending);
}

template <int count>
inline void warpgroup_product(E4m3, float (&sums)[count], uint64_t a, uint64_t b, bool keep) {
    static_assert(host_executor::product_exists<count>(), "8, 16, 32, 64 or 128 columns");
    host_executor::warpgroup_issue(host_executor::Numbers::e4m3, 2 * count, sums, a, b, keep);
}

template <int count>
inline void warpgroup_product(Bf16, float (&sums)[count], uint64_t a, uint64_t b, bool keep) {
    static_assert(host_executor::product_exists<count>(), "8, 16, 32, 64 or 128 columns");
    host_executor::warpgroup_issue(host_executor::Numbers::bf16, 2 * count, sums, a, b, keep);
}
