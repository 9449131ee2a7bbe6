// Choice of each row's next token, without the host. Three kernels:
//
//   sample_scan    all segments of all rows: largest logits, sums for log-probabilities
//   sample_weigh   all segments of rows whose draw needs every token's weight: sums of weights
//   sample_finish  one block for each row: the choice, log-probabilities, and what depends on it
//
// The last one reads the few segments that matter; the whole row, again and again, only if the
// kept tokens are too many to be listed.
#include "sample_select.cuh"

constexpr int SCAN_THREADS = 256;
constexpr int SCAN_SEGMENTS = SCAN_THREADS / 32;

DEVICE bool is_greedy(const SampleRow& params) {
    return params.temperature < GREEDY_TEMPERATURE_MAX;
}

DEVICE bool has_top_k(const SampleRow& params, uint32_t vocabulary) {
    return params.top_k > 0 && params.top_k < vocabulary;
}

// Of `sample_scan` and `sample_weigh`: a segment of each warp.
DEVICE float* loaded_by_warp() {
    return reinterpret_cast<float*>(shared_memory()) + threadIdx.x / 32 * SEGMENT;
}

KERNEL(sample_scan, SampleArgs, 256, 8) {
    uint32_t row = blockIdx.y, segment = blockIdx.x * SCAN_SEGMENTS + threadIdx.x / 32;
    if (row >= *args.row_count || segment >= args.segments) return;
    SampleRow params = args.rows[row];
    RowLogits source = adjusted_logits(args, params, row);
    size_t out = static_cast<size_t>(row) * args.segments + segment;
    bool writes = threadIdx.x % 32 == 0;
    float* logits = loaded_by_warp();
    source.load_raw(segment, logits);
    float largest = segment_maximum(logits);
    if (writes) args.raw_maxima[out] = largest;
    if (params.logprobs != NONE) {
        float sum = 0.0f;
        for (uint32_t i = threadIdx.x % 32; i < SEGMENT; i += 32)
            sum += exp_of_negative(add(logits[i], -largest));
        sum = warp_sum(sum);
        if (writes) args.raw_sums[out] = sum;
    }
    if (source.is_adjusted()) {
        source.adjust(segment, logits);
        largest = segment_maximum(logits);
    }
    if (writes) args.maxima[out] = largest;
}

KERNEL(sample_weigh, SampleArgs, 256, 6) {
    uint32_t row = blockIdx.y, segment = blockIdx.x * SCAN_SEGMENTS + threadIdx.x / 32;
    if (row >= *args.row_count) return;
    SampleRow params = args.rows[row];
    if (is_greedy(params) || has_top_k(params, args.vocabulary)) return;
    float* of_warp = reinterpret_cast<float*>(shared_memory());
    const float* maxima = args.maxima + static_cast<size_t>(row) * args.segments;
    float largest = -INFINITY;
    for (uint32_t i = threadIdx.x; i < args.segments; i += SCAN_THREADS)
        largest = fmaxf(largest, maxima[i]);
    largest = warp_max(largest);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = largest;
    __syncthreads();
    largest = warp_max(of_warp[threadIdx.x % SCAN_SEGMENTS]);
    __syncthreads();
    if (segment >= args.segments || !is_finite(largest)) return;
    RowLogits source = adjusted_logits(args, params, row);
    float* logits = loaded_by_warp();
    source.load(segment, logits);
    Weights weights = {largest, params.temperature, params.min_p};
    uint64_t sum = 0;
    for (uint32_t i = threadIdx.x % 32; i < SEGMENT; i += 32) sum += weights.of(logits[i]);
    sum = warp_combine(sum, Sum());
    if (threadIdx.x % 32 == 0)
        args.weight_sums[static_cast<size_t>(row) * args.segments + segment] = sum;
}

// --- The choice ----------------------------------------------------------------------------------

// The SplitMix64 finaliser.
DEVICE uint64_t mix(uint64_t bits) {
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9ull;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebull;
    return bits ^ (bits >> 31);
}

DEVICE uint64_t random_bits(uint64_t seed, uint32_t position) {
    return mix(mix(seed) + (static_cast<uint64_t>(position) + 1) * 0x9e3779b97f4a7c15ull);
}

// The least sum that is at least `share` of `total`; never 0.
DEVICE uint64_t share_of(float share, uint64_t total) {
    uint64_t target = static_cast<uint64_t>(ceil(static_cast<double>(share) *
                                                 static_cast<double>(total)));
    target = target < total ? target : total;
    return target > 1 ? target : 1;
}

