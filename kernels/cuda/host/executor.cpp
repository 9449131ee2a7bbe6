// Launches, and the functions that the library exports.
#include "executor.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

namespace host_executor {

static Registration* all_kernels = nullptr;

Registration::Registration(const char* name, unsigned threads, size_t args_bytes,
                           void (*run)(const void*))
    : name(name), threads(threads), args_bytes(args_bytes), run(run), next(all_kernels) {
    all_kernels = this;
}

static const Registration* find_kernel(const char* name, std::string& error) {
    const Registration* found = nullptr;
    for (const Registration* kernel = all_kernels; kernel; kernel = kernel->next) {
        if (strcmp(kernel->name, name) != 0) continue;
        if (found) error = "two kernels have this name";
        found = kernel;
    }
    if (!found) error = "there is no kernel of this name";
    return found;
}

struct Launch {
    const Registration* kernel;
    uint3 grid;
    uint32_t threads;
    uint32_t shared_bytes;
    const void* args;
    size_t args_bytes;
};

static std::string check(const Launch& launch) {
    uint3 grid = launch.grid;
    if (launch.threads != launch.kernel->threads)
        return describe("%u threads, but the kernel is for %u", launch.threads,
                        launch.kernel->threads);
    if (launch.threads == 0 || launch.threads > BLOCK_THREADS_LIMIT)
        return describe("%u threads in a block", launch.threads);
    if (launch.args_bytes != launch.kernel->args_bytes)
        return describe("%zu bytes of arguments, but the kernel takes %zu", launch.args_bytes,
                        launch.kernel->args_bytes);
    if (launch.args_bytes > sizeof(Block::args)) return "more than 4096 bytes of arguments";
    if (launch.shared_bytes > SHARED_LIMIT)
        return describe("%u bytes of shared memory, of which there are %zu", launch.shared_bytes,
                        SHARED_LIMIT);
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffff || grid.y > 65535 ||
        grid.z > 65535)
        return describe("a grid of %u x %u x %u blocks", grid.x, grid.y, grid.z);
    return "";
}

static uint64_t mix(uint64_t value) {
    value += 0x9e3779b97f4a7c15ull;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ value >> 27) * 0x94d049bb133111ebull;
    return value ^ value >> 31;
}

static uint64_t seed() {
    const char* text = getenv("BACKSTOP_HOST_SEED");
    return text ? strtoull(text, nullptr, 10) : 1;
}

// Blocks that nobody uses just now, with their stacks.
class Pool {
  public:
    std::unique_ptr<Block> take() {
        std::lock_guard<std::mutex> lock(mutex);
        if (blocks.empty()) return std::make_unique<Block>();
        std::unique_ptr<Block> block = std::move(blocks.back());
        blocks.pop_back();
        return block;
    }
    void give(std::unique_ptr<Block> block) {
        std::lock_guard<std::mutex> lock(mutex);
        blocks.push_back(std::move(block));
    }

  private:
    std::mutex mutex;
    std::vector<std::unique_ptr<Block>> blocks;
};
static Pool pool;

// The blocks of a launch that are still to do, and what went wrong.
struct Work {
    const Launch& launch;
    uint64_t count;
    uint64_t seed;
    std::atomic<uint64_t> next{0};
    std::atomic<bool> failed{false};
    std::mutex mutex;
    std::string error;

    Work(const Launch& launch, uint64_t count, uint64_t seed)
        : launch(launch), count(count), seed(seed) {}

    void run() {
        std::unique_ptr<Block> block = pool.take();
        block->kernel = launch.kernel;
        block->threads = launch.threads;
        block->shared_bytes = launch.shared_bytes;
        memcpy(block->args, launch.args, launch.args_bytes);
        uint3 grid = launch.grid;
        while (!failed) {
            uint64_t turn = next++;
            if (turn >= count) break;
            // Forwards or backwards: blocks may not depend on one another.
            uint64_t index = seed & 1 ? count - 1 - turn : turn;
            Thread shape{};
            shape.block_size = {launch.threads, 1, 1};
            shape.grid_size = grid;
            shape.block_index = {static_cast<unsigned>(index % grid.x),
                                 static_cast<unsigned>(index / grid.x % grid.y),
                                 static_cast<unsigned>(index / grid.x / grid.y)};
            if (block->run(shape, mix(seed + index))) continue;
            std::lock_guard<std::mutex> lock(mutex);
            if (!failed)
                error = describe("block (%u, %u, %u): ", shape.block_index.x, shape.block_index.y,
                                 shape.block_index.z) +
                        block->error;
            failed = true;
        }
        pool.give(std::move(block));
    }
};

static std::string run(const Launch& launch) {
    std::string error = check(launch);
    if (!error.empty()) return error;
    uint64_t count = static_cast<uint64_t>(launch.grid.x) * launch.grid.y * launch.grid.z;
    // Not of earlier launches, so that a launch that fails alone fails among others.
    uint64_t order = mix(seed() + mix(count));
    for (const char* letter = launch.kernel->name; *letter; letter++) order = mix(order + *letter);
    Work work(launch, count, order);
    uint64_t workers = std::max(1u, std::thread::hardware_concurrency());
    std::vector<std::thread> others;
    for (uint64_t i = 1; i < std::min(workers, count); i++)
        others.emplace_back([&work] { work.run(); });
    work.run();
    for (std::thread& other : others) other.join();
    return work.error;
}

} // namespace host_executor

using namespace host_executor;

// Runs a kernel to its end. 0 if that worked, else 1, with the reason in `message`.
extern "C" __attribute__((visibility("default"))) int
backstop_host_launch(const char* name, const uint32_t* grid, uint32_t threads,
                     uint32_t shared_bytes, const void* args, size_t args_bytes, char* message,
                     size_t message_bytes) {
    std::string error;
    const Registration* kernel = find_kernel(name, error);
    try {
        if (error.empty())
            error = run(Launch{kernel, {grid[0], grid[1], grid[2]}, threads, shared_bytes, args,
                               args_bytes});
    } catch (const std::exception& exception) {
        error = exception.what();
    }
    if (error.empty()) return 0;
    snprintf(message, message_bytes, "kernel %s: %s", name, error.c_str());
    return 1;
}

// The name of a kernel; null behind the last.
extern "C" __attribute__((visibility("default"))) const char* backstop_host_kernel(size_t index) {
    const Registration* kernel = all_kernels;
    while (kernel && index-- > 0) kernel = kernel->next;
    return kernel ? kernel->name : nullptr;
}
