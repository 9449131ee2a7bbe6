// Block tables: what changed since the last step.
#include "layout.cuh"

// Some consecutive new blocks of one slot.
struct TableUpdate {
    uint32_t table;
    uint32_t slot;
    // Place in the slot's table of the first of them.
    uint32_t first;
    uint32_t count;
    // Where in `blocks` they are.
    uint32_t offset;
};
static_assert(sizeof(TableUpdate) == 20, "as in batch.rs");

constexpr int TABLES_MAX = 8;

struct TableUpdateArgs {
    // [slots][blocks_per_slot] each
    uint32_t* tables[TABLES_MAX];
    const TableUpdate* updates;
    const uint32_t* num_updates;
    const uint32_t* blocks;
    uint32_t blocks_per_slot[TABLES_MAX];
    uint32_t slots;
    uint32_t num_tables;
};
static_assert(sizeof(TableUpdateArgs) == 128, "as in batch.rs");

constexpr int UPDATE_THREADS = 64;

// Updates do not overlap. What does not fit a table is not written.
KERNEL(update_tables, TableUpdateArgs, UPDATE_THREADS, 4) {
    uint32_t num_updates = *args.num_updates;
    for (uint32_t i = blockIdx.x; i < num_updates; i += gridDim.x) {
        TableUpdate update = args.updates[i];
        if (update.table >= args.num_tables || update.slot >= args.slots) continue;
        uint32_t length = args.blocks_per_slot[update.table];
        uint32_t* table = args.tables[update.table] + static_cast<size_t>(update.slot) * length;
        for (uint32_t j = threadIdx.x; j < update.count; j += UPDATE_THREADS)
            if (update.first + j < length)
                table[update.first + j] = args.blocks[update.offset + j];
    }
}
