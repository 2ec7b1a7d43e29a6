/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams, events and graphs of the cuda device.
 */
#include "kernels/backend.h"
#include "kernels/device_cuda.h"

static cudaStream_t stream_of(const gidd_device *device, gidd_stream stream)
{
    const gidd_cuda *cuda = gidd_cuda_of(device);
    return stream == GIDD_STREAM_MAIN ? cuda->stream : stream == GIDD_STREAM_COPY ? cuda->copy_stream : cuda->comm_stream;
}

static void *handle_cuda(const gidd_device *device, gidd_stream stream)
{
    return stream_of(device, stream);
}

static gidd_status copy_in_cuda(gidd_device *device, gidd_stream stream, void *target, const void *host, size_t bytes)
{
    GIDD_CUDA_TRY(cudaMemcpyAsync(target, host, bytes, cudaMemcpyHostToDevice, stream_of(device, stream)));
    return GIDD_OK;
}

static gidd_status copy_out_cuda(gidd_device *device, gidd_stream stream, void *host, const void *source, size_t bytes)
{
    GIDD_CUDA_TRY(cudaMemcpyAsync(host, source, bytes, cudaMemcpyDeviceToHost, stream_of(device, stream)));
    return GIDD_OK;
}

// Waiting gives the processor up: the host has a loader, a writer and a journal to run.
static gidd_status create_event(gidd_device *device, unsigned int flags, void **event_p)
{
    cudaEvent_t event = NULL;
    GIDD_CUDA_TRY(cudaSetDevice(gidd_cuda_of(device)->index));
    GIDD_CUDA_TRY(cudaEventCreateWithFlags(&event, flags | cudaEventBlockingSync));
    *event_p = event;
    return GIDD_OK;
}

static gidd_status event_create_cuda(gidd_device *device, void **event_p)
{
    return create_event(device, cudaEventDisableTiming, event_p);
}

static gidd_status event_create_timed_cuda(gidd_device *device, void **event_p)
{
    return create_event(device, cudaEventDefault, event_p);
}

static gidd_status event_seconds_cuda(const void *from, const void *to, double *seconds_p)
{
    cudaEvent_t start = (cudaEvent_t)(uintptr_t)from, end = (cudaEvent_t)(uintptr_t)to;
    float ms = 0.0f;
    GIDD_CUDA_TRY(cudaEventElapsedTime(&ms, start, end));
    *seconds_p = (double)ms * 1e-3;
    return GIDD_OK;
}

static void event_destroy_cuda(gidd_device *device, void *event)
{
    (void)device;
    (void)cudaEventDestroy(event);
}

static gidd_status event_record_cuda(gidd_device *device, void *event, gidd_stream stream)
{
    GIDD_CUDA_TRY(cudaEventRecord(event, stream_of(device, stream)));
    return GIDD_OK;
}

static gidd_status event_wait_cuda(gidd_device *device, void *event)
{
    (void)device;
    GIDD_CUDA_TRY(cudaEventSynchronize(event));
    return GIDD_OK;
}

static gidd_status stream_wait_cuda(gidd_device *device, gidd_stream stream, void *event)
{
    GIDD_CUDA_TRY(cudaStreamWaitEvent(stream_of(device, stream), event, 0));
    return GIDD_OK;
}

// Other threads of the process (prefetch, checkpoint writer) go on as they like meanwhile.
static gidd_status capture_begin_cuda(gidd_device *device)
{
    GIDD_CUDA_TRY(cudaSetDevice(gidd_cuda_of(device)->index));
    GIDD_CUDA_TRY(cudaStreamBeginCapture(gidd_cuda_of(device)->stream, cudaStreamCaptureModeThreadLocal));
    return GIDD_OK;
}

static gidd_status capture_end_cuda(gidd_device *device, void **graph_p)
{
    cudaGraph_t     graph = NULL;
    cudaGraphExec_t instance = NULL;
    GIDD_CUDA_TRY(cudaStreamEndCapture(gidd_cuda_of(device)->stream, &graph));
    cudaError_t error = cudaGraphInstantiate(&instance, graph, 0);
    (void)cudaGraphDestroy(graph);
    GIDD_TRY(gidd_cuda_check(error, "cudaGraphInstantiate"));
    // What the first launch would do, done now; a failure here will be told by the launch.
    if (cudaGraphUpload(instance, gidd_cuda_of(device)->stream) != cudaSuccess) {
        (void)cudaGetLastError();
    }
    *graph_p = instance;
    return GIDD_OK;
}

static void capture_abandon_cuda(gidd_device *device)
{
    cudaGraph_t graph = NULL;
    if (cudaStreamEndCapture(gidd_cuda_of(device)->stream, &graph) == cudaSuccess && graph != NULL) {
        (void)cudaGraphDestroy(graph);
    }
    (void)cudaGetLastError();
}

static gidd_status launch_cuda(gidd_device *device, void *graph)
{
    GIDD_CUDA_TRY(cudaGraphLaunch(graph, gidd_cuda_of(device)->stream));
    return GIDD_OK;
}

static void destroy_cuda(gidd_device *device, void *graph)
{
    (void)device;
    (void)cudaGraphExecDestroy(graph);
}

const gidd_backend_streams gidd_streams_cuda = {
    .handle = handle_cuda,
    .copy_in = copy_in_cuda,
    .copy_out = copy_out_cuda,
    .event_create = event_create_cuda,
    .event_create_timed = event_create_timed_cuda,
    .event_seconds = event_seconds_cuda,
    .event_destroy = event_destroy_cuda,
    .event_record = event_record_cuda,
    .event_wait = event_wait_cuda,
    .stream_wait = stream_wait_cuda,
    .capture_begin = capture_begin_cuda,
    .capture_end = capture_end_cuda,
    .capture_abandon = capture_abandon_cuda,
    .launch = launch_cuda,
    .destroy = destroy_cuda,
};
