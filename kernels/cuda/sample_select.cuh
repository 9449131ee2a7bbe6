// Selection of a row's most likely tokens and the draw, by one block.
//
// Everything is a function of the set of tokens and their weights alone: sums are of integers,
// and where a set is looked for among candidates first, they are known to contain it.
#pragma once

#include "sample_row.cuh"

constexpr int FINISH_THREADS = 1024;
constexpr int FINISH_WARPS = FINISH_THREADS / 32;
constexpr int BINS = 2048;
constexpr int CANDIDATES = 4096;
constexpr uint32_t ALL_LANES = 0xffffffffu;

// What `locate` found.
struct Located {
    // Sum before the place.
    uint64_t before;
    uint32_t place;
    uint32_t reached;
};

// What a draw is made with.
struct Drawing {
    uint64_t random;
    // 0 if it has yet to be computed.
    uint64_t top_p_target;
    Weights weights;
    float top_p;
    // 0 for all.
    uint32_t top_k;
    uint32_t unused;
};

// The block's shared memory.
struct FinishMemory {
    // Of each group of 256 tokens: weights, or counts of candidates.
    uint64_t sums[MAX_SEGMENTS];
    uint64_t of_warp[FINISH_WARPS];
    Located located;
    float maxima[MAX_SEGMENTS];
    // A histogram: tokens, and the two halves of the sum of their weights.
    uint32_t counts[BINS];
    uint32_t low[BINS];
    uint32_t high[BINS];
    // A group of each warp.
    float loaded[FINISH_WARPS][SEGMENT];
    // In ascending order of tokens.
    float candidate_logits[CANDIDATES];
    uint32_t candidate_tokens[CANDIDATES];
    // The tokens that are reported, in any order.
    uint64_t top_keys[MAX_TOP];
    float top_logits[MAX_TOP];
    uint32_t top_count;
    uint32_t token;
    // The row as it is sampled, and as it came.
    RowLogits adjusted;
    RowLogits raw;
    Drawing drawing;
};

static_assert(sizeof(FinishMemory) == 115392, "as in Rust");
static_assert(MAX_SEGMENTS == 2 * FINISH_THREADS && BINS == 2 * FINISH_THREADS,
              "each thread has two places");

// --- Across the block ----------------------------------------------------------------------------

struct Sum {
    template <typename T> DEVICE T operator()(T a, T b) const { return a + b; }
};

struct Largest {
    template <typename T> DEVICE T operator()(T a, T b) const { return a > b ? a : b; }
};

template <typename T, typename Combine> DEVICE T warp_combine(T value, Combine combine) {
    for (int distance = 16; distance > 0; distance /= 2)
        value = combine(value, __shfl_xor_sync(ALL_LANES, value, distance));
    return value;
}

// In a fixed order; every thread gets the result.
template <typename T, typename Combine>
DEVICE T block_combine(FinishMemory& memory, T value, Combine combine) {
    T* of_warp = reinterpret_cast<T*>(memory.of_warp);
    value = warp_combine(value, combine);
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    return warp_combine(of_warp[threadIdx.x % 32], combine);
}

template <typename T> DEVICE T warp_inclusive_sum(T value) {
    for (int distance = 1; distance < 32; distance *= 2) {
        T below = __shfl_up_sync(ALL_LANES, value, distance);
        if (static_cast<int>(threadIdx.x % 32) >= distance) value += below;
    }
    return value;
}

// The sum of the values of all threads before this one.
DEVICE uint64_t block_sum_before(FinishMemory& memory, uint64_t value) {
    uint64_t inclusive = warp_inclusive_sum(value);
    __syncthreads();
    if (threadIdx.x % 32 == 31) memory.of_warp[threadIdx.x / 32] = inclusive;
    __syncthreads();
    uint64_t of_warp = memory.of_warp[threadIdx.x % 32];
    uint64_t before = warp_inclusive_sum(of_warp) - of_warp;
    return __shfl_sync(ALL_LANES, before, threadIdx.x / 32) + inclusive - value;
}

