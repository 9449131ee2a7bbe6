// Matrix products: of warpgroups, from descriptors, computed late; of warps, from registers.
#include "executor.h"

namespace host_executor {

constexpr unsigned ROWS = 64;
constexpr unsigned ROW_BYTES = 32;

// --- Factors in shared memory --------------------------------------------------------------------

// What a matrix descriptor says (PTX ISA, "matrix descriptor").
struct Descriptor {
    uint32_t address;
    uint32_t group_stride;
};

static Descriptor decode(uint64_t bits) {
    uint32_t address = static_cast<uint32_t>(bits & 0x3fff) << 4;
    uint32_t stride = static_cast<uint32_t>(bits >> 32 & 0x3fff) << 4;
    if (bits >> 62 != 1)
        fail("matrix descriptor 0x%016llx: only the 128-byte swizzle is known here",
             static_cast<unsigned long long>(bits));
    // Bits without a meaning, and the base offset, which is for panels not aligned to 1024 bytes.
    if (bits & 0x3ffec000c000c000ull)
        fail("matrix descriptor 0x%016llx has bits outside of its fields",
             static_cast<unsigned long long>(bits));
    if (address % 1024 >= 128 || address % 128 + ROW_BYTES > 128)
        fail("matrix descriptor for 0x%x, which is not in the first row of a panel aligned to "
             "1024 bytes",
             address);
    if (stride % 1024 != 0)
        fail("matrix descriptor with %u bytes between groups of rows", stride);
    return {address, stride};
}

struct Table {
    float e4m3[256];
    Table() {
        for (unsigned code = 0; code < 256; code++) e4m3[code] = decode_e4m3(code);
    }
};
static const Table table;

// Reads `rows` rows of 32 bytes; element k of row r goes to out[r * row_step + k * step].
static void read_factor(const Block& block, uint64_t bits, Numbers numbers, unsigned rows,
                        float* out, unsigned row_step, unsigned step) {
    Descriptor descriptor = decode(bits);
    for (unsigned row = 0; row < rows; row++) {
        uint32_t line = descriptor.address + row / 8 * descriptor.group_stride + row % 8 * 128;
        for (unsigned chunk = 0; chunk < ROW_BYTES / 16; chunk++) {
            uint32_t address = line + 16 * chunk;
            address ^= (address >> 7 & 7) << 4;
            if (address < SHARED_START || address + 16 > SHARED_START + block.shared_bytes)
                fail("a matrix product reads shared memory at 0x%x, behind the block's %zu bytes",
                     address, block.shared_bytes);
            const uint8_t* bytes = block.shared() + (address - SHARED_START);
            float* to = out + row * row_step;
            if (numbers == Numbers::e4m3) {
                for (unsigned i = 0; i < 16; i++)
                    to[(16 * chunk + i) * step] = table.e4m3[bytes[i]];
            } else {
                for (unsigned i = 0; i < 8; i++) {
                    bf16 value;
                    memcpy(&value, bytes + 2 * i, 2);
                    to[(8 * chunk + i) * step] = to_float(value);
                }
            }
        }
    }
}

// --- Products ------------------------------------------------------------------------------------

typedef float Lanes __attribute__((vector_size(32), aligned(4)));

// sums[64, columns] += a[64, depth] * b[depth, columns] with increasing depth. Products of the
// factors are exact in f32, so whether they are fused with the addition makes no difference.
template <unsigned COLUMNS>
inline __attribute__((always_inline)) void multiply_columns(float* sums, const float* a,
                                                            const float* b, unsigned columns,
                                                            unsigned depth) {
    constexpr unsigned VECTORS = COLUMNS / 8;
    for (unsigned row = 0; row < ROWS; row++) {
        Lanes* to = reinterpret_cast<Lanes*>(sums + row * columns);
        Lanes total[VECTORS];
        for (unsigned i = 0; i < VECTORS; i++) total[i] = to[i];
        for (unsigned k = 0; k < depth; k++) {
            const Lanes* from = reinterpret_cast<const Lanes*>(b + k * columns);
            float factor = a[row * depth + k];
            for (unsigned i = 0; i < VECTORS; i++) total[i] += factor * from[i];
        }
        for (unsigned i = 0; i < VECTORS; i++) to[i] = total[i];
    }
}

inline __attribute__((always_inline)) void multiply_any(float* sums, const float* a,
                                                        const float* b, unsigned columns,
                                                        unsigned depth) {
    if (columns == 8) return multiply_columns<8>(sums, a, b, columns, depth);
    if (columns == 16) return multiply_columns<16>(sums, a, b, columns, depth);
    for (unsigned column = 0; column < columns; column += 32)
        multiply_columns<32>(sums + column, a, b + column, columns, depth);
}

using Multiply = void (*)(float*, const float*, const float*, unsigned, unsigned);

static void multiply_baseline(float* sums, const float* a, const float* b, unsigned columns,
                              unsigned depth) {
    multiply_any(sums, a, b, columns, depth);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void multiply_avx2(float* sums, const float* a,
                                                          const float* b, unsigned columns,
                                                          unsigned depth) {
    multiply_any(sums, a, b, columns, depth);
}
#endif

static Multiply best_multiply() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) return multiply_avx2;
#endif
    return multiply_baseline;
}

