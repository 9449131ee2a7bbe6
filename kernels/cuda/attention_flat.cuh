// Tasks with few queries (decode): up to 16 queries, one partition at a time in three phases. For
// the scores each warp takes a quarter of each tile's keys; for the weighted values a quarter of
// the dimensions. Each number comes about exactly as in a task with many queries.
#pragma once

#include "attention_softmax.cuh"
#include "attention_tiles.cuh"

constexpr int FLAT_QUERIES = 16;

template <class Cache, int head_dim> struct FlatTask {
    using Stream = HalfTiles<Cache, head_dim, false>;
    // Products of 16 dimensions; products with 8 dimensions of values that a warp computes.
    static constexpr int QUERY_STEPS = head_dim / 16;
    static constexpr int VALUE_STEPS = head_dim / 8 / ATTENTION_WARPS;
    static constexpr int QUERY_BYTES = FLAT_QUERIES * head_dim * 2;
    static constexpr int WEIGHT_BYTES = FLAT_QUERIES * PARTITION_KEYS * 2;
    // Maxima of a query: those of each warp in each tile, and something against bank conflicts.
    static constexpr int MAXIMA = PARTITION_TILES * ATTENTION_WARPS + 4;
    static constexpr int SHARED_BYTES =
        Stream::SHARED_BYTES + QUERY_BYTES + WEIGHT_BYTES + FLAT_QUERIES * MAXIMA * 4;

    const AttentionArgs& args;
    uint32_t item;
    HeadTask head;
    uint8_t* queries;
    uint8_t* weights;
    float* maxima;
    int lane;
    int warp;
    // Tiles that any row sees.
    int first_tile;
    int last_tile;
    // Positions of queries lane / 4 and lane / 4 + 8.
    int position[2];
    // Scaled maxima, sums of weights and weighted values of these queries in this partition.
    float maximum[2];
    float sums[4];
    float values[VALUE_STEPS][4];

    DEVICE FlatTask(const AttentionArgs& args, uint32_t item, uint8_t* shared)
        : args(args), item(item), head(args, item), queries(shared + Stream::SHARED_BYTES),
          weights(queries + QUERY_BYTES), maxima(reinterpret_cast<float*>(weights + WEIGHT_BYTES)),
          lane(threadIdx.x % 32), warp(threadIdx.x / 32), first_tile(head.first / TILE_KEYS),
          last_tile(head.last / TILE_KEYS) {
        position[0] = head.position(lane / 4);
        position[1] = head.position(lane / 4 + 8);
    }

    DEVICE void run(uint8_t* shared) {
        Stream stream(args, item, head, shared);
        write_padding<head_dim>(args, head);
        copy_queries<head_dim>(args, head, FLAT_QUERIES, queries);
        stream.start();
        uint32_t query[QUERY_STEPS][4];
        load_queries(query);

        float total_maximum[2] = {-INFINITY, -INFINITY};
        float total_sums[4] = {}, total_values[VALUE_STEPS][4] = {};
        int first = first_tile / PARTITION_TILES, last = last_tile / PARTITION_TILES;
        for (int partition = first; partition <= last; partition++) {
            float factors[PARTITION_TILES][2];
            weigh_keys(stream, partition, query, factors);
            sum_values(stream, partition, factors);
            if (head.task.first_line != WHOLE)
                write_partial(partition);
            else
                merge(total_maximum, total_sums, total_values);
        }
        if (head.task.first_line == WHOLE) finish(total_sums, total_values);
    }

  private:
    DEVICE bool has(int tile) const { return tile >= first_tile && tile <= last_tile; }

    DEVICE void load_queries(uint32_t (&query)[QUERY_STEPS][4]) const {
        // They came with the first half tile.
        async_copy_wait<Stream::AHEAD - 1>();
        __syncthreads();
#pragma unroll
        for (int step = 0; step < QUERY_STEPS; step++)
            load_matrices(query[step], queries + quad_down<head_dim>(0, step * 2, lane));
    }

    // Weights of the partition's keys to shared memory, and for each tile the factor on what has
    // been summed before it.
    DEVICE void weigh_keys(Stream& stream, int partition, const uint32_t (&query)[QUERY_STEPS][4],
                           float (&factors)[PARTITION_TILES][2]) {
        float scores[PARTITION_TILES][2][4];
        int first_full = head.first_full(args), last_full = head.last_full();
#pragma unroll
        for (int t = 0; t < PARTITION_TILES; t++) {
            int tile = partition * PARTITION_TILES + t;
            if (!has(tile)) continue;
            multiply_keys(stream.take(), query, scores[t]);
            if (tile < first_full || tile > last_full) mask(tile, scores[t]);
            share_maxima(t, scores[t]);
        }
        __syncthreads();
        maximum[0] = maximum[1] = -INFINITY;
#pragma unroll
        for (int t = 0; t < PARTITION_TILES; t++) {
            if (!has(partition * PARTITION_TILES + t)) continue;
#pragma unroll
            for (int row = 0; row < 2; row++) {
                const float* from = maxima + (row * 8 + lane / 4) * MAXIMA + t * ATTENTION_WARPS;
                float4 of_warps = *reinterpret_cast<const float4*>(from);
                float largest = fmaxf(fmaxf(of_warps.x, of_warps.y), fmaxf(of_warps.z, of_warps.w));
                float before = maximum[row];
                maximum[row] = fmaxf(before, largest * args.scale);
                float reference = softmax_reference(maximum[row]);
                factors[t][row] = fast_exp2(before - reference);
                write_weights(t, row, reference, scores[t]);
            }
        }
        // The barrier before the first values makes the weights visible.
    }

    // Scores of the warp's 16 keys of a tile.
    DEVICE void multiply_keys(const uint8_t* keys, const uint32_t (&query)[QUERY_STEPS][4],
                              float (&scores)[2][4]) const {
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) scores[n][i] = 0.0f;
#pragma unroll
        for (int step = 0; step < QUERY_STEPS; step++) {
            uint32_t b[4];
            load_matrices(b, keys + quad_right<head_dim>(warp * 16, step * 2, lane));
            uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
            multiply_16x8x16(scores[0], query[step], left);
            multiply_16x8x16(scores[1], query[step], right);
        }
    }

    DEVICE void mask(int tile, float (&scores)[2][4]) const {
        int key = tile * TILE_KEYS + warp * 16 + lane % 4 * 2;
#pragma unroll
        for (int row = 0; row < 2; row++) {
            int first = first_visible(args, position[row]);
#pragma unroll
            for (int n = 0; n < 2; n++) {
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int at = key + n * 8 + i;
                    float& score = scores[n][row * 2 + i];
                    score = at >= first && at <= position[row] ? score : -INFINITY;
                }
            }
        }
    }

    DEVICE void share_maxima(int t, const float (&scores)[2][4]) const {
#pragma unroll
        for (int row = 0; row < 2; row++) {
            float largest = fmaxf(fmaxf(scores[0][row * 2], scores[0][row * 2 + 1]),
                                  fmaxf(scores[1][row * 2], scores[1][row * 2 + 1]));
            largest = row_max(largest);
            if (lane % 4 == 0)
                maxima[(row * 8 + lane / 4) * MAXIMA + t * ATTENTION_WARPS + warp] = largest;
        }
    }

    DEVICE void write_weights(int t, int row, float reference, const float (&scores)[2][4]) const {
#pragma unroll
        for (int n = 0; n < 2; n++) {
            float left = softmax_weight(scores[n][row * 2], args.scale, reference);
            float right = softmax_weight(scores[n][row * 2 + 1], args.scale, reference);
            int chunk = t * (TILE_KEYS / 8) + warp * 2 + n;
            uint8_t* to = weights + chunk_offset<PARTITION_KEYS>(row * 8 + lane / 4, chunk);
            *reinterpret_cast<uint32_t*>(to + lane % 4 * 4) = pack_bf16(left, right);
        }
    }

    // Weighted values of the partition, in the warp's dimensions.
    DEVICE void sum_values(Stream& stream, int partition,
                           const float (&factors)[PARTITION_TILES][2]) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sums[i] = 0.0f;
