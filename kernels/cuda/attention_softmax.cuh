// The arithmetic of the softmax.
//
// The result of a row must not depend on how the work was divided. Therefore a row's keys are
// always taken in the same steps: within a partition, tile after tile with a running maximum
// (Milakov & Gimelshein 2018, Dao 2023); each partition for itself; and the partitions merged in
// ascending order. Tiles and partitions that a row sees nothing of leave it as it is, to the last
// bit.
#pragma once

#include "device.cuh"

// The largest of a row's scores, given those of one of the four lanes that share the row.
DEVICE float row_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
    return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}

// What scores are compared with: their maximum, but a number even where nothing is visible.
DEVICE float softmax_reference(float maximum) { return maximum == -INFINITY ? 0.0f : maximum; }

// Weight of a score, whose scale is still to be applied, relative to a scaled reference.
DEVICE float softmax_weight(float score, float scale, float reference) {
    return fast_exp2(fmaf(score, scale, -reference));
}

// Part of a result for some keys and that for others, each relative to its own maximum, together.
DEVICE float merged(float before, float keep, float added, float take) {
    return fmaf(before, keep, added * take);
}

// How to merge two results, given their maxima.
struct Merge {
    float maximum;
    // Factors of the one and of the other.
    float keep;
    float take;

    DEVICE Merge(float before, float added) : maximum(fmaxf(before, added)) {
        float reference = softmax_reference(maximum);
        keep = fast_exp2(before - reference);
        take = fast_exp2(added - reference);
    }
};

// A weighted value, divided by the sum of weights; never a negative zero, which merging drops.
DEVICE float normalised(float value, float inverse_sum) { return fmaf(value, inverse_sum, 0.0f); }

// A column of ones as the right factor of a product: it sums weights exactly as the weighted
// values are summed.
constexpr uint32_t ONES = 0x3f803f80;
