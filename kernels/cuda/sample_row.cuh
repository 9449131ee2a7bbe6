// What sampling reads of a row: its parameters, its logits after masks, bias and penalties, and
// its weights.
//
// The processor does the same arithmetic (kernels/src/ops/sample): single multiplications and
// additions that are never contracted, and sums of integers, so that identical logits give
// identical tokens.
#pragma once

#include "device.cuh"

// Tokens that a warp reads together, 8 in each lane.
constexpr int SEGMENT = 256;
constexpr int PER_LANE = SEGMENT / 32;
// Sums of 2^19 weights fit 63 bits.
constexpr int MAX_SEGMENTS = 2048;
constexpr float GREEDY_TEMPERATURE_MAX = 1e-5f;
// For `history`, `allowed` and `logprobs`.
constexpr uint32_t NONE = 0xffffffffu;
constexpr int MAX_TOP = 20;

// A row's parameters.
struct SampleRow {
    uint64_t seed;
    uint32_t slot;
    uint32_t position;
    float temperature;
    float top_p;
    float min_p;
    float repetition_penalty;
    float frequency_penalty;
    float presence_penalty;
    uint32_t top_k;
    // Row of the histories, for penalties.
    uint32_t history;
    // Row of the masks of allowed tokens.
    uint32_t allowed;
    // In `lists`: masked tokens; tokens with a bias, followed by as many floats. Both ascend.
    uint32_t masked_first;
    uint32_t masked_count;
    uint32_t bias_first;
    uint32_t bias_count;
    // Most likely tokens to report.
    uint32_t logprobs;
};

struct SampledRow {
    uint32_t token;
    // 1 if the logits were unusable.
    uint32_t fault;
};

struct SampledLogprobs {
    float logprob;
    uint32_t rank;
    uint32_t top_count;
    uint32_t unused;
    uint32_t top_tokens[MAX_TOP];
    float top_logprobs[MAX_TOP];
};

struct SampleArgs {
    // [rows][vocabulary]
    const float* logits;
    const uint32_t* row_count;
    const SampleRow* rows;
    const uint32_t* lists;
    // [masks][divide_up(vocabulary, 32)], a bit for each token that may be sampled.
    const uint32_t* allowed;
    // [histories][vocabulary]: bit 15 for a token of the prompt; below it, how often the token
    // stands in the output.
    uint16_t* histories;
    // [rows][segments], from `sample_scan`: largest raw logit, sum of exp(raw logit - that), and
    // largest adjusted logit; plus infinity for NaN.
    float* raw_maxima;
    float* raw_sums;
    float* maxima;
    // [rows][segments], from `sample_weigh`.
    uint64_t* weight_sums;
    // [slots]
    uint32_t* last_tokens;
    SampledRow* sampled;
    SampledLogprobs* logprobs;
    uint32_t vocabulary;
    uint32_t segments;
};

static_assert(sizeof(SampleRow) == 72, "as in Rust");
static_assert(sizeof(SampledRow) == 8, "as in Rust");
static_assert(sizeof(SampledLogprobs) == 176, "as in Rust");
static_assert(sizeof(SampleArgs) == 112, "as in Rust");

// --- Arithmetic without contraction --------------------------------------------------------------

#ifdef __CUDACC__
DEVICE float multiply(float a, float b) { return __fmul_rn(a, b); }
DEVICE float add(float a, float b) { return __fadd_rn(a, b); }
DEVICE float divide(float a, float b) { return __fdiv_rn(a, b); }
DEVICE uint64_t round_to_integer(float value) { return __float2ull_rn(value); }
DEVICE uint64_t multiply_high(uint64_t a, uint64_t b) { return __umul64hi(a, b); }
#else
DEVICE float multiply(float a, float b) { return a * b; }
DEVICE float add(float a, float b) { return a + b; }
DEVICE float divide(float a, float b) { return a / b; }
DEVICE uint64_t round_to_integer(float value) {
    return static_cast<uint64_t>(std::nearbyint(value));
}
DEVICE uint64_t multiply_high(uint64_t a, uint64_t b) {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
}
#endif

// exp(x) for x <= 0, within 2 units in the last place; 0 below -87 and for NaN.
DEVICE float exp_of_negative(float x) {
    constexpr float ROUNDER = 12582912.0f;
    float clamped = x > -87.0f ? x : -87.0f;
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
    float shifted = add(multiply(clamped, 1.44269504f), ROUNDER);
    float n = add(shifted, -ROUNDER);
    float r = add(add(clamped, -multiply(n, 0.6933594f)), -multiply(n, -2.1219444e-4f));
    float p = 1.9875692e-4f;
    p = add(multiply(p, r), 1.3982e-3f);
    p = add(multiply(p, r), 8.333452e-3f);
    p = add(multiply(p, r), 4.1665796e-2f);
    p = add(multiply(p, r), 1.6666665e-1f);
    p = add(multiply(p, r), 5e-1f);
    float fraction = add(add(multiply(p, multiply(r, r)), r), 1.0f);
    uint32_t exponent = float_bits(shifted) - float_bits(ROUNDER) + 127;
    float result = multiply(fraction, bits_float(exponent << 23));
    return x > -87.0f ? result : 0.0f;
}

// exp((logit - largest) / temperature) in units of 2^-44, 0 where `min_p` drops it.
struct Weights {
    float largest;
    float temperature;
    float min_p;