// Of places 2 * thread and 2 * thread + 1 with these values: the first at which the running sum
// reaches `wanted`, which is not 0.
DEVICE Located locate(FinishMemory& memory, uint64_t first, uint64_t second, uint64_t wanted) {
    if (threadIdx.x == 0) memory.located.reached = 0;
    uint64_t before = block_sum_before(memory, first + second);
    if (before < wanted && wanted <= before + first + second) {
        bool in_first = wanted <= before + first;
        memory.located = {in_first ? before : before + first, 2 * threadIdx.x + !in_first, 1};
    }
    __syncthreads();
    Located located = memory.located;
    __syncthreads();
    return located;
}

// --- Where tokens come from ----------------------------------------------------------------------

// 52 bits that order tokens by logit, equal ones by descending id.
DEVICE uint64_t token_key(float logit, uint32_t token) {
    // Adding zero makes the two zeros one.
    uint32_t bits = float_bits(add(logit, 0.0f));
    uint32_t ordered = bits >> 31 ? ~bits : bits | 0x80000000u;
    return static_cast<uint64_t>(ordered) << 20 | (0xfffff - token);
}

// Tokens in ascending order, in groups of 256: a row's, or listed ones. Where there is none, and
// for tokens that cannot be sampled, the logit is minus infinity.
struct Source {
    // If there is none, numbers in shared memory, padded to whole groups, and their tokens; those
    // are the places if null.
    const RowLogits* row;
    const float* logits;
    const uint32_t* tokens;
    uint32_t count;

    DEVICE uint32_t groups() const { return divide_up(count, static_cast<uint32_t>(SEGMENT)); }

    // Calls `visit(logit, token)` for each token of a group that is this lane's. Places in
    // `memory.loaded` are a lane's own.
    template <typename Visit>
    DEVICE void for_each(FinishMemory& memory, uint32_t group, Visit visit) const {
        const float* values = logits + group * SEGMENT;
        if (row) {
            row->load(group, memory.loaded[threadIdx.x / 32]);
            values = memory.loaded[threadIdx.x / 32];
        }
#pragma unroll 1
        for (uint32_t i = threadIdx.x % 32; i < SEGMENT; i += 32) {
            uint32_t place = group * SEGMENT + i;
            visit(values[i], tokens && place < count ? tokens[place] : place);
        }
    }

    // The same for this warp's part of all groups.
    template <typename Visit> DEVICE void for_all(FinishMemory& memory, Visit visit) const {
        for (uint32_t group = threadIdx.x / 32; group < groups(); group += FINISH_WARPS)
            for_each(memory, group, visit);
    }
};

DEVICE Source whole_row(const RowLogits& row) { return {&row, nullptr, nullptr, row.vocabulary}; }

// Fills a list up to a whole group.
DEVICE void pad_list(float* logits, uint32_t count) {
    uint32_t place = count + threadIdx.x;
    if (place < divide_up(count, static_cast<uint32_t>(SEGMENT)) * SEGMENT)
        logits[place] = -INFINITY;
}

// --- Selection -----------------------------------------------------------------------------------

enum class By { COUNT, WEIGHT };

DEVICE void clear_bins(FinishMemory& memory) {
    for (int bin = threadIdx.x; bin < BINS; bin += FINISH_THREADS) {
        memory.counts[bin] = 0;
        memory.low[bin] = 0;
        memory.high[bin] = 0;
    }
    __syncthreads();
}

DEVICE void add_to_bin(FinishMemory& memory, uint32_t bin, uint64_t weight) {
    uint32_t low = static_cast<uint32_t>(weight);
    uint32_t before = atomicAdd(&memory.low[bin], low);
    uint32_t high = static_cast<uint32_t>(weight >> 32) + (before + low < before);
    if (high > 0) atomicAdd(&memory.high[bin], high);
}

