// Stands in for NVIDIA's driver in tests: device memory is the host's, streams do their work at
// once, kernels are not run. It says what it was asked to do, insists on what the driver insists
// on, and counts what it gave and got back. FAKE_DRIVER chooses what is wrong with the machine.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;
enum { SUCCESS = 0, INVALID_VALUE = 1, NO_DEVICE = 100, INVALID_CONTEXT = 201, NOT_FOUND = 500 };
enum { LAUNCH_FAILED = 719, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901 };

typedef struct {
    int index;
    int recording;
} StreamState;

typedef struct {
    StreamState* stream;
    int recording;
} EventState;

static int context, live, failing, stream_count, recording, recorded, spoilt;
static StreamState* streams[3];
static __thread void* current;

static int machine(const char* kind) {
    const char* chosen = getenv("FAKE_DRIVER");
    return chosen && strcmp(chosen, kind) == 0;
}

static void* give(size_t bytes) {
    live++;
    return calloc(1, bytes);
}

static Result take(void* handle) {
    live--;
    free(handle);
    return SUCCESS;
}

// Calls need the context to be current in their thread.
#define NEED_CONTEXT                                                                               \
    if (current != &context) return INVALID_CONTEXT

// One operation of a stream: done, or recorded if the stream takes part in a recording.
#define OPERATION(stream, ...)                                                                     \
    do {                                                                                           \
        recorded += (stream)->recording;                                                           \
        printf("driver: %s%d: ", (stream)->recording ? "record on " : "", (stream)->index);        \
        printf(__VA_ARGS__);                                                                       \
        printf("\n");                                                                              \
        fflush(stdout);                                                                            \
    } while (0)

Result cuDriverGetVersion(int* version) {
    *version = machine("old") ? 12040 : 13000;
    return SUCCESS;
}

Result cuInit(unsigned flags) { return machine("no card") ? NO_DEVICE : flags; }

Result cuGetErrorName(Result error, const char** name) {
    *name = error == NO_DEVICE         ? "CUDA_ERROR_NO_DEVICE"
            : error == INVALID_VALUE   ? "CUDA_ERROR_INVALID_VALUE"
            : error == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT"
            : error == LAUNCH_FAILED   ? "CUDA_ERROR_LAUNCH_FAILED"
                                       : "another error";
    return SUCCESS;
}

Result cuGetErrorString(Result error, const char** text) {
    *text = error == NO_DEVICE ? "no CUDA-capable device is detected" : "text of the error";
    return SUCCESS;
}

Result cuDeviceGetCount(int* count) {
    *count = 1;
    return SUCCESS;
}

Result cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return SUCCESS;
}

Result cuDeviceGetName(char* name, int length, int device) {
    snprintf(name, length, "%s", machine("A100") ? "NVIDIA A100" : "NVIDIA H100");
    return device;
}

Result cuDeviceGetAttribute(int* value, int attribute, int device) {
    switch (attribute) {
    case 16: *value = 132; break;
    case 75: *value = machine("A100") ? 8 : 9; break;
    case 76: *value = 0; break;
    case 97: *value = 232448; break;
    default: return INVALID_VALUE;
    }
    return device;
}

Result cuDeviceTotalMem_v2(size_t* bytes, int device) {
    *bytes = 80ull << 30;
    return device;
}

Result cuDevicePrimaryCtxRetain(void** result, int device) {
    *result = &context;
    return device;
}

Result cuDevicePrimaryCtxRelease_v2(int device) {
    printf("driver: released, %d handles left\n", live);
    fflush(stdout);
    return device;
}

Result cuCtxSetCurrent(void* chosen) {
    current = chosen;
    return SUCCESS;
}

Result cuCtxSynchronize(void) {
    NEED_CONTEXT;
    return failing ? LAUNCH_FAILED : SUCCESS;
}

// --- Modules -------------------------------------------------------------------------------------

Result cuModuleLoadData(void** module, const void* image) {
    NEED_CONTEXT;
    if (memcmp(image, "\177ELF", 4) != 0 || (uintptr_t)image % 16 != 0) return INVALID_VALUE;
    *module = give(1);
    return SUCCESS;
}

Result cuModuleUnload(void* module) { return take(module); }

// Functions are their names.
Result cuModuleGetFunction(void** function, void* module, const char* name) {
    NEED_CONTEXT;
    *function = strdup(name);
    return module ? SUCCESS : NOT_FOUND;
}

Result cuFuncLoad(void* function) { return function ? SUCCESS : INVALID_VALUE; }

Result cuFuncGetAttribute(int* value, int attribute, void* function) {
    *value = 0;
    return function && attribute == 1 ? SUCCESS : INVALID_VALUE;
}

Result cuFuncSetAttribute(void* function, int attribute, int value) {
    if (!function) return INVALID_VALUE;
    int dynamic_shared_bytes = attribute == 8 && value == 232448;
    int preferred_carveout_percent = attribute == 9 && value == 100;
    return dynamic_shared_bytes || preferred_carveout_percent ? SUCCESS : INVALID_VALUE;
}

// --- Memory --------------------------------------------------------------------------------------

Result cuMemGetInfo_v2(size_t* unused, size_t* total) {
    NEED_CONTEXT;
    *unused = 79ull << 30;
    *total = 80ull << 30;
    return SUCCESS;
}

