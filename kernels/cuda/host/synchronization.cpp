// Barriers, meetings of lanes, and copies.
#include "executor.h"

namespace host_executor {

// --- Meetings of the lanes of a warp -------------------------------------------------------------

void meet(const char* name, unsigned mask, void* brought, Complete complete) {
    Block& block = current_block();
    Fiber& fiber = current_fiber();
    Warp& warp = block.warps[fiber.number / WARP_LANES];
    unsigned own = 1u << fiber.lane;
    if (!(mask & own)) fail("%s with mask 0x%08x, which lacks its own lane", name, mask);
    if (mask & warp.ended)
        fail("%s with mask 0x%08x, of which lanes 0x%08x have ended", name, mask,
             mask & warp.ended);
    if (fiber.number / WARP_LANES * WARP_LANES + WARP_LANES > block.threads &&
        mask >> block.threads % WARP_LANES)
        fail("%s with mask 0x%08x in a warp of %u lanes", name, mask, block.threads % WARP_LANES);
    Meeting* meeting = nullptr;
    for (Meeting& candidate : warp.meetings)
        if (candidate.complete == complete && candidate.name == name && candidate.mask == mask)
            meeting = &candidate;
    if (!meeting) {
        warp.meetings.emplace_back(name, complete, mask);
        meeting = &warp.meetings.back();
    }
    meeting->arrived |= own;
    meeting->brought[fiber.lane] = brought;
    if (meeting->arrived != mask) {
        block.wait({name, "with mask", mask});
        return;
    }
    complete(meeting->brought, mask);
    if (meeting != &warp.meetings.back()) *meeting = warp.meetings.back();
    warp.meetings.pop_back();
    Fiber* first = &fiber - fiber.lane;
    for (unsigned lane = 0; lane < WARP_LANES; lane++)
        if (mask >> lane & 1 && lane != fiber.lane) block.wake(first + lane);
}

void exchange(void* const (&lanes)[WARP_LANES], unsigned mask) {
    for (unsigned lane = 0; lane < WARP_LANES; lane++) {
        if (!(mask >> lane & 1)) continue;
        Exchange& to = *static_cast<Exchange*>(lanes[lane]);
        if (to.source >= WARP_LANES || !(mask >> to.source & 1))
            fail("lane %u reads the value of lane %u, which is not in mask 0x%08x", lane, to.source,
                 mask);
        to.result = static_cast<Exchange*>(lanes[to.source])->value;
    }
}

void match(void* const (&lanes)[WARP_LANES], unsigned mask) {
    uint64_t values[WARP_LANES];
    for (unsigned lane = 0; lane < WARP_LANES; lane++)
        if (mask >> lane & 1) values[lane] = *static_cast<uint64_t*>(lanes[lane]);
    for (unsigned lane = 0; lane < WARP_LANES; lane++) {
        if (!(mask >> lane & 1)) continue;
        uint64_t same = 0;
        for (unsigned other = 0; other < WARP_LANES; other++)
            if (mask >> other & 1 && values[other] == values[lane]) same |= 1ull << other;
        *static_cast<uint64_t*>(lanes[lane]) = same;
    }
}

static void vote(void* const (&lanes)[WARP_LANES], unsigned mask) {
    unsigned votes = 0;
    for (unsigned lane = 0; lane < WARP_LANES; lane++)
        if (mask >> lane & 1) votes |= *static_cast<unsigned*>(lanes[lane]) << lane;
    for (unsigned lane = 0; lane < WARP_LANES; lane++)
        if (mask >> lane & 1) *static_cast<unsigned*>(lanes[lane]) = votes;
}

static void nothing(void* const (&)[WARP_LANES], unsigned) {}

// --- Shared memory -------------------------------------------------------------------------------

uint32_t Block::address_of(const void* pointer, size_t bytes, const char* what) const {
    uintptr_t begin = reinterpret_cast<uintptr_t>(shared());
    uintptr_t place = reinterpret_cast<uintptr_t>(pointer);
    if (place < begin || place - begin > shared_bytes || shared_bytes - (place - begin) < bytes)
        fail("%s: %zu bytes at offset %lld are not within the block's %zu bytes of shared memory",
             what, bytes, static_cast<long long>(place - begin), shared_bytes);
    return static_cast<uint32_t>(place - begin) + SHARED_START;
}

// --- mbarriers -----------------------------------------------------------------------------------

// What stands in the 8 bytes, so that overwriting them shows.
static uint64_t token(uint32_t address) { return 0x6d62617272696572ull ^ address; }

static uint32_t mbarrier_address(const Block& block, const void* pointer, const char* what) {
    uint32_t address = block.address_of(pointer, 8, what);
    if (address % 8 != 0) fail("%s: the mbarrier at 0x%x is not aligned to 8 bytes", what, address);
    return address;
}

MBarrier& Block::mbarrier(const void* pointer, const char* what) {
    uint32_t address = mbarrier_address(*this, pointer, what);
    uint64_t content;
    memcpy(&content, pointer, 8);
    for (MBarrier& barrier : mbarriers) {
        if (barrier.address != address) continue;
        if (content != token(address))
            fail("%s: the mbarrier at 0x%x was overwritten", what, address);
        if (!barrier.fenced && barrier.initialiser != current_fiber().number)
            fail("%s: no mbarrier_init_fence after the init of the mbarrier at 0x%x", what,
                 address);
        return barrier;
    }
    fail("%s: the mbarrier at 0x%x is not initialised", what, address);
}

void Block::complete_if_done(MBarrier& barrier) {
    if (barrier.pending != 0 || barrier.bytes != 0) return;
    barrier.phase ^= 1;
    barrier.pending = barrier.expected;
    wake_all(barrier.waiters);
}

static void arrive(uint64_t* pointer, uint32_t bytes, const char* what) {
    Block& block = current_block();
    MBarrier& barrier = block.mbarrier(pointer, what);
    if (barrier.pending == 0)
        fail("%s: more than the %u expected arrivals at the mbarrier at 0x%x", what,
             barrier.expected, barrier.address);
    barrier.pending--;
    barrier.bytes += bytes;
    if (barrier.bytes >= 1 << 20)
        fail("%s: the mbarrier at 0x%x cannot expect 2^20 bytes", what, barrier.address);
    block.complete_if_done(barrier);
}

// --- Copies --------------------------------------------------------------------------------------

void Block::perform(size_t index) {
    BulkCopy copy = bulk_copies[index];
    bulk_copies[index] = bulk_copies.back();
    bulk_copies.pop_back();
    memcpy(copy.to, copy.from, copy.bytes);
    for (MBarrier& barrier : mbarriers) {
        if (barrier.address != copy.barrier) continue;
        barrier.bytes -= copy.bytes;
        complete_if_done(barrier);
    }
}

static bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

static void perform(const AsyncCopy& copy) {
    if (copy.valid) memcpy(copy.to, copy.from, 16);
    else memset(copy.to, 0, 16);
}

} // namespace host_executor

