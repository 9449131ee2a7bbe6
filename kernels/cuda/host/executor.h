// The inside of the host executor. A block of threads runs on one thread of the operating system;
// each of its threads is a fiber that runs until it has to wait. Everything that a card does beside
// the threads (copies, matrix products) is done at pseudo-random moments, at the latest when no
// fiber could run otherwise. One seed, BACKSTOP_HOST_SEED, gives one order.
#pragma once

#include "../wgmma.cuh"

#include <deque>
#include <memory>
#include <string>
#include <vector>

namespace host_executor {

constexpr size_t SHARED_LIMIT = 227 * 1024;
// Address of the first byte of dynamic shared memory in the block's window.
constexpr uint32_t SHARED_START = 1024;
constexpr unsigned WARPGROUP_THREADS = 128;
constexpr unsigned NAMED_BARRIERS = 16;
constexpr unsigned BLOCK_THREADS_LIMIT = 1024;

// What a fiber waits for, for people: "mbarrier at 1024, parity 0".
struct Waiting {
    const char* what = nullptr;
    const char* first_label = nullptr;
    uint64_t first = 0;
    const char* second_label = nullptr;
    uint64_t second = 0;
};

// Where a fiber, or the thread that runs the block, stopped.
struct Context {
    void* stack_pointer = nullptr;
    // For the address sanitizer.
    const void* stack_bottom = nullptr;
    size_t stack_bytes = 0;
    void* fake_stack = nullptr;
};

struct AsyncCopy {
    uint8_t* to;
    const void* from;
    bool valid;
    // Number of the group that it is part of.
    uint64_t group;
};

struct Fiber : Thread {
    struct Block* block;
    unsigned number;
    Context context;
    bool ended;
    Waiting waiting;
    // async_copy16: those not done yet, in order, and the number of groups that have ended.
    std::deque<AsyncCopy> copies;
    uint64_t copy_groups;
    // Matrix products: how many have been issued, and after how many each group ended.
    uint64_t products;
    std::deque<uint64_t> product_groups;
    bool may_multiply;

    void reset(unsigned number, const Thread& shape);
};

// Threads of a warp that meet, see `meet`.
struct Meeting {
    const char* name;
    Complete complete;
    unsigned mask;
    unsigned arrived = 0;
    // Of those that have arrived.
    void* brought[WARP_LANES];

    Meeting(const char* name, Complete complete, unsigned mask)
        : name(name), complete(complete), mask(mask) {}
};

struct Warp {
    unsigned ended = 0;
    // Those in progress, with disjoint masks if the kernel is right.
    std::vector<Meeting> meetings;
};

struct Barrier {
    unsigned expected = 0;
    std::vector<Fiber*> waiters;
};

struct MBarrier {
    uint32_t address;
    uint32_t expected;
    uint32_t pending;
    int64_t bytes;
    uint32_t phase;
    unsigned initialiser;
    bool fenced;
    std::vector<Fiber*> waiters;
};

struct BulkCopy {
    uint8_t* to;
    const void* from;
    uint32_t bytes;
    uint32_t barrier;
};

// Sums that products in flight add to.
struct Sums {
    unsigned columns;
    unsigned products;
    float* registers[WARPGROUP_THREADS];
    float values[64 * 128];
};

struct Product {
    Numbers numbers;
    unsigned columns;
    uint64_t a, b;
    bool keep;
    unsigned issued;
    Sums* sums;
};

struct Warpgroup {
    // Those not computed yet.
    std::deque<Product> products;
    uint64_t computed = 0;
    std::vector<std::unique_ptr<Sums>> in_flight, spare;
    struct Waiter {
        Fiber* fiber;
        uint64_t products;
    };
    std::vector<Waiter> waiters;

    void reset();
    Product& issue(unsigned member, uint64_t number, const Product& wanted, float* registers);
    Sums* sums_of(unsigned member, const float* registers);
    Sums* new_sums(unsigned columns);
    // Whether somebody waits for products that everybody has issued.
    bool due() const;
    void compute_one(struct Block& block);
};

// One block at a time, with what it needs; used again for later blocks and launches.
struct Block {
    const Registration* kernel;
    alignas(64) uint8_t args[4096];
    unsigned threads;
    size_t shared_bytes;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    // A deque because warpgroups do not move.
    std::deque<Warpgroup> warpgroups;
    Barrier barriers[NAMED_BARRIERS];
    std::vector<MBarrier> mbarriers;
    std::vector<BulkCopy> bulk_copies;
    // Both factors of a matrix product, decoded.
    float factors[(64 + 128) * 32];
    std::vector<Fiber*> ready;
    unsigned running;
    uint64_t random_state;
    Context main;
    std::string error;
    uint8_t* stacks = nullptr;
    size_t stack_count = 0;
    uint8_t* shared_allocation = nullptr;

    Block();
    ~Block();
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;

    // Runs a block to its end; false if that failed, with the reason in `error`.
    bool run(const Thread& shape, uint64_t seed);

    uint8_t* shared() const;
    // Checks that these bytes are within the block's shared memory; `what` is for people.
    uint32_t address_of(const void* pointer, size_t bytes, const char* what) const;

    // Lets other fibers run until `wake` is called for the present one.
    void wait(const Waiting& waiting);
    void wake(Fiber* fiber);
    void wake_all(std::vector<Fiber*>& fibers);
    [[noreturn]] void end_fiber();
    [[noreturn]] void abandon();

    uint32_t random(uint32_t bound);
    // Whether something that could be done now or later is done now.
    bool early() { return random(4) == 0; }

    MBarrier& mbarrier(const void* pointer, const char* what);
    void complete_if_done(MBarrier& barrier);
    void perform(size_t bulk_copy);

  private:
    void prepare(const Thread& shape, uint64_t seed);
    void prepare_stack(Fiber& fiber);
    void finish();
    void check_end(Fiber& fiber);
    bool progress();
    Fiber* next();
    std::string deadlock() const;
};

inline Fiber& current_fiber() { return *static_cast<Fiber*>(current); }
inline Block& current_block() { return *current_fiber().block; }

// Errors without a block around them; within one, `fail`.
std::string describe(const char* format, ...) __attribute__((format(printf, 1, 2)));

} // namespace host_executor