// Loads one number for each segment; returns the largest of all.
DEVICE float load_maxima(FinishMemory& memory, const SampleArgs& args, const float* maxima) {
    const float* of_row = maxima + static_cast<size_t>(blockIdx.x) * args.segments;
    float largest = -INFINITY;
    __syncthreads();
    for (uint32_t segment = threadIdx.x; segment < args.segments; segment += FINISH_THREADS) {
        memory.maxima[segment] = of_row[segment];
        largest = fmaxf(largest, of_row[segment]);
    }
    return block_combine(memory, largest, Largest());
}

// The first token with the largest logit.
DEVICE uint32_t first_largest(FinishMemory& memory, const Source& row, float largest) {
    uint32_t before_end = 0;
    for (uint32_t group = threadIdx.x; group < row.groups(); group += FINISH_THREADS)
        if (memory.maxima[group] == largest) before_end = max(before_end, row.groups() - group);
    uint32_t group = row.groups() - block_combine(memory, before_end, Largest());
    if (threadIdx.x < 32) {
        uint32_t first = NONE;
        row.for_each(memory, group, [&](float logit, uint32_t token) {
            if (logit == largest) first = min(first, token);
        });
        first = ~warp_combine(~first, Largest());
        if (threadIdx.x == 0) memory.token = first;
    }
    __syncthreads();
    return memory.token;
}

struct Drawn {
    uint32_t token;
    bool found;
};

// Truncation and the draw. Nothing is found if the source has too little weight for `top_p`.
DEVICE Drawn draw_from(FinishMemory& memory, const Source& source) {
    const Drawing& drawing = memory.drawing;
    uint64_t floor = 0;
    if (drawing.top_k > 0)
        floor = select<By::COUNT>(memory, source, drawing.weights, 0, drawing.top_k).key;
    if (drawing.top_p < 1.0f) {
        uint64_t target = drawing.top_p_target;
        if (target == 0) {
            sum_groups(memory, source, drawing.weights, floor);
            target = share_of(drawing.top_p, total_of_groups(memory, source.groups()));
        }
        Cut cut = select<By::WEIGHT>(memory, source, drawing.weights, floor, target);
        if (!cut.reached) return {NONE, false};
        floor = cut.key;
    }
    // Without truncation the sums are known.
    if (drawing.top_k > 0 || drawing.top_p < 1.0f)
        sum_groups(memory, source, drawing.weights, floor);
    return {draw(memory, source, drawing.weights, floor, drawing.random), true};
}

DEVICE uint32_t draw_token(FinishMemory& memory, const SampleArgs& args, const SampleRow& params,
                           float largest) {
    Drawing& drawing = memory.drawing;
    if (threadIdx.x == 0)
        drawing = {random_bits(params.seed, params.position),
                   0,
                   {largest, params.temperature, params.min_p},
                   params.top_p,
                   has_top_k(params, args.vocabulary) ? params.top_k : 0,
                   0};
    __syncthreads();
    if (drawing.top_k == 0) {
        const uint64_t* sums = args.weight_sums + static_cast<size_t>(blockIdx.x) * args.segments;
        for (uint32_t segment = threadIdx.x; segment < args.segments; segment += FINISH_THREADS)
            memory.sums[segment] = sums[segment];
        __syncthreads();
        uint64_t total = total_of_groups(memory, args.segments);
        if (threadIdx.x == 0) drawing.top_p_target = share_of(params.top_p, total);
        __syncthreads();
    }
    // Few tokens mostly suffice for `top_p`; if not, more.
    uint32_t wanted = drawing.top_k > 0 ? drawing.top_k : 64;
    bool truncates = drawing.top_k > 0 || drawing.top_p < 1.0f;
    for (;; wanted *= 8) {
        bool few = truncates && wanted <= CANDIDATES / 2;
        Source source = few ? gather(memory, memory.adjusted, wanted) : whole_row(memory.adjusted);
        Drawn drawn = draw_from(memory, source);
        if (drawn.found || source.row) return drawn.token;
    }
}

// --- Log-probabilities ---------------------------------------------------------------------------

// Collects the tokens with keys from `floor` on, at most `MAX_TOP`.
DEVICE void collect_top(FinishMemory& memory, const Source& source, uint32_t wanted) {
    Cut cut = select<By::COUNT>(memory, source, Weights{}, 0, wanted);
    if (threadIdx.x == 0) memory.top_count = 0;
    __syncthreads();
    source.for_all(memory, [&](float logit, uint32_t token) {
        uint64_t key = token_key(logit, token);
        if (logit == -INFINITY || key < cut.key) return;
        uint32_t place = atomicAdd(&memory.top_count, 1u);
        memory.top_keys[place] = key;
        memory.top_logits[place] = logit;
    });
    __syncthreads();
}

// 1 for the first token in the order by descending logit, then ascending id.
DEVICE uint32_t rank_of(FinishMemory& memory, const Source& row, uint32_t token) {
    float own = row.row->raw[token];
    uint32_t ahead = 0;
    for (uint32_t group = threadIdx.x / 32; group < row.groups(); group += FINISH_WARPS) {
        if (memory.maxima[group] < own) continue;
        row.for_each(memory, group, [&](float logit, uint32_t id) {
            ahead += logit > own || (logit == own && id < token);
        });
    }
    return 1 + block_combine(memory, ahead, Sum());
}

