// What kernels that work row by row have in common: the forms in which rows come, eight columns
// at a time, and the panels in which they go on.
#pragma once

#include "layout.cuh"

// No row, token, expert or slot.
constexpr uint32_t NONE = 0xffffffffu;

// Eight neighbouring columns of a row.
struct Eight {
    float v[8];
};

enum : int32_t { SOURCE_NONE, SOURCE_PARTS, SOURCE_BF16, SOURCE_ROUTED };

// Rows of numbers in one of the forms in which kernels leave their results.
struct RowSource {
    // f32 [parts][part_rows][columns], BF16 [rows][columns], or BF16 [pairs][columns].
    const void* values;
    // Routed: the pair of each [row][rank], or NONE, and its weight.
    const uint32_t* pair_of_slot;
    const float* weights;
    int32_t kind;
    // Parts: as in `Parts`, and the rows of a part.
    int32_t parts;
    int32_t part_rows;
    int32_t rounded;
    // Routed: ranks.
    int32_t top_k;
    int32_t unused;
};
static_assert(sizeof(RowSource) == 48, "as in pack.rs");

// Rows whose length is a multiple of eight are read in whole vectors.
DEVICE bool has_vectors(int columns) { return columns % 8 == 0; }

DEVICE Eight load_f32(const float* row, int column, int columns) {
    Eight out;
    if (has_vectors(columns)) {
        const float4* vectors = reinterpret_cast<const float4*>(row + column);
        float4 low = vectors[0], high = vectors[1];
        out = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) out.v[i] = column + i < columns ? row[column + i] : 0.0f;
    }
    return out;
}

DEVICE void store_f32(float* row, int column, int columns, const Eight& values) {
    const float* v = values.v;
    if (has_vectors(columns)) {
        float4* vectors = reinterpret_cast<float4*>(row + column);
        vectors[0] = float4{v[0], v[1], v[2], v[3]};
        vectors[1] = float4{v[4], v[5], v[6], v[7]};
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (column + i < columns) row[column + i] = v[i];
    }
}

DEVICE uint4 load_bf16(const bf16* row, int column, int columns) {
    if (has_vectors(columns)) return *reinterpret_cast<const uint4*>(row + column);
    uint32_t bits[8];
#pragma unroll
    for (int i = 0; i < 8; i++) bits[i] = column + i < columns ? row[column + i].bits : 0;
    return uint4{bits[0] | bits[1] << 16, bits[2] | bits[3] << 16, bits[4] | bits[5] << 16,
                 bits[6] | bits[7] << 16};
}

DEVICE Eight widen(uint4 packed) {
    return {bf16_low(packed.x), bf16_high(packed.x), bf16_low(packed.y), bf16_high(packed.y),
            bf16_low(packed.z), bf16_high(packed.z), bf16_low(packed.w), bf16_high(packed.w)};
}

DEVICE uint4 narrow(const Eight& values) {
    const float* v = values.v;
    return uint4{pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]),
                 pack_bf16(v[6], v[7])};
}

DEVICE Eight sum_parts(const RowSource& source, int columns, int row, int column) {
    const float* values = static_cast<const float*>(source.values);
    values += static_cast<size_t>(row) * columns;
    size_t part_size = static_cast<size_t>(source.part_rows) * columns;
    Eight sum = load_f32(values, column, columns);
#pragma unroll 4
    for (int part = 1; part < source.parts; part++) {
        Eight next = load_f32(values + part * part_size, column, columns);
#pragma unroll
        for (int i = 0; i < 8; i++) sum.v[i] += next.v[i];
    }
    return source.rounded ? widen(narrow(sum)) : sum;
}

// The weighted sum of a row's experts, in the order of their ranks. Eight of them are on their
// way at a time.
DEVICE Eight sum_routed(const RowSource& source, int columns, int row, int column) {
    constexpr int AT_ONCE = 8;
    const bf16* values = static_cast<const bf16*>(source.values);
    size_t first_slot = static_cast<size_t>(row) * source.top_k;
    Eight sum = {};
    for (int first = 0; first < source.top_k; first += AT_ONCE) {
        uint4 results[AT_ONCE];
        float weights[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            bool is_slot = first + i < source.top_k;
            uint32_t pair = is_slot ? source.pair_of_slot[first_slot + first + i] : NONE;
            results[i] = uint4{0, 0, 0, 0};
            weights[i] = 0.0f;
            if (pair == NONE) continue;
            results[i] = load_bf16(values + static_cast<size_t>(pair) * columns, column, columns);
            weights[i] = source.weights[first_slot + first + i];
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            Eight result = widen(results[i]);
#pragma unroll
            for (int j = 0; j < 8; j++) sum.v[j] = fmaf(weights[i], result.v[j], sum.v[j]);
        }
    }
    return sum;
}

// Columns `column`.. (a multiple of 8 below `columns`) of a row; zero from `columns` on.
DEVICE Eight read_eight(const RowSource& source, int columns, int row, int column) {
    if (source.kind == SOURCE_PARTS) return sum_parts(source, columns, row, column);
    if (source.kind == SOURCE_ROUTED) return sum_routed(source, columns, row, column);
    if (source.kind == SOURCE_NONE) return Eight{};
    const bf16* values = static_cast<const bf16*>(source.values);
    return widen(load_bf16(values + static_cast<size_t>(row) * columns, column, columns));
}

// --- Panels --------------------------------------------------------------------------------------

// Where rows go as inputs of matrix products; what is null is not wanted.
struct PanelOutput {
    uint8_t* bf16_panels;
    uint8_t* e4m3_panels;
    // E4M3 only: one for each row.
    float* scales;
    // Rows of each panel.
    int32_t capacity;
    int32_t unused;
};
static_assert(sizeof(PanelOutput) == 32, "as in pack.rs");

// Columns with the zeroes that fill the last panel.
DEVICE int padded_columns(const PanelOutput& out, int columns) {
    int step = out.e4m3_panels ? PANEL_BYTES : PANEL_BYTES / 2;
    return divide_up(columns, step) * step;
}

DEVICE float largest_magnitude(const Eight& values) {
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) largest = fmaxf(largest, fabsf(values.v[i]));
    return largest;
}

// The scale that maps the largest magnitude of a row to the largest E4M3 number. Numbers that are
// NaN do not count; they stay NaN when they are quantised.
DEVICE float scale_of(float largest) { return largest == 0.0f ? 1.0f : largest / E4M3_MAX; }

DEVICE void store_bf16_panel(const PanelOutput& out, int columns, int row, int column,
                             const Eight& values) {
    constexpr int STEP = PANEL_BYTES / 2;
    if (!out.bf16_panels || column >= divide_up(columns, STEP) * STEP) return;
    size_t offset = activation_offset(out.capacity, row, column * 2);
    *reinterpret_cast<uint4*>(out.bf16_panels + offset) = narrow(values);
}

DEVICE void store_e4m3_panel(const PanelOutput& out, int row, int column, const Eight& values,
                             float scale) {
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = values.v[i] / scale;
    uint2 packed = {pack_e4m3(v[0], v[1]) | static_cast<uint32_t>(pack_e4m3(v[2], v[3])) << 16,
                    pack_e4m3(v[4], v[5]) | static_cast<uint32_t>(pack_e4m3(v[6], v[7])) << 16};
    size_t offset = activation_offset(out.capacity, row, column);
    *reinterpret_cast<uint2*>(out.e4m3_panels + offset) = packed;
}
