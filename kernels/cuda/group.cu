// Pairs of token and expert, sorted by expert and then by slot ([row][rank]), in segments that
// begin at multiples of eight; tiles of them for the matrix products; rows in their order.
//
// The sort counts: how often each warp (or block) meets each expert, then where each of their
// shares begins, then everyone places theirs. Shares lie in the order of the slots.
#include "rows.cuh"

struct GroupArgs {
    // [slots]; what is not below `num_experts` is in no pair.
    const uint32_t* experts;
    // [slots], NONE for slots in no pair.
    uint32_t* pair_of_slot;
    // [capacity], NONE for gaps and behind the end.
    uint32_t* token_of_pair;
    TokenTile* tiles;
    // Number of tiles; end of the last segment.
    uint32_t* counts;
    // [blocks][experts] if several blocks work together: slots, then where their pairs begin.
    uint32_t* block_table;
    int32_t slots;
    int32_t top_k;
    int32_t num_experts;
    // Largest number of pairs of a tile, a multiple of eight.
    int32_t tile_width;
    int32_t capacity;
    int32_t blocks;
};
static_assert(sizeof(GroupArgs) == 72, "as in group.rs");

constexpr int GROUP_THREADS = 1024;
constexpr int GROUP_WARPS = GROUP_THREADS / 32;
constexpr int GROUP_STEP = 8;

// Those of the lanes that come before this one.
DEVICE uint32_t lanes_before(uint32_t lanes) { return lanes & ((1u << threadIdx.x % 32) - 1); }

// Calls `visit(slot, expert, peers)` for this warp's share of the block's slots, 32 consecutive
// slots at a time; `peers` are the lanes with the same expert. Lanes without a pair have NONE.
template <typename Visit> DEVICE void for_each_slot(const GroupArgs& args, Visit visit) {
    int per_block = divide_up(divide_up(args.slots, args.blocks), GROUP_THREADS) * GROUP_THREADS;
    int per_warp = per_block / GROUP_WARPS, lane = threadIdx.x % 32;
    int first = blockIdx.x * per_block + threadIdx.x / 32 * per_warp;
    int end = first + per_warp < args.slots ? first + per_warp : args.slots;
    for (int group = first; group < end; group += 32) {
        int slot = group + lane;
        uint32_t expert = slot < end ? args.experts[slot] : NONE;
        if (expert >= static_cast<uint32_t>(args.num_experts)) expert = NONE;
        visit(slot, slot < end, expert, __match_any_sync(0xffffffffu, expert));
        __syncwarp();
    }
}

// table[warp][expert] = how many of the warp's slots have the expert.
DEVICE void count_slots(const GroupArgs& args, uint32_t* table) {
    for (int i = threadIdx.x; i < GROUP_WARPS * args.num_experts; i += GROUP_THREADS) table[i] = 0;
    __syncthreads();
    uint32_t* counts = table + threadIdx.x / 32 * args.num_experts;
    for_each_slot(args, [&](int, bool, uint32_t expert, uint32_t peers) {
        if (expert != NONE && lanes_before(peers) == 0) counts[expert] += __popc(peers);
    });
    __syncthreads();
}

DEVICE uint32_t column_sum(const uint32_t* table, int rows, int columns, int column) {
    uint32_t sum = 0;
#pragma unroll 8
    for (int row = 0; row < rows; row++) sum += table[row * columns + column];
    return sum;
}

// Each count becomes the place where its share begins.
DEVICE void counts_to_places(uint32_t* table, int rows, int columns, int column, uint32_t place) {
#pragma unroll 8
    for (int row = 0; row < rows; row++) {
        uint32_t count = table[row * columns + column];
        table[row * columns + column] = place;
        place += count;
    }
}

// Sums over the threads before this one and over all of the block, of pairs and tiles at once.
struct Sums {
    uint32_t pairs, tiles;
};

DEVICE Sums sum_before(Sums own, Sums& total, Sums* shared) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    Sums sum = own;
    for (int distance = 1; distance < 32; distance *= 2) {
        uint32_t pairs = __shfl_up_sync(0xffffffffu, sum.pairs, distance);
        uint32_t tiles = __shfl_up_sync(0xffffffffu, sum.tiles, distance);
        if (lane >= distance) sum = {sum.pairs + pairs, sum.tiles + tiles};
    }
    if (lane == 31) shared[warp] = sum;
    __syncthreads();
    Sums before = {sum.pairs - own.pairs, sum.tiles - own.tiles};
    total = {0, 0};
#pragma unroll 8
    for (int other = 0; other < GROUP_WARPS; other++) {
        Sums of_warp = shared[other];
        if (other < warp) before = {before.pairs + of_warp.pairs, before.tiles + of_warp.tiles};
        total = {total.pairs + of_warp.pairs, total.tiles + of_warp.tiles};
    }
    return before;
}

// Given the pairs of expert `threadIdx.x`, writes its tiles and gap and returns its first pair.
DEVICE uint32_t place_expert(const GroupArgs& args, uint32_t count, Sums* shared) {
    uint32_t width = args.tile_width, end = divide_up<uint32_t>(count, GROUP_STEP) * GROUP_STEP;
    Sums total, before = sum_before({end, divide_up(count, width)}, total, shared);
    uint32_t tile = before.tiles;
    for (uint32_t done = 0; done < count; done += width, tile++) {
        uint32_t rest = count - done;
        args.tiles[tile] = {threadIdx.x, before.pairs + done, rest < width ? rest : width, 0};
    }
    for (uint32_t i = count; i < end; i++) args.token_of_pair[before.pairs + i] = NONE;
    for (int i = total.pairs + threadIdx.x; i < args.capacity; i += GROUP_THREADS)
        args.token_of_pair[i] = NONE;
    if (threadIdx.x == 0) {
        args.counts[0] = total.tiles;
        args.counts[1] = total.pairs;
    }
    return before.pairs;
}

