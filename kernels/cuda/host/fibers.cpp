// Fibers, and in which order they run.
#include "executor.h"

#include <cstdarg>
#include <cstdio>
#include <map>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

namespace host_executor {

__thread Thread* current = nullptr;

// Stacks are only touched where they are used. Under the sanitizer frames are larger.
constexpr size_t STACK_BYTES = SANITIZED ? 1024 * 1024 : 256 * 1024;
constexpr size_t GUARD_BYTES = 4096;
// What fills shared memory before a block, and the bytes around it, which must stay.
constexpr int POISON = 0xff;
constexpr int CANARY = 0xa5;
constexpr size_t CANARY_BYTES = 4096;

// --- Switching -----------------------------------------------------------------------------------

#if defined(__x86_64__)

// Saves the registers that a function must keep, and the stack pointer, and takes up another stack.
extern "C" void backstop_host_switch(void** save, void* load);
asm(R"(
.text
.type backstop_host_switch, @function
.hidden backstop_host_switch
.globl backstop_host_switch
backstop_host_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size backstop_host_switch, . - backstop_host_switch
)");

static void* first_frame(uint8_t* top, void (*entry)()) {
    // Six registers, the entry as the return address, and what the entry takes for its own.
    void** frame = reinterpret_cast<void**>(top) - 8;
    for (int i = 0; i < 8; i++) frame[i] = nullptr;
    frame[6] = reinterpret_cast<void*>(entry);
    return frame;
}

#elif defined(__aarch64__)

extern "C" void backstop_host_switch(void** save, void* load);
asm(R"(
.text
.type backstop_host_switch, @function
.hidden backstop_host_switch
.globl backstop_host_switch
backstop_host_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size backstop_host_switch, . - backstop_host_switch
)");

static void* first_frame(uint8_t* top, void (*entry)()) {
    void** frame = reinterpret_cast<void**>(top) - 20;
    for (int i = 0; i < 20; i++) frame[i] = nullptr;
    frame[11] = reinterpret_cast<void*>(entry);
    return frame;
}

#else
#error "the host executor knows x86-64 and AArch64"
#endif

static void switch_context(Context& from, Context& to, [[maybe_unused]] bool from_ends) {
#if SANITIZED
    __sanitizer_start_switch_fiber(from_ends ? nullptr : &from.fake_stack, to.stack_bottom,
                                   to.stack_bytes);
#endif
    backstop_host_switch(&from.stack_pointer, to.stack_pointer);
#if SANITIZED
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

static void fiber_main() {
    Block& block = current_block();
#if SANITIZED
    const void* bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
    // The first fiber comes from the thread that runs the block.
    if (block.main.stack_bottom == nullptr) {
        block.main.stack_bottom = bottom;
        block.main.stack_bytes = bytes;
    }
#endif
    block.kernel->run(block.args);
    block.end_fiber();
}

// --- Errors --------------------------------------------------------------------------------------

static std::string format_message(const char* format, va_list arguments) {
    char text[512];
    vsnprintf(text, sizeof(text), format, arguments);
    return text;
}

std::string describe(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::string text = format_message(format, arguments);
    va_end(arguments);
    return text;
}

void fail(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::string text = format_message(format, arguments);
    va_end(arguments);
    Block& block = current_block();
    block.error = describe("thread %u: ", current_fiber().number) + text;
    text = std::string();
    block.abandon();
}

void Block::abandon() {
    // The other fibers never go on: kernels own nothing that would have to be given back.
    switch_context(current_fiber().context, main, true);
    __builtin_unreachable();
}

static std::string waiting_text(const Waiting& waiting) {
    std::string text = waiting.what;
    if (waiting.first_label)
        text += describe(" %s 0x%llx", waiting.first_label,
                         static_cast<unsigned long long>(waiting.first));
    if (waiting.second_label)
        text += describe(", %s %llu", waiting.second_label,
                         static_cast<unsigned long long>(waiting.second));
    return text;
}

// "0-30, 33, 35-63"; only the first few ranges.
static std::string ranges(const std::vector<unsigned>& numbers) {
    std::string text;
    for (size_t first = 0, last; first < numbers.size(); first = last + 1) {
        if (first > 0) text += ", ";
        if (text.size() > 60) return text + "...";
        last = first;
        while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) last++;
        text += std::to_string(numbers[first]);
        if (last > first) text += "-" + std::to_string(numbers[last]);
    }
    return text;
}

std::string Block::deadlock() const {
    std::map<std::string, std::vector<unsigned>> states;
    for (const Fiber& fiber : fibers) {
        std::string state = fiber.ended ? "have ended" : "wait in " + waiting_text(fiber.waiting);
        states[state].push_back(fiber.number);
    }
    std::string text = "deadlock";
    for (const auto& [state, numbers] : states) {
        if (text.size() > 2000) return text + "; and others";
        text += describe("; %zu threads (", numbers.size()) + ranges(numbers) + ") " + state;
    }
    return text;
}

// --- Order ---------------------------------------------------------------------------------------

uint32_t Block::random(uint32_t bound) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return static_cast<uint32_t>((random_state >> 32) * bound >> 32);
}