static const Multiply multiply = best_multiply();

// --- Registers -----------------------------------------------------------------------------------

// Calls move(register, value) for each of a thread's sums, see wgmma.cuh.
template <typename Move>
static void each_sum(Sums& sums, unsigned member, Move move) {
    unsigned row = member / 32 * 16 + member % 32 / 4, column = 2 * (member % 4);
    for (unsigned j = 0; j < sums.columns / 8; j++)
        for (unsigned i = 0; i < 4; i++)
            move(sums.registers[member][4 * j + i],
                 sums.values[(row + i / 2 * 8) * sums.columns + 8 * j + column + i % 2]);
}

void Warpgroup::reset() {
    products.clear();
    computed = 0;
    waiters.clear();
    for (auto& sums : in_flight) spare.push_back(std::move(sums));
    in_flight.clear();
}

Sums* Warpgroup::sums_of(unsigned member, const float* registers) {
    for (auto& sums : in_flight)
        if (sums->registers[member] == registers) return sums.get();
    return nullptr;
}

Sums* Warpgroup::new_sums(unsigned columns) {
    if (spare.empty()) spare.push_back(std::make_unique<Sums>());
    in_flight.push_back(std::move(spare.back()));
    spare.pop_back();
    Sums* sums = in_flight.back().get();
    sums->columns = columns;
    sums->products = 0;
    std::fill(std::begin(sums->registers), std::end(sums->registers), nullptr);
    return sums;
}

// One thread's part of product `number`.
Product& Warpgroup::issue(unsigned member, uint64_t number, const Product& wanted,
                          float* registers) {
    Sums* sums = sums_of(member, registers);
    if (number == computed + products.size()) {
        products.push_back(wanted);
        products.back().sums = sums ? sums : new_sums(wanted.columns);
        products.back().sums->products++;
    }
    Product& product = products[number - computed];
    if (product.numbers != wanted.numbers || product.columns != wanted.columns ||
        product.a != wanted.a || product.b != wanted.b || product.keep != wanted.keep)
        fail("warpgroup_product differs from that of another thread of the warpgroup");
    if (product.sums->columns != wanted.columns || (sums && sums != product.sums))
        fail("warpgroup_product adds to sums that other products in flight use differently");
    if (!sums) {
        if (product.sums->registers[member])
            fail("warpgroup_product adds to other sums than in the other threads");
        // From here on the registers hold nothing that may be read.
        product.sums->registers[member] = registers;
        each_sum(*product.sums, member, [](float& place, float& value) {
            value = place;
            place = bits_float(0xffffffffu);
        });
    }
    product.issued++;
    return product;
}

bool Warpgroup::due() const {
    return !waiters.empty() && !products.empty() &&
           products.front().issued == WARPGROUP_THREADS;
}

void Warpgroup::compute_one(Block& block) {
    float *a = block.factors, *b = a + ROWS * ROW_BYTES;
    Product product = products.front();
    products.pop_front();
    computed++;
    Sums& sums = *product.sums;
    unsigned depth = product.numbers == Numbers::e4m3 ? 32 : 16;
    read_factor(block, product.a, product.numbers, ROWS, a, depth, 1);
    read_factor(block, product.b, product.numbers, product.columns, b, 1, product.columns);
    if (!product.keep) std::fill_n(sums.values, ROWS * product.columns, 0.0f);
    multiply(sums.values, a, b, product.columns, depth);
    if (--sums.products == 0) {
        for (unsigned member = 0; member < WARPGROUP_THREADS; member++)
            each_sum(sums, member, [](float& place, float& value) { place = value; });
        for (auto& candidate : in_flight) {
            if (candidate.get() != &sums) continue;
            spare.push_back(std::move(candidate));
            candidate = std::move(in_flight.back());
            in_flight.pop_back();
            break;
        }
    }
    for (size_t i = waiters.size(); i-- > 0;) {
        if (waiters[i].products > computed) continue;
        current_block().wake(waiters[i].fiber);
        waiters[i] = waiters.back();
        waiters.pop_back();
    }
}

static Warpgroup& own_warpgroup(const char* what) {
    unsigned group = current_fiber().number / WARPGROUP_THREADS;
    if (group >= current_block().warpgroups.size())
        fail("%s in a warpgroup that lacks some of its 128 threads", what);
    return current_block().warpgroups[group];
}

