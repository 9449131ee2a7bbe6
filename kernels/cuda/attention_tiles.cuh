// Keys and values on their way from the paged cache to the tensor cores.
//
// The cache of a layer is [block][kv_head], and for each of these first the keys
// [block_size][head_dim], then the values [block_size][head_dim]. A tile is 64 positions, a
// partition 512, both counted from position 0 of the sequence. The keys of a tile, and its
// values, are a half tile each: what a block brings to shared memory in one go.
#pragma once

#include "attention_tasks.cuh"

// Offset of a 16-byte chunk in a matrix with rows of `columns` 16-bit numbers. Eight neighbouring
// rows have the same chunk in different banks.
template <int columns> DEVICE int chunk_offset(int row, int chunk) {
    int turn = columns >= 64 ? row & 7 : row >> 1 & 3;
    return row * columns * 2 + (chunk ^ turn) * 16;
}

// Where this lane's row of four 8 x 8 matrices stands, the first of which begins at a row divisible
// by 8 and an even chunk: two by two, the second of which is below the first ...
template <int columns> DEVICE int quad_down(int row, int chunk, int lane) {
    return row * columns * 2 + (chunk_offset<columns>(lane & 15, lane >> 4) ^ chunk * 16);
}

// ... or to its right.
template <int columns> DEVICE int quad_right(int row, int chunk, int lane) {
    int own = chunk_offset<columns>((lane & 7) + (lane >> 4) * 8, lane >> 3 & 1);
    return row * columns * 2 + (own ^ chunk * 16);
}

// The same of four matrices one below the other, which begin at any chunk.
template <int columns> DEVICE int quad_column(int row, int chunk, int lane) {
    return row * columns * 2 + chunk_offset<columns>(lane, chunk);
}

// Keys and values in memory.
struct Bf16Cache {
    static constexpr int BYTES = 2;
};
struct E4m3Cache {
    static constexpr int BYTES = 1;
};

// Eight E4M3 numbers as bfloat16.
DEVICE uint4 widen_eight(uint32_t low, uint32_t high) {
    return uint4{widen_e4m3(low & 0xffff), widen_e4m3(low >> 16), widen_e4m3(high & 0xffff),
                 widen_e4m3(high >> 16)};
}