// Gives each slot its place; `table` says where each warp's share of each expert begins.
DEVICE void place_slots(const GroupArgs& args, uint32_t* table) {
    uint32_t* places = table + threadIdx.x / 32 * args.num_experts;
    for_each_slot(args, [&](int slot, bool is_slot, uint32_t expert, uint32_t peers) {
        uint32_t before = lanes_before(peers), pair = NONE;
        if (expert != NONE) {
            pair = places[expert] + __popc(before);
            args.token_of_pair[pair] = slot / args.top_k;
        }
        __syncwarp();
        if (expert != NONE && before == 0) places[expert] += __popc(peers);
        if (is_slot) args.pair_of_slot[slot] = pair;
    });
}

// All in one block, for few slots.
KERNEL(group, GroupArgs, GROUP_THREADS, 1) {
    uint32_t* table = reinterpret_cast<uint32_t*>(shared_memory());
    Sums* shared = reinterpret_cast<Sums*>(table + GROUP_WARPS * args.num_experts);
    int expert = threadIdx.x, experts = args.num_experts;
    count_slots(args, table);
    uint32_t count = expert < experts ? column_sum(table, GROUP_WARPS, experts, expert) : 0;
    uint32_t first = place_expert(args, count, shared);
    if (expert < experts) counts_to_places(table, GROUP_WARPS, experts, expert, first);
    __syncthreads();
    place_slots(args, table);
}

// The same in three steps, for many.
KERNEL(group_count, GroupArgs, GROUP_THREADS, 1) {
    uint32_t* table = reinterpret_cast<uint32_t*>(shared_memory());
    int expert = threadIdx.x, experts = args.num_experts;
    count_slots(args, table);
    if (expert < experts)
        args.block_table[blockIdx.x * experts + expert] =
            column_sum(table, GROUP_WARPS, experts, expert);
}

KERNEL(group_place, GroupArgs, GROUP_THREADS, 1) {
    Sums* shared = reinterpret_cast<Sums*>(shared_memory());
    int expert = threadIdx.x, experts = args.num_experts;
    uint32_t* table = args.block_table;
    uint32_t count = expert < experts ? column_sum(table, args.blocks, experts, expert) : 0;
    uint32_t first = place_expert(args, count, shared);
    if (expert < experts) counts_to_places(table, args.blocks, experts, expert, first);
}

KERNEL(group_scatter, GroupArgs, GROUP_THREADS, 1) {
    uint32_t* table = reinterpret_cast<uint32_t*>(shared_memory());
    int expert = threadIdx.x, experts = args.num_experts;
    count_slots(args, table);
    if (expert < experts) {
        uint32_t first = args.block_table[blockIdx.x * experts + expert];
        counts_to_places(table, GROUP_WARPS, experts, expert, first);
    }
    __syncthreads();
    place_slots(args, table);
}

// --- Rows in the order of the pairs --------------------------------------------------------------

struct GatherArgs {
    // Panels of 8-bit or 16-bit numbers, and the scales of rows or null.
    const uint8_t* source;
    const float* source_scales;
    const uint32_t* token_of_pair;
    // As `GroupArgs::counts`.
    const uint32_t* counts;
    uint8_t* out;
    float* scales;
    int32_t source_capacity;
    int32_t capacity;
    int32_t panels;
    int32_t unused;
};
static_assert(sizeof(GatherArgs) == 64, "as in pack.rs");

constexpr int GATHER_THREADS = 256;
constexpr int CHUNKS = PANEL_BYTES / 16;
constexpr int GATHER_ROWS = GATHER_THREADS / CHUNKS;
constexpr int GATHER_PANELS = 4;
// As far behind the end of the pairs as tiles reach.
constexpr int OVERHANG = 128;

KERNEL(gather, GatherArgs, GATHER_THREADS, 4) {
    uint32_t pair = blockIdx.x * GATHER_ROWS + threadIdx.x / CHUNKS;
    if (blockIdx.x * GATHER_ROWS >= args.counts[1] + OVERHANG) return;
    int byte_column = threadIdx.x % CHUNKS * 16, first_panel = blockIdx.y * GATHER_PANELS;
    uint32_t token = args.token_of_pair[pair];
    uint4 values[GATHER_PANELS];
#pragma unroll
    for (int i = 0; i < GATHER_PANELS; i++) {
        int panel = first_panel + i;
        values[i] = uint4{0, 0, 0, 0};
        if (token == NONE || panel >= args.panels) continue;
        int column = panel * PANEL_BYTES + byte_column;
        size_t offset = activation_offset(args.source_capacity, token, column);
        values[i] = *reinterpret_cast<const uint4*>(args.source + offset);
    }
#pragma unroll
    for (int i = 0; i < GATHER_PANELS; i++) {
        int panel = first_panel + i;
        if (panel >= args.panels) break;
        int column = panel * PANEL_BYTES + byte_column;
        size_t offset = activation_offset(args.capacity, pair, column);
        *reinterpret_cast<uint4*>(args.out + offset) = values[i];
    }
    if (args.source_scales && first_panel == 0 && byte_column == 0)
        args.scales[pair] = token == NONE ? 0.0f : args.source_scales[token];
}