void Block::wait(const Waiting& waiting) {
    Fiber& fiber = current_fiber();
    fiber.waiting = waiting;
    Fiber* then = next();
    if (then == &fiber) return;
    current = then;
    switch_context(fiber.context, then->context, false);
}

void Block::wake(Fiber* fiber) {
    fiber->waiting = Waiting{};
    ready.push_back(fiber);
}

void Block::wake_all(std::vector<Fiber*>& sleeping) {
    for (Fiber* fiber : sleeping) wake(fiber);
    sleeping.clear();
}

void Block::end_fiber() {
    Fiber& fiber = current_fiber();
    check_end(fiber);
    fiber.ended = true;
    running--;
    Fiber* then = running > 0 ? next() : nullptr;
    if (then) current = then;
    switch_context(fiber.context, then ? then->context : main, true);
    __builtin_unreachable();
}

// A fiber that can run, after as much of the card's own work as that takes.
Fiber* Block::next() {
    while (ready.empty()) {
        if (!progress()) {
            error = deadlock();
            abandon();
        }
    }
    uint32_t index = random(static_cast<uint32_t>(ready.size()));
    Fiber* fiber = ready[index];
    ready[index] = ready.back();
    ready.pop_back();
    return fiber;
}

// Does one piece of what the card does beside the threads; false if there is none.
bool Block::progress() {
    std::vector<Warpgroup*> due;
    for (Warpgroup& group : warpgroups)
        if (group.due()) due.push_back(&group);
    size_t choices = bulk_copies.size() + due.size();
    if (choices == 0) return false;
    size_t choice = random(static_cast<uint32_t>(choices));
    if (choice < bulk_copies.size()) perform(choice);
    else due[choice - bulk_copies.size()]->compute_one(*this);
    return true;
}

// --- Blocks --------------------------------------------------------------------------------------