void warpgroup_issue(Numbers numbers, unsigned columns, float* sums, uint64_t a, uint64_t b,
                     bool keep) {
    Fiber& fiber = current_fiber();
    Block& block = current_block();
    Warpgroup& group = own_warpgroup("warpgroup_product");
    if (!fiber.may_multiply) fail("warpgroup_product without warpgroup_arrive since the last wait");
    Product wanted{numbers, columns, a, b, keep, 0, nullptr};
    uint64_t number = fiber.products++;
    group.issue(fiber.number % WARPGROUP_THREADS, number, wanted, sums);
    bool complete = group.products.back().issued == WARPGROUP_THREADS;
    if (complete && block.early())
        while (!group.products.empty()) group.compute_one(block);
}

void warpgroup_wait_until(int pending) {
    Fiber& fiber = current_fiber();
    Warpgroup& group = own_warpgroup("warpgroup_wait");
    uint64_t needed = 0;
    while (fiber.product_groups.size() > static_cast<size_t>(pending)) {
        needed = fiber.product_groups.front();
        fiber.product_groups.pop_front();
    }
    if (pending == 0) fiber.may_multiply = false;
    if (group.computed >= needed) return;
    group.waiters.push_back({&fiber, needed});
    current_block().wait({"warpgroup_wait", "products", needed, "computed", group.computed});
}

// --- Products of a warp --------------------------------------------------------------------------

struct Fragments {
    float* d;
    const uint32_t* a;
    const uint32_t* b;
};

static void multiply_fragments(void* const (&lanes)[WARP_LANES], unsigned) {
    float a[16][16], b[16][8];
    for (unsigned lane = 0; lane < WARP_LANES; lane++) {
        const Fragments& part = *static_cast<Fragments*>(lanes[lane]);
        unsigned g = lane / 4, t = lane % 4;
        for (unsigned i = 0; i < 4; i++) {
            a[g + i % 2 * 8][2 * t + i / 2 * 8] = bf16_low(part.a[i]);
            a[g + i % 2 * 8][2 * t + i / 2 * 8 + 1] = bf16_high(part.a[i]);
        }
        for (unsigned i = 0; i < 2; i++) {
            b[2 * t + i * 8][g] = bf16_low(part.b[i]);
            b[2 * t + i * 8 + 1][g] = bf16_high(part.b[i]);
        }
    }
    float d[16][8];
    auto each = [&](auto move) {
        for (unsigned lane = 0; lane < WARP_LANES; lane++)
            for (unsigned i = 0; i < 4; i++)
                move(static_cast<Fragments*>(lanes[lane])->d[i],
                     d[lane / 4 + i / 2 * 8][2 * (lane % 4) + i % 2]);
    };
    each([](float& place, float& value) { value = place; });
    for (unsigned row = 0; row < 16; row++)
        for (unsigned k = 0; k < 16; k++)
            for (unsigned column = 0; column < 8; column++)
                d[row][column] += a[row][k] * b[k][column];
    each([](float& place, float& value) { place = value; });
}

struct Load {
    const uint8_t* row;
    uint32_t* out;
};

template <bool transposed>
static void load_fragments(void* const (&lanes)[WARP_LANES], unsigned) {
    auto element = [&](unsigned matrix, unsigned row, unsigned column) {
        if (transposed) std::swap(row, column);
        uint16_t value;
        memcpy(&value, static_cast<Load*>(lanes[8 * matrix + row])->row + 2 * column, 2);
        return value;
    };
    for (unsigned lane = 0; lane < WARP_LANES; lane++) {
        unsigned row = lane / 4, column = 2 * (lane % 4);
        for (unsigned matrix = 0; matrix < 4; matrix++)
            static_cast<Load*>(lanes[lane])->out[matrix] =
                element(matrix, row, column) |
                static_cast<uint32_t>(element(matrix, row, column + 1)) << 16;
    }
}

static void load(const char* name, uint32_t (&out)[4], const void* row, Complete complete) {
    uint32_t address = current_block().address_of(row, 16, name);
    if (address % 16 != 0) fail("%s from 0x%x, which is not aligned to 16 bytes", name, address);
    Load lane{static_cast<const uint8_t*>(row), out};
    meet(name, 0xffffffffu, &lane, complete);
}

} // namespace host_executor

using namespace host_executor;

void warpgroup_arrive() {
    own_warpgroup("warpgroup_arrive");
    current_fiber().may_multiply = true;
}

void warpgroup_commit() { current_fiber().product_groups.push_back(current_fiber().products); }

void load_matrices(uint32_t (&out)[4], const void* row) {
    load("load_matrices", out, row, load_fragments<false>);
}

void load_matrices_transposed(uint32_t (&out)[4], const void* row) {
    load("load_matrices_transposed", out, row, load_fragments<true>);
}

void multiply_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    Fragments lane{d, a, b};
    meet("multiply_16x8x16", 0xffffffffu, &lane, multiply_fragments);
}