template <By by> DEVICE uint64_t bin_value(const FinishMemory& memory, uint32_t bin) {
    if (by == By::COUNT) return memory.counts[bin];
    return static_cast<uint64_t>(memory.high[bin]) << 32 | memory.low[bin];
}

// Where a selection ends: tokens with keys from `key` on are in it.
struct Cut {
    uint64_t key;
    bool reached;
};

// Among tokens with keys from `floor` on, the fewest of the largest keys whose number or weight
// reaches `wanted`: from the highest digit of the keys down, the bin in which that happens.
template <By by>
DEVICE Cut select(FinishMemory& memory, const Source& source, const Weights& weights,
                  uint64_t floor, uint64_t wanted) {
    uint64_t prefix = 0;
    for (int known = 52;;) {
        int width = known > 30 ? 11 : 10, shift = known - width;
        clear_bins(memory);
        source.for_all(memory, [&](float logit, uint32_t token) {
            uint64_t key = token_key(logit, token);
            if (logit == -INFINITY || key < floor || key >> known != prefix) return;
            uint32_t bin = static_cast<uint32_t>(key >> shift) & ((1u << width) - 1);
            atomicAdd(&memory.counts[bin], 1u);
            if (by == By::WEIGHT) add_to_bin(memory, bin, weights.of(logit));
        });
        __syncthreads();
        // The largest keys first.
        uint32_t last = BINS - 1 - 2 * threadIdx.x;
        Located found = locate(memory, bin_value<by>(memory, last),
                               bin_value<by>(memory, last - 1), wanted);
        if (!found.reached) return {floor, false};
        uint32_t bin = BINS - 1 - found.place;
        prefix = prefix << width | bin;
        wanted -= found.before;
        bool whole_bin = memory.counts[bin] == (by == By::COUNT ? wanted : 1);
        if (whole_bin || shift == 0) {
            uint64_t key = prefix << shift;
            __syncthreads();
            return {key > floor ? key : floor, true};
        }
        known = shift;
        __syncthreads();
    }
}

// Puts the weights of each group into `sums`, of tokens with keys from `floor` on.
DEVICE void sum_groups(FinishMemory& memory, const Source& source, const Weights& weights,
                       uint64_t floor) {
    __syncthreads();
    for (uint32_t group = threadIdx.x / 32; group < source.groups(); group += FINISH_WARPS) {
        uint64_t sum = 0;
        source.for_each(memory, group, [&](float logit, uint32_t token) {
            if (token_key(logit, token) >= floor) sum += weights.of(logit);
        });
        sum = warp_combine(sum, Sum());
        if (threadIdx.x % 32 == 0) memory.sums[group] = sum;
    }
    __syncthreads();
}

// The weight of the group at one of this thread's two places.
DEVICE uint64_t group_sum(const FinishMemory& memory, uint32_t groups, int which) {
    uint32_t group = 2 * threadIdx.x + which;
    return group < groups ? memory.sums[group] : 0;
}

DEVICE uint64_t total_of_groups(FinishMemory& memory, uint32_t groups) {
    uint64_t own = group_sum(memory, groups, 0) + group_sum(memory, groups, 1);
    return block_combine(memory, own, Sum());
}

// The first token, in ascending order, at which the running sum of weights exceeds `random` /
// 2^64 of the total; `sums` has the groups'. `NONE` if no token has a weight.
DEVICE uint32_t draw(FinishMemory& memory, const Source& source, const Weights& weights,
                     uint64_t floor, uint64_t random) {
    uint32_t groups = source.groups();
    uint64_t wanted = multiply_high(random, total_of_groups(memory, groups)) + 1;
    Located found = locate(memory, group_sum(memory, groups, 0), group_sum(memory, groups, 1),
                           wanted);
    if (threadIdx.x == 0) memory.token = NONE;
    __syncthreads();
    if (found.reached && threadIdx.x < 32) {
        uint64_t running = found.before;
        bool done = false;
        source.for_each(memory, found.place, [&](float logit, uint32_t token) {
            uint64_t weight = token_key(logit, token) >= floor ? weights.of(logit) : 0;
            uint64_t inclusive = running + warp_inclusive_sum(weight);
            uint32_t beyond = __ballot_sync(ALL_LANES, inclusive >= wanted);
            if (!done && beyond != 0 && static_cast<int>(threadIdx.x) == __ffs(beyond) - 1)
                memory.token = token;
            done = done || beyond != 0;
            running = __shfl_sync(ALL_LANES, inclusive, 31);
        });
    }
    __syncthreads();
    return memory.token;
}

