/* SPDX-License-Identifier: Apache-2.0
 *
 * The cuda device: one GPU, one stream of its own. Host calls may come from any thread, one at a
 * time.
 */
#include "kernels/backend.h"
#include "kernels/device_cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GIDD_CUDA_SLOT(slot, arguments) .slot = gidd_##slot##_cuda,
static const gidd_kernels kernels_cuda = {.device = "cuda", GIDD_KERNEL_SLOTS(GIDD_CUDA_SLOT)};
#undef GIDD_CUDA_SLOT

const gidd_launch_target *gidd_launch_target_cuda(const gidd_device *device)
{
    return &gidd_cuda_of(device)->target;
}

gidd_status gidd_cuda_check(cudaError_t error, const char *call)
{
    if (error == cudaSuccess) {
        return GIDD_OK;
    }
    (void)cudaGetLastError(); // what is not fatal must not be found by the next launch
    return gidd_fail(GIDD_ERR_DEVICE, "%s: %s (%s)", call, cudaGetErrorString(error),
                     cudaGetErrorName(error));
}

// ---- opening ---------------------------------------------------------------------------------

static gidd_status count_cuda(int *count_p)
{
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaErrorInsufficientDriver) {
        int driver = 0, runtime = 0;
        (void)cudaDriverGetVersion(&driver);
        (void)cudaRuntimeGetVersion(&runtime);
        (void)cudaGetLastError();
        if (driver == 0) {
            return gidd_fail(GIDD_ERR_DEVICE, "no device \"cuda\": no NVIDIA driver is loaded");
        }
        return gidd_fail(GIDD_ERR_DEVICE,
                         "no device \"cuda\": the driver serves CUDA %d.%d, this build needs %d.%d",
                         driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    }
    if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
        (void)cudaGetLastError();
        return gidd_fail(GIDD_ERR_DEVICE,
                         "no device \"cuda\": the driver sees no GPU (CUDA_VISIBLE_DEVICES?)");
    }
    GIDD_TRY(gidd_cuda_check(error, "cudaGetDeviceCount"));
    *count_p = count;
    return GIDD_OK;
}

static gidd_status check_index(int index)
{
    int count = 0;
    GIDD_TRY(count_cuda(&count));
    if (index >= count) {
        return gidd_fail(GIDD_ERR_DEVICE, "no device \"cuda:%d\": there %s %d, counted from 0",
                         index, count == 1 ? "is" : "are", count);
    }
    return GIDD_OK;
}

static gidd_status check_architecture(const gidd_cuda *cuda)
{
    cudaError_t error = gidd_cuda_probe();
    if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction ||
        error == cudaErrorUnsupportedPtxVersion) {
        (void)cudaGetLastError();
        return gidd_fail(GIDD_ERR_UNSUPPORTED,
                         "cuda:%d is a %s (sm_%d%d); this build has code for %s", cuda->index,
                         cuda->properties.name, cuda->properties.major, cuda->properties.minor,
                         GIDD_CUDA_ARCHITECTURES);
    }
    return gidd_cuda_check(error, "cudaFuncGetAttributes");
}

static gidd_status open_parts(gidd_cuda *cuda)
{
    GIDD_CUDA_TRY(cudaSetDevice(cuda->index));
    GIDD_CUDA_TRY(cudaGetDeviceProperties(&cuda->properties, cuda->index));
    GIDD_TRY(check_architecture(cuda));
    GIDD_CUDA_TRY(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking));
    GIDD_CUDA_TRY(cudaStreamCreateWithFlags(&cuda->copy_stream, cudaStreamNonBlocking));
    // its few blocks should not wait for the end of a long kernel's thousands
    int lowest = 0, highest = 0;
    GIDD_CUDA_TRY(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
    GIDD_CUDA_TRY(cudaStreamCreateWithPriority(&cuda->comm_stream, cudaStreamNonBlocking, highest));
    cuda->target.stream = cuda->stream;
    cuda->target.processors = cuda->properties.multiProcessorCount;
    cuda->target.shared_bytes = cuda->properties.sharedMemPerBlockOptin;
    GIDD_TRY(gidd_blas_init_cuda(&cuda->blas));
    return gidd_gemm_cache_create_cuda(&cuda->blas, &cuda->gemms);
}

static void close_parts(gidd_cuda *cuda)
{
    gidd_gemm_cache_destroy_cuda(cuda->gemms);
    gidd_blas_release_cuda(&cuda->blas);
    cudaStream_t streams[] = {cuda->comm_stream, cuda->copy_stream, cuda->stream};
    for (int i = 0; i < 3; i++) {
        if (streams[i] != NULL) {
            (void)cudaStreamDestroy(streams[i]);
        }
    }
    free(cuda);
}

static gidd_status open_cuda(gidd_device *device, int index)
{
    GIDD_TRY(check_index(index));
    gidd_cuda *cuda = calloc(1, sizeof *cuda);
    if (cuda == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the cuda device");
    }
    cuda->index = index;
    gidd_status status = open_parts(cuda);
    if (status != GIDD_OK) {
        close_parts(cuda);
        return status;
    }
    device->kernels = &kernels_cuda;
    device->impl = cuda;
    return GIDD_OK;
}