// At first 512 bytes behind a multiple of 1024, as the driver may do.
Result cuMemAlloc_v2(uint64_t* memory, size_t bytes) {
    static int count;
    NEED_CONTEXT;
    if (recording) {
        spoilt = 1;
        return CAPTURE_UNSUPPORTED;
    }
    if (bytes == 0) return INVALID_VALUE;
    int shift = count++ < 2 ? 512 : 1024;
    char* block = aligned_alloc(1024, (bytes + 3071) / 1024 * 1024);
    live++;
    *memory = (uintptr_t)block + shift;
    return SUCCESS;
}

Result cuMemFree_v2(uint64_t memory) {
    NEED_CONTEXT;
    return take((void*)(uintptr_t)((memory - 1) / 1024 * 1024));
}

Result cuMemHostAlloc(void** memory, size_t bytes, unsigned flags) {
    NEED_CONTEXT;
    *memory = memset(give(bytes), 1, bytes);
    return flags == 1 ? SUCCESS : INVALID_VALUE;
}

Result cuMemFreeHost(void* memory) { return take(memory); }

// Nothing says what the driver makes of copies of nothing.
Result cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, StreamState* stream) {
    NEED_CONTEXT;
    if (bytes == 0) return INVALID_VALUE;
    OPERATION(stream, "upload %zu", bytes);
    memcpy((void*)(uintptr_t)to, from, bytes);
    return SUCCESS;
}

Result cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, StreamState* stream) {
    NEED_CONTEXT;
    if (bytes == 0) return INVALID_VALUE;
    OPERATION(stream, "download %zu", bytes);
    memcpy(to, (void*)(uintptr_t)from, bytes);
    return SUCCESS;
}

Result cuMemsetD8Async(uint64_t to, unsigned char byte, size_t bytes, StreamState* stream) {
    NEED_CONTEXT;
    if (bytes == 0) return INVALID_VALUE;
    OPERATION(stream, "fill %zu", bytes);
    memset((void*)(uintptr_t)to, byte, bytes);
    return SUCCESS;
}

// --- Streams, launches, events, graphs -----------------------------------------------------------

Result cuStreamCreate(StreamState** stream, unsigned flags) {
    NEED_CONTEXT;
    *stream = streams[stream_count] = give(sizeof(StreamState));
    (*stream)->index = stream_count++;
    return flags == 1 ? SUCCESS : INVALID_VALUE;
}

Result cuStreamDestroy_v2(StreamState* stream) { return take(stream); }

Result cuStreamSynchronize(StreamState* stream) {
    NEED_CONTEXT;
    if (stream->recording) return CAPTURE_UNSUPPORTED;
    return failing ? LAUNCH_FAILED : SUCCESS;
}

// A grid of 7 x 7 x 7 blocks is one that fails.
Result cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads,
                      unsigned threads_y, unsigned threads_z, unsigned shared, StreamState* stream,
                      void** parameters, void** extra) {
    NEED_CONTEXT;
    const unsigned char* arguments = parameters[0];
    OPERATION(stream, "launch %s [%u, %u, %u] * %u, %u bytes, arguments %u %u", (char*)function, x,
              y, z, threads, shared, arguments[0], arguments[1]);
    failing |= x == 7 && y == 7 && z == 7;
    return threads_y == 1 && threads_z == 1 && !extra ? SUCCESS : INVALID_VALUE;
}

Result cuEventCreate(EventState** event, unsigned flags) {
    NEED_CONTEXT;
    *event = give(sizeof(EventState));
    return flags;
}

Result cuEventDestroy_v2(EventState* event) { return take(event); }

Result cuEventRecord(EventState* event, StreamState* stream) {
    NEED_CONTEXT;
    event->stream = stream;
    event->recording = stream->recording;
    return SUCCESS;
}

// A stream that waits for a recorded event is recorded as well.
Result cuStreamWaitEvent(StreamState* stream, EventState* event, unsigned flags) {
    NEED_CONTEXT;
    stream->recording |= event->recording;
    return flags;
}

Result cuEventSynchronize(EventState* event) {
    NEED_CONTEXT;
    return event->recording ? CAPTURE_UNSUPPORTED : SUCCESS;
}

Result cuEventElapsedTime_v2(float* milliseconds, EventState* from, EventState* to) {
    NEED_CONTEXT;
    *milliseconds = 1.5f;
    return from->stream && to->stream ? SUCCESS : INVALID_VALUE;
}

Result cuStreamBeginCapture_v2(StreamState* stream, int mode) {
    NEED_CONTEXT;
    stream->recording = recording = 1;
    recorded = spoilt = 0;
    return mode == 1 ? SUCCESS : INVALID_VALUE;
}

// A graph is the number of its operations.
Result cuStreamEndCapture(StreamState* stream, int** graph) {
    NEED_CONTEXT;
    if (!stream->recording) return INVALID_VALUE;
    recording = 0;
    for (int index = 0; index < stream_count; index++) streams[index]->recording = 0;
    if (spoilt) return CAPTURE_INVALIDATED;
    *graph = give(sizeof(int));
    **graph = recorded;
    return SUCCESS;
}

Result cuGraphInstantiateWithFlags(int** executable, int* graph, unsigned long long flags) {
    *executable = give(sizeof(int));
    **executable = *graph;
    return (Result)flags;
}

Result cuGraphDestroy(int* graph) { return take(graph); }
Result cuGraphExecDestroy(int* executable) { return take(executable); }

Result cuGraphUpload(int* executable, StreamState* stream) {
    NEED_CONTEXT;
    return executable && !stream->recording ? SUCCESS : INVALID_VALUE;
}

Result cuGraphLaunch(int* executable, StreamState* stream) {
    NEED_CONTEXT;
    OPERATION(stream, "graph of %d operations", *executable);
    return SUCCESS;
}