// --- Candidates ----------------------------------------------------------------------------------

// The largest number that at least `wanted` of `maxima` reach; minus infinity if there are fewer.
DEVICE float candidate_threshold(FinishMemory& memory, uint32_t segments, uint32_t wanted) {
    Source maxima = {nullptr, memory.maxima, nullptr, segments};
    pad_list(memory.maxima, segments);
    Cut cut = select<By::COUNT>(memory, maxima, Weights{}, 0, wanted);
    if (!cut.reached) return -INFINITY;
    float smallest = INFINITY;
    for (uint32_t segment = threadIdx.x; segment < segments; segment += FINISH_THREADS)
        if (token_key(memory.maxima[segment], segment) >= cut.key)
            smallest = fminf(smallest, memory.maxima[segment]);
    return -block_combine(memory, -smallest, Largest());
}

// Lists all of the row's tokens that are no smaller than the `wanted`-th largest of `maxima`,
// which the `wanted` most likely tokens are; the row itself if there is no room.
DEVICE Source gather(FinishMemory& memory, const RowLogits& row, uint32_t wanted) {
    Source source = whole_row(row);
    uint32_t segments = source.groups(), lane_index = threadIdx.x % 32;
    float threshold = candidate_threshold(memory, segments, wanted);
    __syncthreads();
    for (uint32_t group = threadIdx.x / 32; group < segments; group += FINISH_WARPS) {
        uint32_t count = 0;
        if (memory.maxima[group] >= threshold && memory.maxima[group] > -INFINITY)
            source.for_each(memory, group, [&](float logit, uint32_t) {
                count += logit >= threshold && logit > -INFINITY;
            });
        count = warp_combine(count, Sum());
        if (lane_index == 0) memory.sums[group] = count;
    }
    __syncthreads();
    uint64_t total = total_of_groups(memory, segments);
    if (total > CANDIDATES) return source;
    // Each group's count becomes the place of its first candidate, with the count above.
    uint64_t first = group_sum(memory, segments, 0), second = group_sum(memory, segments, 1);
    uint64_t before = block_sum_before(memory, first + second);
    uint32_t group = 2 * threadIdx.x;
    if (group < segments) memory.sums[group] = first << 32 | before;
    if (group + 1 < segments) memory.sums[group + 1] = second << 32 | (before + first);
    __syncthreads();
    for (group = threadIdx.x / 32; group < segments; group += FINISH_WARPS) {
        uint32_t place = static_cast<uint32_t>(memory.sums[group]);
        if (memory.sums[group] >> 32 == 0) continue;
        source.for_each(memory, group, [&](float logit, uint32_t token) {
            bool listed = logit >= threshold && logit > -INFINITY;
            uint32_t all = __ballot_sync(ALL_LANES, listed);
            uint32_t own = place + __popc(all & ((1u << lane_index) - 1));
            if (listed) memory.candidate_logits[own] = logit;
            if (listed) memory.candidate_tokens[own] = token;
            place += __popc(all);
        });
    }
    pad_list(memory.candidate_logits, static_cast<uint32_t>(total));
    __syncthreads();
    uint32_t count = static_cast<uint32_t>(total);
    return {nullptr, memory.candidate_logits, memory.candidate_tokens, count};
}