Block::Block() {
    size_t bytes = SHARED_LIMIT + 2 * CANARY_BYTES;
    shared_allocation = static_cast<uint8_t*>(
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (shared_allocation == MAP_FAILED) throw std::bad_alloc();
}

Block::~Block() {
    munmap(shared_allocation, SHARED_LIMIT + 2 * CANARY_BYTES);
    if (stacks) munmap(stacks, stack_count * (STACK_BYTES + GUARD_BYTES));
}

uint8_t* Block::shared() const { return shared_allocation + CANARY_BYTES; }

void Block::prepare_stack(Fiber& fiber) {
    uint8_t* bottom = stacks + fiber.number * (STACK_BYTES + GUARD_BYTES) + GUARD_BYTES;
#if SANITIZED
    // What a fiber leaves poisoned at its end lies near the top.
    constexpr size_t LEFT_POISONED = 16 * 1024;
    __asan_unpoison_memory_region(bottom + STACK_BYTES - LEFT_POISONED, LEFT_POISONED);
#endif
    // Tops at different places within a page: otherwise all fibers would use the same cache sets.
    uint8_t* top = bottom + STACK_BYTES - fiber.number * 832 % 4096 / 64 * 64;
    fiber.context = Context{first_frame(top, fiber_main), bottom, STACK_BYTES, nullptr};
}

void Block::prepare(const Thread& shape, uint64_t seed) {
    random_state = seed | 1;
    for (int i = 0; i < 4; i++) random(2);
    error.clear();
    main = Context{};
    if (stack_count < threads) {
        size_t each = STACK_BYTES + GUARD_BYTES;
        if (stacks) munmap(stacks, stack_count * each);
        stacks = static_cast<uint8_t*>(mmap(nullptr, threads * each, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (stacks == MAP_FAILED) throw std::bad_alloc();
        stack_count = threads;
        for (size_t i = 0; i < threads; i++) mprotect(stacks + i * each, GUARD_BYTES, PROT_NONE);
    }
#if SANITIZED
    __asan_unpoison_memory_region(shared_allocation, SHARED_LIMIT + 2 * CANARY_BYTES);
#endif
    memset(shared_allocation, CANARY, CANARY_BYTES);
    memset(shared(), POISON, shared_bytes);
    memset(shared() + shared_bytes, CANARY, CANARY_BYTES);
#if SANITIZED
    __asan_poison_memory_region(shared_allocation, CANARY_BYTES);
    __asan_poison_memory_region(shared() + shared_bytes,
                                SHARED_LIMIT + CANARY_BYTES - shared_bytes);
#endif
    fibers.resize(threads);
    ready.clear();
    ready.reserve(threads);
    for (unsigned number = 0; number < threads; number++) {
        fibers[number].reset(number, shape);
        fibers[number].shared = shared();
        fibers[number].block = this;
        prepare_stack(fibers[number]);
        ready.push_back(&fibers[number]);
    }
    running = threads;
    warps.resize((threads + WARP_LANES - 1) / WARP_LANES);
    for (Warp& warp : warps) {
        warp.ended = 0;
        warp.meetings.clear();
    }
    warpgroups.resize(threads / WARPGROUP_THREADS);
    for (Warpgroup& group : warpgroups) group.reset();
    for (Barrier& barrier : barriers) {
        barrier.expected = 0;
        barrier.waiters.clear();
    }
    mbarriers.clear();
    bulk_copies.clear();
}

void Fiber::reset(unsigned new_number, const Thread& shape) {
    static_cast<Thread&>(*this) = shape;
    number = new_number;
    thread_index = {new_number, 0, 0};
    lane = new_number % WARP_LANES;
    ended = false;
    waiting = Waiting{};
    copies.clear();
    copy_groups = 0;
    products = 0;
    product_groups.clear();
    may_multiply = false;
}

bool Block::run(const Thread& shape, uint64_t seed) {
    prepare(shape, seed);
    Fiber* first = next();
    current = first;
    switch_context(main, first->context, false);
    current = nullptr;
    if (error.empty()) finish();
#if SANITIZED
    // The frames of fibers that were abandoned are poisoned anywhere.
    else __asan_unpoison_memory_region(stacks, stack_count * (STACK_BYTES + GUARD_BYTES));
#endif
    return error.empty();
}

// What must not be left over when a thread ends.
void Block::check_end(Fiber& fiber) {
    Warp& warp = warps[fiber.number / WARP_LANES];
    for (const Meeting& meeting : warp.meetings)
        if (meeting.mask >> fiber.lane & 1)
            fail("ends while other lanes wait for it in %s with mask 0x%08x", meeting.name,
                 meeting.mask);
    warp.ended |= 1u << fiber.lane;
    if (!barriers[0].waiters.empty()) fail("ends while others wait for it in __syncthreads");
    if (!fiber.copies.empty()) fail("ends without async_copy_wait for its copies");
    unsigned group = fiber.number / WARPGROUP_THREADS;
    if (group < warpgroups.size() && warpgroups[group].computed < fiber.products)
        fail("ends without warpgroup_wait for its matrix products");
}

// What must not be left over when a block ends.
void Block::finish() {
    if (!bulk_copies.empty()) error = "it ended before its bulk copies were done";
    for (const MBarrier& barrier : mbarriers)
        if (barrier.bytes != 0 && error.empty())
            error = describe("the mbarrier at 0x%x ended with %lld bytes more expected than copied",
                             barrier.address, static_cast<long long>(barrier.bytes));
#if SANITIZED
    __asan_unpoison_memory_region(shared_allocation, SHARED_LIMIT + 2 * CANARY_BYTES);
#endif
    for (size_t i = 0; i < CANARY_BYTES; i++) {
        if (shared_allocation[i] != CANARY) error = "wrote before the block's shared memory";
        if (shared()[shared_bytes + i] != CANARY)
            error = describe("wrote behind the block's %zu bytes of shared memory (byte %zu)",
                             shared_bytes, shared_bytes + i);
    }
}

} // namespace host_executor