    DEVICE uint64_t of(float logit) const {
        float weight = exp_of_negative(divide(add(logit, -largest), temperature));
        return weight >= min_p ? round_to_integer(multiply(weight, 17592186044416.0f)) : 0;
    }
};

DEVICE bool is_finite(float value) { return fabsf(value) < INFINITY; }

// --- Adjusted logits -----------------------------------------------------------------------------

// Where the first of some ascending numbers is that is not below `value`.
DEVICE uint32_t lower_bound(const uint32_t* numbers, uint32_t count, uint32_t value) {
    uint32_t first = 0;
#pragma unroll 1
    while (count > 0) {
        uint32_t half = count / 2;
        bool below = numbers[first + half] < value;
        first = below ? first + half + 1 : first;
        count = below ? count - half - 1 : half;
    }
    return first;
}

// Some ascending tokens.
struct TokenList {
    const uint32_t* tokens;
    uint32_t count;

    // Places of the tokens from `first` to before `end`.
    DEVICE uint2 places(uint32_t first, uint32_t end) const {
        if (count == 0) return uint2{0, 0};
        return uint2{lower_bound(tokens, count, first), lower_bound(tokens, count, end)};
    }
};

// A row's logits, and what is done to them before sampling.
struct RowLogits {
    const float* raw;
    const uint16_t* history;
    const uint32_t* allowed;
    TokenList masked;
    // Followed by the biases.
    TokenList bias;
    uint32_t vocabulary;
    float repetition;
    float frequency;
    float presence;

    // Loads a segment. Each lane reads and writes its own places of `logits`, 32 * i + lane, alone.
    // Minus infinity beyond the vocabulary.
    DEVICE void load_raw(uint32_t segment, float* logits) const {
        uint32_t lane = threadIdx.x % 32, first = segment * SEGMENT + lane;
        float values[PER_LANE];
#pragma unroll
        for (int i = 0; i < PER_LANE; i++)
            values[i] = first + 32 * i < vocabulary ? __ldg(raw + first + 32 * i) : -INFINITY;
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) logits[32 * i + lane] = values[i];
    }

    DEVICE float penalised(float logit, uint32_t history_entry) const {
        if (repetition != 1.0f && history_entry != 0)
            logit = logit > 0.0f ? divide(logit, repetition) : multiply(logit, repetition);
        uint32_t count = history_entry & 0x7fff;
        if (count > 0)
            logit = add(logit, -add(multiply(frequency, static_cast<float>(count)), presence));
        return logit;
    }

    // Masks, bias and penalties on what `load_raw` gave.
    DEVICE void adjust(uint32_t segment, float* logits) const {
        uint32_t lane = threadIdx.x % 32, first = segment * SEGMENT;
        uint32_t end = min(first + SEGMENT, vocabulary);
        if (allowed) {
#pragma unroll 1
            for (uint32_t token = first + lane; token < end; token += 32)
                if (!(__ldg(allowed + token / 32) >> lane & 1)) logits[token - first] = -INFINITY;
        }
        uint2 here = masked.places(first, end);
#pragma unroll 1
        for (uint32_t at = here.x; at < here.y; at++) {
            uint32_t token = masked.tokens[at];
            if (token % 32 == lane) logits[token - first] = -INFINITY;
        }
        here = bias.places(first, end);
#pragma unroll 1
        for (uint32_t at = here.x; at < here.y; at++) {
            uint32_t token = bias.tokens[at];
            float value = bits_float(bias.tokens[at + bias.count]);
            if (token % 32 == lane) logits[token - first] = add(logits[token - first], value);
        }
        if (history) {
#pragma unroll 1
            for (uint32_t token = first + lane; token < end; token += 32)
                logits[token - first] = penalised(logits[token - first], history[token]);
        }
    }

    DEVICE void load(uint32_t segment, float* logits) const {
        load_raw(segment, logits);
        if (is_adjusted()) adjust(segment, logits);
    }

    DEVICE bool is_adjusted() const {
        return history || allowed || masked.count > 0 || bias.count > 0;
    }
};

DEVICE RowLogits raw_logits(const SampleArgs& args, uint32_t row) {
    const float* raw = args.logits + static_cast<size_t>(row) * args.vocabulary;
    return {raw, nullptr, nullptr, {nullptr, 0}, {nullptr, 0}, args.vocabulary, 1.0f, 0.0f, 0.0f};
}

DEVICE RowLogits adjusted_logits(const SampleArgs& args, const SampleRow& params, uint32_t row) {
    RowLogits logits = raw_logits(args, row);
    if (params.history != NONE)
        logits.history = args.histories + static_cast<size_t>(params.history) * args.vocabulary;
    if (params.allowed != NONE)
        logits.allowed =
            args.allowed + static_cast<size_t>(params.allowed) * divide_up(args.vocabulary, 32u);
    logits.masked = {args.lists + params.masked_first, params.masked_count};
    logits.bias = {args.lists + params.bias_first, params.bias_count};
    logits.repetition = params.repetition_penalty;
    logits.frequency = params.frequency_penalty;
    logits.presence = params.presence_penalty;
    return logits;
}

// The largest of a segment, plus infinity if there is a NaN.
DEVICE float segment_maximum(const float* logits) {
    float largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
        float logit = logits[32 * i + threadIdx.x % 32];
        largest = logit == logit ? fmaxf(largest, logit) : INFINITY;
    }
    return warp_max(largest);
}