DEVICE void report_logprobs(FinishMemory& memory, const SampleArgs& args, uint32_t wanted,
                            uint32_t token) {
    float largest = load_maxima(memory, args, args.raw_maxima);
    const float* sums = args.raw_sums + static_cast<size_t>(blockIdx.x) * args.segments;
    double total = 0.0;
    for (uint32_t segment = threadIdx.x; segment < args.segments; segment += FINISH_THREADS)
        total += static_cast<double>(sums[segment]) *
                 exp_of_negative(memory.maxima[segment] - largest);
    double log_total = log(block_combine(memory, total, Sum()));
    SampledLogprobs* out = args.logprobs + blockIdx.x;
    uint32_t rank = rank_of(memory, whole_row(memory.raw), token);
    if (threadIdx.x == 0) {
        out->logprob = static_cast<float>(static_cast<double>(memory.raw.raw[token]) - largest -
                                          log_total);
        out->rank = rank;
        out->top_count = 0;
    }
    wanted = min(wanted, static_cast<uint32_t>(MAX_TOP));
    if (wanted == 0) return;
    collect_top(memory, gather(memory, memory.raw, wanted), wanted);
    if (threadIdx.x < memory.top_count) {
        uint64_t key = memory.top_keys[threadIdx.x];
        uint32_t place = 0;
        for (uint32_t i = 0; i < memory.top_count; i++) place += memory.top_keys[i] > key;
        out->top_tokens[place] = 0xfffff - static_cast<uint32_t>(key & 0xfffff);
        out->top_logprobs[place] = static_cast<float>(
            static_cast<double>(memory.top_logits[threadIdx.x]) - largest - log_total);
    }
    if (threadIdx.x == 0) out->top_count = memory.top_count;
}

KERNEL(sample_finish, SampleArgs, 1024, 1) {
    FinishMemory& memory = *reinterpret_cast<FinishMemory*>(shared_memory());
    uint32_t row = blockIdx.x;
    if (row >= *args.row_count) return;
    const SampleRow& params = args.rows[row];
    if (threadIdx.x == 0) {
        memory.adjusted = adjusted_logits(args, params, row);
        memory.raw = raw_logits(args, row);
    }
    bool usable = is_finite(load_maxima(memory, args, args.raw_maxima));
    float largest = load_maxima(memory, args, args.maxima);
    uint32_t token = NONE;
    if (usable && is_finite(largest))
        token = is_greedy(params) ? first_largest(memory, whole_row(memory.adjusted), largest)
                                  : draw_token(memory, args, params, largest);
    bool fault = token == NONE;
    if (threadIdx.x == 0) {
        args.sampled[row] = {fault ? 0 : token, fault};
        args.last_tokens[params.slot] = fault ? 0 : token;
    }
    if (fault) return;
    if (params.logprobs != NONE) report_logprobs(memory, args, params.logprobs, token);
    // Every read of the history is over once all threads are here.
    __syncthreads();
    if (threadIdx.x == 0 && params.history != NONE) {
        size_t line = static_cast<size_t>(params.history) * args.vocabulary;
        uint16_t& entry = args.histories[line + token];
        if ((entry & 0x7fff) != 0x7fff) entry++;
    }
}

// --- Histories -----------------------------------------------------------------------------------

struct HistoryArgs {
    // The prompt, then the output.
    const uint32_t* tokens;
    // [vocabulary], all zero.
    uint16_t* history;
    uint32_t prompt;
    uint32_t count;
    uint32_t vocabulary;
    uint32_t unused;
};

static_assert(sizeof(HistoryArgs) == 32, "as in Rust");

// Adds tokens to a history, one for each thread.
KERNEL(sample_history, HistoryArgs, 256, 1) {
    uint32_t index = blockIdx.x * 256 + threadIdx.x;
    if (index >= args.count || args.tokens[index] >= args.vocabulary) return;
    uint16_t* entry = args.history + args.tokens[index];
    // There are no atomics on 16 bits.
    size_t address = reinterpret_cast<size_t>(entry);
    uint32_t* word = reinterpret_cast<uint32_t*>(address & ~size_t(3));
    uint32_t shift = address & 2 ? 16 : 0;
    if (index < args.prompt) {
        atomicOr(word, 0x8000u << shift);
        return;
    }
    uint32_t seen = *word;
    while ((seen >> shift & 0x7fff) != 0x7fff) {
        uint32_t before = atomicCAS(word, seen, seen + (1u << shift));
        if (before == seen) return;
        seen = before;
    }
}
