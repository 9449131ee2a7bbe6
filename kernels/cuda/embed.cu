// Rows of the embedding table, which lies in tiles since the output head may share it.
#include "rows.cuh"

struct EmbedArgs {
    // BF16, tiled.
    const uint8_t* table;
    // Token ids; with the highest bit set, slots whose last sampled token it is.
    const uint32_t* tokens;
    // [slots]
    const uint32_t* last_token;
    // f32 [rows, columns]
    float* out;
    int32_t vocabulary;
    int32_t columns;
    int32_t slots;
    int32_t unused;
};
static_assert(sizeof(EmbedArgs) == 48, "as in embed/cuda.rs");

constexpr int EMBED_THREADS = 128;
constexpr uint32_t FEEDBACK = 0x80000000u;

// A block for each row and 1024 columns. What is not in the vocabulary becomes token 0: rows that
// only fill up the batch have arbitrary ids.
KERNEL(embed, EmbedArgs, EMBED_THREADS, 8) {
    int row = blockIdx.x, column = (blockIdx.y * EMBED_THREADS + threadIdx.x) * 8;
    if (column >= args.columns) return;
    uint32_t token = args.tokens[row];
    if (token & FEEDBACK) {
        uint32_t slot = token & ~FEEDBACK;
        token = slot < static_cast<uint32_t>(args.slots) ? args.last_token[slot] : 0;
    }
    if (token >= static_cast<uint32_t>(args.vocabulary)) token = 0;
    size_t offset = weight_offset(divide_up(args.columns, PANEL_BYTES / 2), token, column * 2);
    uint4 packed = *reinterpret_cast<const uint4*>(args.table + offset);
    float* out = args.out + static_cast<size_t>(row) * args.columns;
    store_f32(out, column, args.columns, widen(packed));
}
