// What attention is asked to do: arguments, tasks, and which positions they are about.
//
// A tile is 64 positions, a partition 512, both counted from position 0 of the sequence.
#pragma once

#include "layout.cuh"

constexpr int ATTENTION_THREADS = 128;
constexpr int ATTENTION_WARPS = ATTENTION_THREADS / 32;
constexpr int TILE_KEYS = 64;
constexpr int PARTITION_TILES = 8;
constexpr int PARTITION_KEYS = TILE_KEYS * PARTITION_TILES;
// A block of the cache is a multiple of this many positions.
constexpr int BLOCK_KEYS = 16;
constexpr int GROUPS_IN_TILE = TILE_KEYS / BLOCK_KEYS;

// The same number, of which the compiler knows nothing: what is computed from it is computed where
// it is needed, instead of being kept in registers.
DEVICE int recompute(int value) {
    asm volatile("" : "+r"(value));
    return value;
}

// Consecutive rows of one sequence, and some of the partitions that they see.
struct AttentionTask {
    uint32_t first_row;
    uint32_t rows;
    uint32_t slot;
    uint32_t first_position;
    uint32_t first_partition;
    uint32_t partitions;
    // Where its results go: the first of its lines among the partial results, or `WHOLE` if the
    // task has all partitions of its rows.
    uint32_t first_line;
    uint32_t unused;
};

constexpr uint32_t WHOLE = 0xffffffff;

struct AttentionArgs {
    // BF16 [rows][heads * head_dim].
    const uint8_t* queries;
    const uint8_t* cache;
    // BF16 activation of heads * head_dim columns.
    uint8_t* output;
    // [slot][table_stride].
    const uint32_t* tables;
    const AttentionTask* tasks;
    // First task and end.
    const uint32_t* range;
    // Partial results: [line][head_dim] weighted values and [line] maximum and sum. A partition
    // of a task has [kv_head][row][head of the group] lines.
    float* partial_values;
    float* partial_sums;
    // Scratch of each block: 128 * head_dim floats.
    float* totals;
    int32_t heads;
    int32_t kv_heads;
    int32_t block_size;
    int32_t table_stride;
    // Rows of the output.
    int32_t capacity;
    // How many positions up to its own a row sees.
    uint32_t visible_keys;
    // Factor on query-key products, times log2(e).
    float scale;
    uint32_t unused;
};
static_assert(sizeof(AttentionArgs) == 9 * 8 + 8 * 4, "as Rust has it");

DEVICE int first_visible(const AttentionArgs& args, int position) {
    uint32_t end = position + 1;
    return end > args.visible_keys ? end - args.visible_keys : 0;
}

// A task for one key-value head. Its queries are the task's rows times the heads of the group,
// in this order.
struct HeadTask {
    AttentionTask task;
    int kv_head;
    int group;
    int queries;
    // Positions of the task's partitions that any row sees.
    int first;
    int last;

    DEVICE HeadTask(const AttentionArgs& args, uint32_t item_of_block) {
        uint32_t item = recompute(item_of_block);
        task = args.tasks[item / args.kv_heads];
        kv_head = item % args.kv_heads;
        group = args.heads / args.kv_heads;
        queries = task.rows * group;
        first = max(first_visible(args, task.first_position),
                    static_cast<int>(task.first_partition) * PARTITION_KEYS);
        last = min(static_cast<int>(task.first_position + task.rows),
                   static_cast<int>(task.first_partition + task.partitions) * PARTITION_KEYS) -
               1;
    }

    // Position of a query; -1 behind the last.
    DEVICE int position(int query) const {
        return query < queries ? static_cast<int>(task.first_position) + query / group : -1;
    }

    // First and last of the tiles of which all rows see all positions.
    DEVICE int first_full(const AttentionArgs& args) const {
        return divide_up(first_visible(args, task.first_position + task.rows - 1), TILE_KEYS);
    }
    DEVICE int last_full() const {
        return (static_cast<int>(task.first_position) + 1) / TILE_KEYS - 1;
    }

    // Line of a query's partial result.
    DEVICE size_t line(const AttentionArgs& args, int partition, int query) const {
        size_t piece = (partition - task.first_partition) * args.kv_heads + kv_head;
        return task.first_line + piece * queries + query;
    }
};
