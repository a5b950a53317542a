/* Stands in for libcudart on a machine without a GPU: device memory is host memory, kernels do nothing, and each launch,
 * copy, wait, allocation and recording is a line of the file named by CUDA_STANDIN_LOG: thread, event, details.
 *
 * CUDA_STANDIN_DEVICES      number of devices, 1 unless set
 * CUDA_STANDIN_MEMORY       bytes of one device, 80 GiB unless set; an allocation beyond them fails
 * CUDA_STANDIN_CAPABILITY   compute capability, 9.0 unless set; without code for it in the wheel, launches fail
 * CUDA_STANDIN_COUNT        what a count that is read back is, such as the boxes that suppression keeps; 3 unless set
 * CUDA_STANDIN_HOLD         a file: recordings end when it is gone, so that other threads can disturb them
 *
 * While a recording is made, whatever CUDA forbids then is refused and spoils it, in whatever thread it happens.
 * A queued copy between page-locked memory and the device is done when the host waits for its stream. Until then, what
 * comes from the device is 0xff in each byte; and what goes there must not change, or "changed" is logged.
 * Values are meaningless, and so are times. Only what ONNX Runtime's CUDA provider calls is here.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, OUT_OF_MEMORY = 2, NO_DEVICE = 100, BAD_DEVICE = 101, NO_CODE = 209, FORBIDDEN = 900, SPOILED = 901 };
enum { UNKNOWN_MEMORY, PINNED, DEVICE };
typedef struct { unsigned x, y, z; } Sizes;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void standin_log(const char *format, ...) {
    const char *path = getenv("CUDA_STANDIN_LOG");
    if (!path) return;
    char line[512];
    int used = snprintf(line, 24, "%d ", gettid());
    va_list details;
    va_start(details, format);
    used += vsnprintf(line + used, sizeof line - used - 1, format, details);
    va_end(details);
    if (used > (int)sizeof line - 2) used = sizeof line - 2;
    line[used++] = '\n';
    int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0 || write(file, line, used) != used) abort();
    close(file);
}

static long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}
static int devices(void) { return setting("CUDA_STANDIN_DEVICES", 1); }
static long memory(void) { return setting("CUDA_STANDIN_MEMORY", 80L << 30); }
static const char *capability(void) { return getenv("CUDA_STANDIN_CAPABILITY") ? getenv("CUDA_STANDIN_CAPABILITY") : "9.0"; }
static int has_code(void) { return strstr("7.5 8.0 8.6 8.9 9.0 12.0", capability()) != NULL; }
static void *handle(void) { return calloc(1, 64); }

/* --- Recordings --- */

static void *recorded_stream;
static int spoiled;

static int refused(const char *what) {
    if (!recorded_stream) return 0;
    spoiled = 1;
    standin_log("refused %s", what);
    return 1;
}
int cudaStreamBeginCapture(void *stream) {
    if (refused("begin-recording")) return FORBIDDEN;
    standin_log("begin-recording");
    recorded_stream = stream;
    spoiled = 0;
    return OK;
}
int cudaStreamEndCapture(void *stream, void **graph) {
    const char *hold = getenv("CUDA_STANDIN_HOLD");
    while (hold && !access(hold, F_OK)) usleep(1000);
    recorded_stream = NULL;
    standin_log("end-recording");
    *graph = spoiled ? NULL : handle();
    return spoiled ? SPOILED : OK;
}
int cudaStreamIsCapturing(void *stream, int *state) { *state = recorded_stream && stream == recorded_stream; return OK; }
int cudaGraphInstantiate(void **recording) { *recording = handle(); return OK; }
int cudaGraphLaunch(void *recording, void *stream) { standin_log("replay %p on %p", recording, stream); return OK; }

/* --- Devices --- */

static __thread int current;