#pragma unroll
            for (int n = 0; n < VALUE_STEPS; n++) values[n][i] = 0.0f;
        }
#pragma unroll
        for (int t = 0; t < PARTITION_TILES; t++) {
            if (!has(partition * PARTITION_TILES + t)) continue;
            const uint8_t* tile = stream.take();
#pragma unroll
            for (int i = 0; i < 4; i++) {
                sums[i] *= factors[t][i / 2];
#pragma unroll
                for (int n = 0; n < VALUE_STEPS; n++) values[n][i] *= factors[t][i / 2];
            }
#pragma unroll
            for (int step = 0; step < TILE_KEYS / 16; step += 2)
                multiply_values(tile, t * (TILE_KEYS / 8), step);
        }
    }

    // Two products of 16 keys each, whose weights begin at a chunk.
    DEVICE void multiply_values(const uint8_t* tile, int chunk, int step) {
        uint32_t a[2][4];
        const uint32_t ones[2] = {ONES, ONES};
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int column = chunk + (step + i) * 2;
            load_matrices(a[i], weights + quad_down<PARTITION_KEYS>(0, column, lane));
            multiply_16x8x16(sums, a[i], ones);
        }
#pragma unroll
        for (int n = 0; n < VALUE_STEPS; n++) {
            uint32_t b[4];
            int column = warp * VALUE_STEPS + n;
            load_matrices_transposed(b, tile + quad_column<head_dim>(step * 16, column, lane));
            uint32_t upper[2] = {b[0], b[1]}, lower[2] = {b[2], b[3]};
            multiply_16x8x16(values[n], a[0], upper);
            multiply_16x8x16(values[n], a[1], lower);
        }
    }

    DEVICE void merge(float (&total_maximum)[2], float (&total_sums)[4],
                      float (&total_values)[VALUE_STEPS][4]) const {
#pragma unroll
        for (int row = 0; row < 2; row++) {
            Merge merge(total_maximum[row], maximum[row]);
            total_maximum[row] = merge.maximum;
#pragma unroll
            for (int i = row * 2; i < row * 2 + 2; i++) {
                total_sums[i] = merged(total_sums[i], merge.keep, sums[i], merge.take);
#pragma unroll
                for (int n = 0; n < VALUE_STEPS; n++)
                    total_values[n][i] =
                        merged(total_values[n][i], merge.keep, values[n][i], merge.take);
            }
        }
    }

    DEVICE void write_partial(int partition) const {
#pragma unroll
        for (int row = 0; row < 2; row++) {
            int query = row * 8 + lane / 4;
            if (query >= head.queries) continue;
            size_t line = head.line(args, partition, query);
            int column = warp * VALUE_STEPS * 8 + lane % 4 * 2;
            float* to = args.partial_values + line * head_dim + column;
#pragma unroll
            for (int n = 0; n < VALUE_STEPS; n++)
                *reinterpret_cast<float2*>(to + n * 8) =
                    float2{values[n][row * 2], values[n][row * 2 + 1]};
            if (threadIdx.x < 32 && lane % 4 == 0)
                reinterpret_cast<float2*>(args.partial_sums)[line] =
                    float2{maximum[row], sums[row * 2]};
        }
    }

    DEVICE void finish(const float (&total_sums)[4],
                       const float (&total_values)[VALUE_STEPS][4]) const {
        // All warps have their queries in registers.
#pragma unroll
        for (int row = 0; row < 2; row++) {
            float inverse = 1.0f / total_sums[row * 2];
#pragma unroll
            for (int n = 0; n < VALUE_STEPS; n++) {
                float left = normalised(total_values[n][row * 2], inverse);
                float right = normalised(total_values[n][row * 2 + 1], inverse);
                int chunk = warp * VALUE_STEPS + n;
                uint8_t* to = queries + chunk_offset<head_dim>(row * 8 + lane / 4, chunk);
                *reinterpret_cast<uint32_t*>(to + lane % 4 * 4) = pack_bf16(left, right);
            }
        }
        __syncthreads();
        write_output<head_dim>(args, head, queries, 0, FLAT_QUERIES, threadIdx.x,
                               ATTENTION_THREADS);
    }
};
