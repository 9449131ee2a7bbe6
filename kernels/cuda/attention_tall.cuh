// Tasks with many queries (prefill): up to 128 queries by tiles of 64 keys, 32 queries a warp,
// scores and weighted values in registers.
#pragma once

#include "attention_softmax.cuh"
#include "attention_tiles.cuh"

constexpr int TALL_QUERIES = 128;

template <class Cache, int head_dim> struct TallTask {
    using Stream = HalfTiles<Cache, head_dim, true>;
    static constexpr int KEY_STEPS = TILE_KEYS / 8;
    static constexpr int VALUE_STEPS = head_dim / 8;
    static constexpr int QUERY_BYTES = TALL_QUERIES * head_dim * 2;
    static constexpr int SHARED_BYTES = Stream::SHARED_BYTES + QUERY_BYTES + TALL_QUERIES * 8;

    const AttentionArgs& args;
    // Which task and head; read again where it matters, which leaves registers for the rest.
    uint32_t item;
    uint8_t* queries;
    // Maximum and sum of each query over the partitions done.
    float* total_sums;
    float* totals;
    int lane;
    // The warp's first query.
    int first_query;
    // Of queries lane / 4 + 8 * i of the warp: scaled maximum of this partition.
    float maximum[4];
    float sums[2][4];
    float values[2][VALUE_STEPS][4];

    DEVICE TallTask(const AttentionArgs& args, uint32_t item, uint8_t* shared)
        : args(args), item(item), queries(shared + Stream::SHARED_BYTES),
          total_sums(reinterpret_cast<float*>(queries + QUERY_BYTES)),
          totals(args.totals + static_cast<size_t>(blockIdx.x) * TALL_QUERIES * head_dim),
          lane(threadIdx.x % 32), first_query(threadIdx.x / 32 * 32) {}

    DEVICE void run(uint8_t* shared) {
        HeadTask head(args, item);
        Stream stream(args, item, head, shared);
        write_padding<head_dim>(args, head);
        copy_queries<head_dim>(args, head, TALL_QUERIES, queries);
        stream.start();
        int first_full = head.first_full(args), last_full = head.last_full();
        bool whole = head.task.first_line == WHOLE;
        for (int tile = stream.first_tile(); tile <= stream.last_tile();) {
            clear();
            int end = tile / PARTITION_TILES * PARTITION_TILES + PARTITION_TILES;
            for (; tile < end && tile <= stream.last_tile(); tile++) {
                float scores[2][KEY_STEPS][4];
                multiply_keys(stream.take(), scores);
                if (tile < first_full || tile > last_full) mask(tile, scores);
                weigh(scores);
                uint32_t weights[2][KEY_STEPS / 2][4];
                narrow(scores, weights);
                multiply_values(stream.take(), weights);
            }
            finish_partition(stream, end / PARTITION_TILES - 1, whole);
        }
    }

  private:
    // Puts the result of a partition where it belongs.
    DEVICE void finish_partition(const Stream& stream, int partition, bool whole) {
        bool first = partition == stream.first_tile() / PARTITION_TILES;
        bool last = partition == stream.last_tile() / PARTITION_TILES;
        if (!whole) {
            write_partial(partition);
            return;
        }
        if (!first) merge();
        if (last) {
            finish();
        } else {
            keep();
        }
    }

    DEVICE void clear() {
#pragma unroll
        for (int i = 0; i < 4; i++) maximum[i] = -INFINITY;
#pragma unroll
        for (int m = 0; m < 2; m++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                sums[m][i] = 0.0f;
#pragma unroll
                for (int n = 0; n < VALUE_STEPS; n++) values[m][n][i] = 0.0f;
            }
        }
    }

    DEVICE void multiply_keys(const uint8_t* keys, float (&scores)[2][KEY_STEPS][4]) const {
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int n = 0; n < KEY_STEPS; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) scores[m][n][i] = 0.0f;
#pragma unroll
        for (int step = 0; step < head_dim / 16; step++) {
            int lane = recompute(this->lane);
            uint32_t a[2][4];
#pragma unroll
            for (int m = 0; m < 2; m++)
                load_matrices(a[m], queries + quad_down<head_dim>(first_query + m * 16, step * 2,
                                                                  lane));
#pragma unroll
            for (int n = 0; n < KEY_STEPS; n += 2) {
                uint32_t b[4];
                load_matrices(b, keys + quad_right<head_dim>(n * 8, step * 2, lane));
                uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    multiply_16x8x16(scores[m][n], a[m], left);
                    multiply_16x8x16(scores[m][n + 1], a[m], right);
                }
            }
        }
    }

    DEVICE void mask(int tile, float (&scores)[2][KEY_STEPS][4]) const {
        HeadTask head(args, item);
#pragma unroll
        for (int row = 0; row < 4; row++) {
            int position = head.position(first_query + row * 8 + lane / 4);
            int first = first_visible(args, position);
            int key = tile * TILE_KEYS + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < KEY_STEPS; n++) {
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    bool visible = key + n * 8 + i >= first && key + n * 8 + i <= position;
                    float& score = scores[row / 2][n][row % 2 * 2 + i];
                    score = visible ? score : -INFINITY;
                }
            }
        }
    }

    // Turns scores into weights and adapts what has been summed to the new maxima.
    DEVICE void weigh(float (&scores)[2][KEY_STEPS][4]) {
#pragma unroll
        for (int row = 0; row < 4; row++) {
            int m = row / 2, i = row % 2 * 2;
            float largest = -INFINITY;
#pragma unroll
            for (int n = 0; n < KEY_STEPS; n++)
                largest = fmaxf(largest, fmaxf(scores[m][n][i], scores[m][n][i + 1]));
            float before = maximum[row];
            maximum[row] = fmaxf(before, row_max(largest) * args.scale);
            float reference = softmax_reference(maximum[row]);
            float factor = fast_exp2(before - reference);
#pragma unroll
            for (int n = 0; n < KEY_STEPS; n++) {
                scores[m][n][i] = softmax_weight(scores[m][n][i], args.scale, reference);
                scores[m][n][i + 1] = softmax_weight(scores[m][n][i + 1], args.scale, reference);
            }
            sums[m][i] *= factor;
            sums[m][i + 1] *= factor;
#pragma unroll
            for (int n = 0; n < VALUE_STEPS; n++) {
                values[m][n][i] *= factor;
                values[m][n][i + 1] *= factor;
            }
        }
    }

    // Weights as left factors of products. This happens before the wait for the values, so that it
    // takes fewer registers.
    DEVICE void narrow(const float (&scores)[2][KEY_STEPS][4],
                       uint32_t (&weights)[2][KEY_STEPS / 2][4]) const {
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int step = 0; step < KEY_STEPS / 2; step++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float(&from)[4] = scores[m][step * 2 + i / 2];
                    weights[m][step][i] =
                        pack_bf16(from[i % 2 * 2], from[i % 2 * 2 + 1]);
                }
    }

    DEVICE void multiply_values(const uint8_t* tile,
                                const uint32_t (&weights)[2][KEY_STEPS / 2][4]) {
        const uint32_t ones[2] = {ONES, ONES};
#pragma unroll
        for (int step = 0; step < KEY_STEPS / 2; step++) {
#pragma unroll
            for (int m = 0; m < 2; m++) multiply_16x8x16(sums[m], weights[m][step], ones);
#pragma unroll
            for (int n = 0; n < VALUE_STEPS; n += 2) {
                uint32_t b[4];
                load_matrices_transposed(b, tile + quad_down<head_dim>(step * 16, n, lane));
                uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    multiply_16x8x16(values[m][n], weights[m][step], left);
                    multiply_16x8x16(values[m][n + 1], weights[m][step], right);
                }
            }
        }
    }

    DEVICE void write_partial(int partition) const {
        HeadTask head(args, item);
        int lane = recompute(this->lane);
#pragma unroll
        for (int row = 0; row < 4; row++) {
            int query = first_query + row * 8 + lane / 4;
            if (query >= head.queries) continue;
            size_t line = head.line(args, partition, query);
            float* to = args.partial_values + line * head_dim + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < VALUE_STEPS; n++) {
                const float* from = &values[row / 2][n][row % 2 * 2];
                *reinterpret_cast<float2*>(to + n * 8) = float2{from[0], from[1]};
            }
            if (lane % 4 == 0)
                reinterpret_cast<float2*>(args.partial_sums)[line] =
                    float2{maximum[row], sums[row / 2][row % 2 * 2]};
        }
    }

    // Place of this thread's values of one product in the block's scratch.
    DEVICE float* total(int m, int n) const {
        return totals + ((m * VALUE_STEPS + n) * ATTENTION_THREADS + recompute(threadIdx.x)) * 4;
    }

    // Puts the partitions done aside.
    DEVICE void keep() const {
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int n = 0; n < VALUE_STEPS; n++)
                *reinterpret_cast<float4*>(total(m, n)) = float4{
                    values[m][n][0], values[m][n][1], values[m][n][2], values[m][n][3]};
        // Each query's by the first of its four lanes, which all read it again.
        if (lane % 4 == 0) {
#pragma unroll
            for (int row = 0; row < 4; row++)
                reinterpret_cast<float2*>(total_sums)[first_query + row * 8 + lane / 4] =
                    float2{maximum[row], sums[row / 2][row % 2 * 2]};
        }
        __syncwarp();
    }

    // Merges this partition with those done.
    DEVICE void merge() {
#pragma unroll
        for (int m = 0; m < 2; m++) {
            float keep[2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int row = m * 2 + i;
                float2 before =
                    reinterpret_cast<float2*>(total_sums)[first_query + row * 8 + lane / 4];
                Merge merge(before.x, maximum[row]);
                maximum[row] = merge.maximum;
                sums[m][i * 2] = merged(before.y, merge.keep, sums[m][i * 2], merge.take);
                keep[i] = merge.keep;
                // `merged` in two steps, which takes fewer registers.
#pragma unroll
                for (int n = 0; n < VALUE_STEPS; n++) {
                    values[m][n][i * 2] *= merge.take;
                    values[m][n][i * 2 + 1] *= merge.take;
                }
            }
#pragma unroll
            for (int n = 0; n < VALUE_STEPS; n++) {
                float4 before = *reinterpret_cast<const float4*>(total(m, n));
                float(&value)[4] = values[m][n];
                value[0] = merged(before.x, keep[0], value[0], 1.0f);
                value[1] = merged(before.y, keep[0], value[1], 1.0f);
                value[2] = merged(before.z, keep[1], value[2], 1.0f);
                value[3] = merged(before.w, keep[1], value[3], 1.0f);
            }
        }
        __syncwarp();
    }

    DEVICE void finish() const {
        HeadTask head(args, item);
        int lane = recompute(this->lane);
        // The warp's own queries are no longer needed.
        __syncwarp();
#pragma unroll
        for (int row = 0; row < 4; row++) {
            float inverse = 1.0f / sums[row / 2][row % 2 * 2];
            int query = first_query + row * 8 + lane / 4;
#pragma unroll
            for (int n = 0; n < VALUE_STEPS; n++) {
                const float* from = &values[row / 2][n][row % 2 * 2];
                uint32_t pair = pack_bf16(normalised(from[0], inverse), normalised(from[1], inverse));
                uint8_t* to = queries + chunk_offset<head_dim>(query, n) + lane % 4 * 4;
                *reinterpret_cast<uint32_t*>(to) = pair;
            }
        }
        __syncwarp();
        write_output<head_dim>(args, head, queries, first_query, first_query + 32, lane, 32);
    }
};