int cudaGetDeviceCount(int *count) { *count = devices(); return *count ? OK : NO_DEVICE; }
int cudaGetDevice(int *device) { *device = current; return OK; }
int cudaSetDevice(int device) {
    if (device < 0 || device >= devices()) return BAD_DEVICE;
    current = device;
    return OK;
}
int cudaGetDeviceProperties(char *properties, int device) {
    if (device < 0 || device >= devices()) return BAD_DEVICE;
    memset(properties, 0, 1008); /* offsets are those of cudaDeviceProp in CUDA 13 */
    strcpy(properties, "stand-in");
    *(size_t *)(properties + 288) = memory();
    *(size_t *)(properties + 296) = 48 << 10;                         /* shared memory of a block */
    *(int *)(properties + 304) = 1 << 16;                             /* registers of a block */
    *(int *)(properties + 308) = 32;                                  /* threads of a warp */
    *(int *)(properties + 320) = 1024;                                /* threads of a block */
    memcpy(properties + 324, (int[]){1024, 1024, 64}, 12);            /* sides of a block */
    memcpy(properties + 336, (int[]){0x7fffffff, 65535, 65535}, 12);  /* sides of a grid */
    sscanf(capability(), "%d.%d", (int *)(properties + 360), (int *)(properties + 364));
    *(int *)(properties + 384) = 132;                                 /* multiprocessors */
    *(int *)(properties + 596) = 50 << 20;                            /* second level cache */
    *(int *)(properties + 604) = 2048;                                /* threads of a multiprocessor */
    *(size_t *)(properties + 624) = *(size_t *)(properties + 672) = 227 << 10;
    return OK;
}
int cudaDeviceGetAttribute(int *value, int attribute) {
    static const int known[][2] = {{1, 1024}, {5, 0x7fffffff}, {6, 65535}, {7, 65535}, {8, 48 << 10}, {10, 32},
        {12, 1 << 16}, {16, 132}, {38, 50 << 20}, {39, 2048}, {81, 227 << 10}, {97, 227 << 10}};
    int major = 9, minor = 0;
    sscanf(capability(), "%d.%d", &major, &minor);
    *value = attribute == 75 ? major : attribute == 76 ? minor : 1;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i][0] == attribute) *value = known[i][1];
    return OK;
}
int cudaDriverGetVersion(int *version) { *version = 13000; return OK; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return OK; }
const char *cudaGetErrorName(int error) { return error == OUT_OF_MEMORY ? "cudaErrorMemoryAllocation" : "cudaError"; }
const char *cudaGetErrorString(int error) {
    switch (error) {
        case OUT_OF_MEMORY: return "out of memory";
        case NO_DEVICE: return "no CUDA-capable device is detected";
        case BAD_DEVICE: return "invalid device ordinal";
        case NO_CODE: return "no kernel image is available for execution on the device";
        case FORBIDDEN: return "operation not permitted when stream is capturing";
        case SPOILED: return "operation failed due to a previous error during capture";
        default: return "stand-in error";
    }
}

/* --- Memory --- */

static struct { char *begin; size_t size; int kind, device; } blocks[1 << 16];
static int used_blocks;
static long held[64];

static int kind_of(const void *place) {
    int kind = UNKNOWN_MEMORY;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < used_blocks && !kind; i++)
        if (blocks[i].begin && (char *)place >= blocks[i].begin && (char *)place <= blocks[i].begin + blocks[i].size)
            kind = blocks[i].kind;
    pthread_mutex_unlock(&lock);
    return kind;
}
static int allocate(void **place, size_t size, int kind) {
    *place = NULL;
    if (kind == DEVICE && refused("allocation")) return FORBIDDEN;
    if (kind == DEVICE && held[current] + (long)size > memory()) {
        standin_log("memory-full %zu", size);
        return OUT_OF_MEMORY;
    }
    if (posix_memalign(place, 512, size + 512)) return OUT_OF_MEMORY;
    memset(*place, 0, size + 512);
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < used_blocks && blocks[i].begin) i++;
    if (i == used_blocks && ++used_blocks == 1 << 16) abort();
    blocks[i].begin = *place, blocks[i].size = size, blocks[i].kind = kind, blocks[i].device = current;
    if (kind == DEVICE) held[current] += size;
    pthread_mutex_unlock(&lock);
    standin_log("allocate %s %zu", kind == DEVICE ? "device" : "pinned", size);
    return OK;
}
static void finish(void *stream, int all);