using namespace host_executor;

void __syncwarp(unsigned mask) { meet("__syncwarp", mask, nullptr, nothing); }

unsigned __ballot_sync(unsigned mask, int predicate) {
    unsigned votes = predicate != 0;
    meet("a vote", mask, &votes, vote);
    return votes;
}

uint32_t shared_address(const void* pointer) {
    return current_block().address_of(pointer, 0, "shared_address");
}

// Warps of the barrier must take part as a whole.
static void check_whole_warps(const Block& block, const Barrier& barrier, int id) {
    std::vector<unsigned> counts(block.warps.size());
    counts[current_fiber().number / WARP_LANES]++;
    for (const Fiber* waiter : barrier.waiters) counts[waiter->number / WARP_LANES]++;
    for (size_t warp = 0; warp < counts.size(); warp++)
        if (counts[warp] % WARP_LANES != 0)
            fail("named_barrier %d: only %u lanes of warp %zu came", id, counts[warp], warp);
}

static void barrier_wait(Barrier& barrier, unsigned threads, const Waiting& waiting, int id) {
    Block& block = current_block();
    if (barrier.waiters.size() + 1 < threads) {
        barrier.waiters.push_back(&current_fiber());
        block.wait(waiting);
        return;
    }
    if (id != 0) check_whole_warps(block, barrier, id);
    block.wake_all(barrier.waiters);
}

void __syncthreads() {
    Block& block = current_block();
    if (block.running != block.threads) fail("__syncthreads, but other threads have ended");
    barrier_wait(block.barriers[0], block.threads, {"__syncthreads"}, 0);
}