// Half tiles in order, several of them on their way while one is computed with. Keys and values
// take turns if `alternating`; else each partition's keys come before its values.
template <class Cache, int head_dim, bool alternating> struct HalfTiles {
    static constexpr int ROW_BYTES = head_dim * Cache::BYTES;
    static constexpr int HALF_BYTES = TILE_KEYS * ROW_BYTES;
    static constexpr int WIDE_BYTES = TILE_KEYS * head_dim * 2;
    static constexpr int SLOTS = 4;
    static constexpr bool WIDENED = Cache::BYTES == 1;
    // Half tiles on their way.
    static constexpr int AHEAD = WIDENED ? SLOTS : SLOTS - 1;
    // Slots, and two places for widened half tiles.
    static constexpr int SHARED_BYTES = SLOTS * HALF_BYTES + (WIDENED ? 2 * WIDE_BYTES : 0);
    static constexpr int ROW_CHUNKS = ROW_BYTES / 16;
    static constexpr int PASSES = TILE_KEYS * ROW_CHUNKS / ATTENTION_THREADS;

    const AttentionArgs& args;
    uint32_t item;
    uint8_t* shared;
    // Positions that any row sees; all others are brought as zeroes.
    int first;
    int last;
    // The next half tile to begin: twice the tile, plus 1 for its values.
    int half;
    // Half tiles taken; counted by `half` if it never jumps.
    int taken;
    // Where the keys of 16 positions lie in the cache, in units of 16 bytes: those with number
    // `lane` of the partition.
    uint32_t group;

    DEVICE HalfTiles(const AttentionArgs& args, uint32_t item, const HeadTask& head,
                     uint8_t* shared)
        : args(args), item(item), shared(shared), first(head.first), last(head.last),
          half(head.first / TILE_KEYS * 2), taken(half), group(0) {}

    // First and last tile of which any row sees something.
    DEVICE int first_tile() const { return first / TILE_KEYS; }
    DEVICE int last_tile() const { return last / TILE_KEYS; }

    // Starts the first copies. What the thread copied before becomes part of the first.
    DEVICE void start() {
        for (int i = 0; i < AHEAD; i++) begin((taken + i) % SLOTS);
    }

    // The next half tile, 64 rows of `head_dim` BF16 numbers in the layout of `chunk_offset`. All
    // threads of the block call it, done with the half tile before, which is gone.
    DEVICE const uint8_t* take() {
        const uint8_t* out = shared;
        int number = alternating ? half - AHEAD : taken++;
        async_copy_wait<AHEAD - 1>();
        if (WIDENED) {
            out += SLOTS * HALF_BYTES + number % 2 * WIDE_BYTES;
            widen(shared + number % SLOTS * HALF_BYTES, const_cast<uint8_t*>(out));
            begin(number % SLOTS);
            __syncthreads();
        } else {
            __syncthreads();
            out += number % SLOTS * HALF_BYTES;
            // All threads have finished with the slot before.
            begin((number + AHEAD) % SLOTS);
        }
        return out;
    }

  private:
    // Starts the copies of the next half tile, if there is one.
    DEVICE void begin(int slot) {
        int tile = half / 2;
        bool values = half % 2 != 0;
        if (tile <= last_tile()) {
            bool enters = tile == first_tile() || tile % PARTITION_TILES == 0;
            if (enters && !values) find_groups(tile / PARTITION_TILES);
            copy(tile, values, shared + slot * HALF_BYTES);
            if (!alternating) half = after(tile, values);
        }
        if (alternating) half++;
        // Also without copies, so that the number of groups tells how far they are.
        async_copy_commit();
    }

    // The half tile after another, where a partition's keys come before its values.
    DEVICE int after(int tile, bool values) const {
        bool ends = (tile + 1) % PARTITION_TILES == 0 || tile == last_tile();
        if (!ends) return tile * 2 + 2 + values;
        if (values) return tile * 2 + 2;
        return max(first_tile(), tile / PARTITION_TILES * PARTITION_TILES) * 2 + 1;
    }

    DEVICE void find_groups(int partition) {
        int position = partition * PARTITION_KEYS + (threadIdx.x % 32) * BLOCK_KEYS;
        group = 0;
        // The table may hold anything where no position is visible.
        if (position + BLOCK_KEYS <= first || position > last) return;
        uint32_t item = recompute(this->item);
        uint32_t slot = args.tasks[item / args.kv_heads].slot, kv_head = item % args.kv_heads;
        size_t entry = static_cast<size_t>(slot) * args.table_stride + position / args.block_size;
        uint32_t half = args.tables[entry] * args.kv_heads + kv_head;
        group = (half * 2 * args.block_size + position % args.block_size) * ROW_CHUNKS;
    }

    DEVICE void copy(int tile, bool values, uint8_t* slot) const {
        // Chunks of 16 positions that lie together; several passes for one such group, or several
        // groups in one pass.
        constexpr int GROUP_CHUNKS = BLOCK_KEYS * ROW_CHUNKS;
        int thread = recompute(threadIdx.x);
        int lane = tile % PARTITION_TILES * GROUPS_IN_TILE + thread / GROUP_CHUNKS;
        // Narrow numbers are widened by the thread that brought them.
        uint8_t* to = slot + (WIDENED ? thread * 16
                                      : chunk_offset<head_dim>(thread / ROW_CHUNKS,
                                                               thread % ROW_CHUNKS));
        const uint8_t* from = args.cache + thread % GROUP_CHUNKS * 16;
        if (values) from += static_cast<size_t>(args.block_size) * ROW_BYTES;
        int position = tile * TILE_KEYS + thread / ROW_CHUNKS;
#pragma unroll
        for (int pass = 0; pass < PASSES; pass++) {
            int begin = pass * ATTENTION_THREADS;
            size_t chunk = __shfl_sync(0xffffffffu, group, lane + begin / GROUP_CHUNKS);
            int key = position + begin / ROW_CHUNKS;
            async_copy16(to + begin * 16, from + (chunk + begin % GROUP_CHUNKS) * 16,
                         key >= first && key <= last);
        }
    }

    DEVICE void widen(const uint8_t* slot, uint8_t* wide) {
        int thread = threadIdx.x;
        slot += thread * 16;
#pragma unroll
        for (int pass = 0; pass < PASSES; pass++) {
            int begin = pass * ATTENTION_THREADS;
            uint4 narrow = *reinterpret_cast<const uint4*>(slot + begin * 16);
            int key = thread / ROW_CHUNKS, chunk = thread % ROW_CHUNKS * 2;
            uint8_t* to = wide + begin * 32;
            *reinterpret_cast<uint4*>(to + chunk_offset<head_dim>(key, chunk)) =
                widen_eight(narrow.x, narrow.y);
            *reinterpret_cast<uint4*>(to + chunk_offset<head_dim>(key, chunk + 1)) =
                widen_eight(narrow.z, narrow.w);
        }
    }
};