static int release(void *place) {
    if (!place) return OK;
    finish(NULL, 1); /* freeing waits for the device */
    pthread_mutex_lock(&lock);
    int kind = UNKNOWN_MEMORY, i = 0;
    size_t size = 0;
    while (i < used_blocks && blocks[i].begin != place) i++;
    if (i < used_blocks) {
        kind = blocks[i].kind, size = blocks[i].size;
        if (kind == DEVICE) held[blocks[i].device] -= blocks[i].size;
        blocks[i].begin = NULL;
    }
    pthread_mutex_unlock(&lock);
    if (refused("free")) return FORBIDDEN;
    standin_log("free %s %zu", kind == DEVICE ? "device" : "pinned", size);
    free(place);
    return OK;
}
int cudaMalloc(void **place, size_t size) { return allocate(place, size, DEVICE); }
int cudaMallocFromPoolAsync(void **place, size_t size) { return allocate(place, size, DEVICE); }
int cudaHostAlloc(void **place, size_t size) { return allocate(place, size, PINNED); }
int cudaMallocHost(void **place, size_t size) { return allocate(place, size, PINNED); }
int cudaFree(void *place) { return release(place); }
int cudaFreeAsync(void *place) { return release(place); }
int cudaFreeHost(void *place) { return release(place); }
int cudaMemGetInfo(size_t *free_bytes, size_t *total) { *total = memory(), *free_bytes = *total - held[current]; return OK; }
int cudaMemPoolCreate(void **pool) { *pool = handle(); return OK; }
int cudaMemPoolGetAttribute(void *pool, int attribute, void *value) { *(size_t *)value = 0; return OK; }
int cudaPointerGetAttributes(char *attributes, const void *place) {
    memset(attributes, 0, 88);
    *(int *)attributes = kind_of(place);
    return OK;
}

static struct { unsigned char *host; size_t size; unsigned sum; void *stream; int upload; } queued[1 << 10];

static unsigned sum_of(const unsigned char *bytes, size_t size) {
    unsigned sum = 1;
    for (size_t i = 0; i < size; i++) sum = 31 * sum + bytes[i];
    return sum;
}
static void queue_copy(void *host, size_t size, void *stream, int upload) {
    if (!upload) memset(host, 0xff, size);
    pthread_mutex_lock(&lock);
    int i = 0;
    while (queued[i].host && ++i < 1 << 10) {}
    if (i == 1 << 10) abort();
    queued[i].host = host, queued[i].size = size, queued[i].stream = stream, queued[i].upload = upload;
    queued[i].sum = upload ? sum_of(host, size) : 0;
    pthread_mutex_unlock(&lock);
}
/* Finish the copies of a stream, or all. The default stream does not wait for those that sessions make. */
static void finish(void *stream, int all) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < 1 << 10; i++) {
        if (!queued[i].host || (!all && queued[i].stream != stream)) continue;
        if (!queued[i].upload) memset(queued[i].host, 0, queued[i].size);
        else if (sum_of(queued[i].host, queued[i].size) != queued[i].sum) standin_log("changed %zu", queued[i].size);
        queued[i].host = NULL;
    }
    pthread_mutex_unlock(&lock);
}
static int copy(void *to, const void *from, size_t size, int blocks_host, void *stream) {
    int source = kind_of(from), target = kind_of(to);
    if (blocks_host && refused("blocking copy")) return FORBIDDEN;
    int host = source == DEVICE ? target : source;
    standin_log("copy %cto%c %zu %s %s", source == DEVICE ? 'd' : 'h', target == DEVICE ? 'd' : 'h', size,
                blocks_host ? "blocking" : "queued", host == PINNED ? "pinned" : "pageable");
    if (!blocks_host && source == PINNED && target == DEVICE) queue_copy((void *)from, size, stream, 1);
    if (!blocks_host && source == DEVICE && target == PINNED) return queue_copy(to, size, stream, 0), OK;
    if (source == DEVICE && target != DEVICE) /* nothing is computed: results are zeros, and counts what was said */
        memset(to, 0, size);
    else
        memcpy(to, from, size);
    if (source == DEVICE && target == UNKNOWN_MEMORY && size == 4) *(int *)to = setting("CUDA_STANDIN_COUNT", 3);
    return OK;
}
int cudaMemcpy(void *to, const void *from, size_t size) { return copy(to, from, size, 1, NULL); }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    return copy(to, from, size, 0, stream);
}
int cudaMemcpy2DAsync(char *to, size_t to_pitch, const char *from, size_t from_pitch, size_t width, size_t height) {
    standin_log("copy dtod %zu queued pageable", width * height);
    for (size_t row = 0; row < height; row++) memcpy(to + row * to_pitch, from + row * from_pitch, width);
    return OK;
}
int cudaMemcpyFromSymbol(void *to, const void *symbol, size_t size) { memset(to, 0, size); return OK; }
int cudaMemset(void *place, int value, size_t size) {
    if (refused("blocking fill")) return FORBIDDEN;
    memset(place, value, size);
    return OK;
}
int cudaMemsetAsync(void *place, int value, size_t size) { memset(place, value, size); return OK; }