void named_barrier(int id, int threads) {
    Block& block = current_block();
    if (id < 1 || id >= static_cast<int>(NAMED_BARRIERS)) fail("named_barrier has no number %d", id);
    if (threads <= 0 || threads % 32 != 0 || threads > static_cast<int>(block.threads))
        fail("named_barrier %d for %d threads", id, threads);
    Barrier& barrier = block.barriers[id];
    if (barrier.waiters.empty()) barrier.expected = threads;
    if (barrier.expected != static_cast<unsigned>(threads))
        fail("named_barrier %d for %d threads, where others wait for %u", id, threads,
             barrier.expected);
    barrier_wait(barrier, threads,
                 {"named_barrier", "number", static_cast<uint64_t>(id), "threads",
                  static_cast<uint64_t>(threads)},
                 id);
}

void mbarrier_init(uint64_t* pointer, uint32_t arrivals) {
    Block& block = current_block();
    uint32_t address = mbarrier_address(block, pointer, "mbarrier_init");
    if (arrivals == 0 || arrivals >= 1 << 20) fail("mbarrier_init for %u arrivals", arrivals);
    for (const MBarrier& barrier : block.mbarriers)
        if (barrier.address == address)
            fail("mbarrier_init: the mbarrier at 0x%x is initialised already", address);
    uint64_t content = token(address);
    memcpy(pointer, &content, 8);
    block.mbarriers.push_back(
        MBarrier{address, arrivals, arrivals, 0, 0, current_fiber().number, false, {}});
}

void mbarrier_init_fence() {
    for (MBarrier& barrier : current_block().mbarriers)
        if (barrier.initialiser == current_fiber().number) barrier.fenced = true;
}

void mbarrier_arrive(uint64_t* barrier) { arrive(barrier, 0, "mbarrier_arrive"); }

void mbarrier_arrive_expect(uint64_t* barrier, uint32_t bytes) {
    arrive(barrier, bytes, "mbarrier_arrive_expect");
}

void mbarrier_wait(uint64_t* pointer, uint32_t parity) {
    Block& block = current_block();
    if (parity > 1) fail("mbarrier_wait for parity %u", parity);
    // Looked up again each time: another fiber may have initialised more of them.
    while (block.mbarrier(pointer, "mbarrier_wait").phase == parity) {
        MBarrier& barrier = block.mbarrier(pointer, "mbarrier_wait");
        barrier.waiters.push_back(&current_fiber());
        block.wait({"mbarrier", "at", barrier.address, "parity", parity});
    }
}

void bulk_copy(void* shared, const void* global, uint32_t bytes, uint64_t* pointer) {
    Block& block = current_block();
    uint32_t address = block.address_of(shared, bytes, "bulk_copy");
    if (address % 16 != 0) fail("bulk_copy to 0x%x, which is not aligned to 16 bytes", address);
    if (!aligned(global)) fail("bulk_copy from %p, which is not aligned to 16 bytes", global);
    if (bytes == 0 || bytes % 16 != 0) fail("bulk_copy of %u bytes", bytes);
    MBarrier& barrier = block.mbarrier(pointer, "bulk_copy");
    if (!barrier.fenced)
        fail("bulk_copy: no mbarrier_init_fence after the init of the mbarrier at 0x%x",
             barrier.address);
    block.bulk_copies.push_back(
        BulkCopy{static_cast<uint8_t*>(shared), global, bytes, barrier.address});
    if (block.early()) block.perform(block.bulk_copies.size() - 1);
}

void async_copy16(void* shared, const void* global, bool valid) {
    Block& block = current_block();
    uint32_t address = block.address_of(shared, 16, "async_copy16");
    if (address % 16 != 0) fail("async_copy16 to 0x%x, which is not aligned to 16 bytes", address);
    if (!aligned(global)) fail("async_copy16 from %p, which is not aligned to 16 bytes", global);
    Fiber& fiber = current_fiber();
    AsyncCopy copy{static_cast<uint8_t*>(shared), global, valid, fiber.copy_groups};
    if (block.early()) perform(copy);
    else fiber.copies.push_back(copy);
}

void async_copy_commit() { current_fiber().copy_groups++; }

void async_copy_wait_until(int pending) {
    Fiber& fiber = current_fiber();
    while (!fiber.copies.empty() &&
           fiber.copies.front().group + static_cast<uint64_t>(pending) < fiber.copy_groups) {
        perform(fiber.copies.front());
        fiber.copies.pop_front();
    }
}