static void close_cuda(gidd_device *device)
{
    close_parts(gidd_cuda_of(device));
}

// ---- memory ----------------------------------------------------------------------------------

static void alloc_cuda(gidd_device *device, size_t bytes, void **memory_p)
{
    *memory_p = NULL;
    if (cudaSetDevice(gidd_cuda_of(device)->index) != cudaSuccess ||
        cudaMalloc(memory_p, bytes) != cudaSuccess) { // 256-byte aligned, says CUDA
        (void)cudaGetLastError();
        *memory_p = NULL;
    }
}

static void free_cuda(gidd_device *device, void *memory)
{
    (void)device;
    (void)cudaFree(memory);
}

static void host_alloc_cuda(gidd_device *device, size_t bytes, void **memory_p)
{
    *memory_p = NULL;
    if (cudaSetDevice(gidd_cuda_of(device)->index) != cudaSuccess ||
        cudaHostAlloc(memory_p, bytes, cudaHostAllocDefault) != cudaSuccess) {
        (void)cudaGetLastError();
        *memory_p = NULL;
    }
}

static void host_free_cuda(gidd_device *device, void *memory)
{
    (void)device;
    (void)cudaFreeHost(memory);
}

static gidd_status enqueue_copy(gidd_device *device, void *target, const void *source, size_t bytes,
                                enum cudaMemcpyKind kind)
{
    const gidd_cuda *cuda = gidd_cuda_of(device);
    if (bytes == 0) {
        return GIDD_OK;
    }
    GIDD_CUDA_TRY(cudaSetDevice(cuda->index));
    GIDD_CUDA_TRY(cudaMemcpyAsync(target, source, bytes, kind, cuda->stream));
    return GIDD_OK;
}

static gidd_status synchronize_cuda(gidd_device *device)
{
    GIDD_CUDA_TRY(cudaStreamSynchronize(gidd_cuda_of(device)->copy_stream));
    GIDD_CUDA_TRY(cudaStreamSynchronize(gidd_cuda_of(device)->comm_stream));
    GIDD_CUDA_TRY(cudaStreamSynchronize(gidd_cuda_of(device)->stream));
    return GIDD_OK;
}

static gidd_status copy_in_cuda(gidd_device *device, void *target, const void *host, size_t bytes)
{
    return enqueue_copy(device, target, host, bytes, cudaMemcpyHostToDevice);
}

static gidd_status copy_out_cuda(gidd_device *device, void *host, const void *source, size_t bytes)
{
    GIDD_TRY(enqueue_copy(device, host, source, bytes, cudaMemcpyDeviceToHost));
    return synchronize_cuda(device);
}

static gidd_status copy_cuda(gidd_device *device, void *target, const void *source, size_t bytes)
{
    return enqueue_copy(device, target, source, bytes, cudaMemcpyDeviceToDevice);
}

static gidd_status zero_cuda(gidd_device *device, void *target, size_t bytes)
{
    if (bytes > 0) {
        GIDD_CUDA_TRY(cudaMemsetAsync(target, 0, bytes, gidd_cuda_of(device)->stream));
    }
    return GIDD_OK;
}

// ---- what it needs and is --------------------------------------------------------------------

static size_t workspace_cuda(const gidd_device *device, const gidd_device_limits *limits)
{
    (void)device;
    size_t largest = gidd_linear_workspace_cuda(limits);
#define GIDD_CUDA_WORKSPACE(operation)                                                             \
    {                                                                                              \
        size_t bytes = gidd_##operation##_workspace_cuda(limits);                                  \
        largest = bytes > largest ? bytes : largest;                                               \
    }
    GIDD_CUDA_WORKSPACES(GIDD_CUDA_WORKSPACE)
#undef GIDD_CUDA_WORKSPACE
    return largest;
}

static void describe_cuda(const gidd_device *device, char *text, size_t size)
{
    const gidd_cuda *cuda = gidd_cuda_of(device);
    int driver = 0, runtime = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    (void)snprintf(text, size,
                   "cuda:%d %s %s, sm_%d%d, %d SMs, driver CUDA %d.%d, runtime %d.%d, cublasLt %zu",
                   cuda->index, device->dtype == GIDD_BF16 ? "bf16" : "fp32", cuda->properties.name,
                   cuda->properties.major, cuda->properties.minor,
                   cuda->properties.multiProcessorCount, driver / 1000, driver % 1000 / 10,
                   runtime / 1000, runtime % 1000 / 10, cuda->blas.version());
}

const gidd_backend gidd_backend_cuda = {
    .name = "cuda",
    .count = count_cuda,
    .open = open_cuda,
    .close = close_cuda,
    .alloc = alloc_cuda,
    .free = free_cuda,
    .host_alloc = host_alloc_cuda,
    .host_free = host_free_cuda,
    .copy_in = copy_in_cuda,
    .copy_out = copy_out_cuda,
    .copy = copy_cuda,
    .zero = zero_cuda,
    .synchronize = synchronize_cuda,
    .streams = &gidd_streams_cuda,
    .workspace_bytes = workspace_cuda,
    .gemm_tune = gidd_gemm_tune_cuda,
    .gemm_choices = gidd_gemm_choices_cuda,
    .gemm_adopt = gidd_gemm_adopt_cuda,
    .describe = describe_cuda,
};