// Starts the copies of a task's queries to shared memory, zeroes behind the last.
template <int head_dim>
DEVICE void copy_queries(const AttentionArgs& args, const HeadTask& head, int capacity,
                         uint8_t* shared) {
    constexpr int CHUNKS = head_dim / 8;
    for (int index = recompute(threadIdx.x); index < capacity * CHUNKS; index += ATTENTION_THREADS) {
        int query = index / CHUNKS, chunk = index % CHUNKS;
        size_t row = head.task.first_row + query / head.group;
        size_t column = head.kv_head * head.group + query % head.group;
        const uint8_t* from =
            args.queries + (row * args.heads + column) * head_dim * 2 + chunk * 16;
        async_copy16(shared + chunk_offset<head_dim>(query, chunk), from, query < head.queries);
    }
}

// Copies results from shared memory to the output: queries `begin .. end`, this thread being the
// `thread`-th of `threads`.
template <int head_dim>
DEVICE void write_output(const AttentionArgs& args, const HeadTask& head, const uint8_t* shared,
                         int begin, int end, int thread, int threads) {
    constexpr int CHUNKS = head_dim / 8;
    end = min(end, head.queries);
    for (int index = begin * CHUNKS + recompute(thread); index < end * CHUNKS; index += threads) {
        int query = index / CHUNKS, chunk = index % CHUNKS;
        int row = head.task.first_row + query / head.group;
        int column = (head.kv_head * head.group + query % head.group) * head_dim * 2 + chunk * 16;
        const uint8_t* from = shared + chunk_offset<head_dim>(query, chunk);
        *reinterpret_cast<uint4*>(args.output + activation_offset(args.capacity, row, column)) =
            *reinterpret_cast<const uint4*>(from);
    }
}

// Zeroes from the last head to the end of its panel.
template <int head_dim> DEVICE void write_padding(const AttentionArgs& args, const HeadTask& head) {
    int end = args.heads * head_dim * 2;
    int chunks = (PANEL_BYTES - end % PANEL_BYTES) % PANEL_BYTES / 16;
    if (chunks == 0 || head.kv_head != args.kv_heads - 1) return;
    for (int index = recompute(threadIdx.x); index < static_cast<int>(head.task.rows) * chunks;
         index += ATTENTION_THREADS) {
        int row = head.task.first_row + index / chunks;
        size_t to = activation_offset(args.capacity, row, end + index % chunks * 16);
        *reinterpret_cast<uint4*>(args.output + to) = uint4{0, 0, 0, 0};
    }
}