/* --- Streams and waits --- */

int cudaDeviceSynchronize(void) {
    standin_log("wait device");
    finish(NULL, 1);
    return refused("wait") ? FORBIDDEN : OK;
}
int cudaStreamSynchronize(void *stream) {
    standin_log("wait stream");
    finish(stream, 0);
    return stream == recorded_stream && refused("wait") ? FORBIDDEN : OK;
}
int cudaEventSynchronize(void) {
    standin_log("wait event");
    finish(NULL, 1);
    return refused("wait") ? FORBIDDEN : OK;
}
int cudaStreamCreate(void **stream) { *stream = handle(); return OK; }
int cudaStreamCreateWithFlags(void **stream) {
    standin_log("create-stream %d", current);
    *stream = handle();
    return OK;
}
int cudaStreamDestroy(void *stream) { standin_log("destroy-stream"); return OK; }
int cudaEventCreate(void **event) { *event = handle(); return OK; }
int cudaEventCreateWithFlags(void **event) { *event = handle(); return OK; }
int cudaEventElapsedTime(float *milliseconds) { *milliseconds = 1; return OK; }
int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *data) { function(data); return OK; }

/* --- Kernels --- */

static struct Kernel { const void *stub; char name[160]; } *kernels;
static int kernel_count, sorted_count;
static __thread int last_error;
static __thread struct { Sizes grid, block; size_t shared; void *stream; } configuration;

void **__cudaRegisterFatBinary(void *code) { return handle(); }
void __cudaRegisterFunction(void **code, const char *stub, char *device_stub, const char *name) {
    if (kernel_count % 4096 == 0) kernels = realloc(kernels, (kernel_count + 4096) * sizeof *kernels);
    kernels[kernel_count].stub = stub;
    snprintf(kernels[kernel_count++].name, sizeof kernels->name, "%s", name);
}
static int by_stub(const void *first, const void *second) {
    const void *a = ((struct Kernel *)first)->stub, *b = ((struct Kernel *)second)->stub;
    return (a > b) - (a < b);
}
static int launch(const void *stub) {
    pthread_mutex_lock(&lock);
    if (sorted_count != kernel_count) qsort(kernels, sorted_count = kernel_count, sizeof *kernels, by_stub);
    struct Kernel wanted = {stub}, *found = bsearch(&wanted, kernels, kernel_count, sizeof wanted, by_stub);
    pthread_mutex_unlock(&lock);
    if (!has_code()) return last_error = NO_CODE;
    standin_log("launch %s", found ? found->name : "unknown");
    return OK;
}
int cudaPeekAtLastError(void) { return last_error; }
int cudaGetLastError(void) {
    int error = last_error;
    last_error = OK;
    return error;
}
unsigned __cudaPushCallConfiguration(Sizes grid, Sizes block, size_t shared, void *stream) {
    configuration.grid = grid, configuration.block = block, configuration.shared = shared, configuration.stream = stream;
    return OK;
}
int __cudaPopCallConfiguration(Sizes *grid, Sizes *block, size_t *shared, void **stream) {
    *grid = configuration.grid, *block = configuration.block;
    *shared = configuration.shared, *stream = configuration.stream;
    return OK;
}
int __cudaGetKernel(const void **kernel, const void *stub) { *kernel = stub; return OK; }
int __cudaLaunchKernel(const void *kernel) { return launch(kernel); }
int cudaLaunchKernel(const void *stub) { return launch(stub); }
int cudaLaunchCooperativeKernel(const void *stub) { return launch(stub); }
int cudaLaunchKernelExC(const void *configuration_, const void *stub) { return launch(stub); }
int cudaFuncGetAttributes(char *attributes) {
    memset(attributes, 0, 144);
    *(int *)(attributes + 24) = 1024, *(int *)(attributes + 28) = 32;
    *(int *)(attributes + 32) = *(int *)(attributes + 36) = 90;
    return has_code() ? OK : NO_CODE;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *count) { *count = 2; return OK; }
int cudaLibraryLoadData(void **library) { *library = handle(); return OK; }
int cudaLibraryGetKernel(void **kernel) { *kernel = handle(); return OK; }
static int driver_function(void) { return OK; }
int cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, long flags, int *found) {
    *function = driver_function;
    if (found) *found = 0;
    return OK;
}
