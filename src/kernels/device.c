/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/device.h"

#include "kernels/backend.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

// Every kind of device that there is; a NULL back-end is one that this build does not have.
static const struct {
    const char         *name;
    const gidd_backend *backend;
} backend_table[] = {
    {"cpu", &gidd_backend_cpu},
#ifdef GIDD_HAVE_EMU
    {"emu", &gidd_backend_emu},
#else
    {"emu", NULL},
#endif
#ifdef GIDD_HAVE_CUDA
    {"cuda", &gidd_backend_cuda},
#else
    {"cuda", NULL},
#endif
};

enum { BACKEND_COUNT = sizeof backend_table / sizeof *backend_table };

// "cuda:1" -> back-end "cuda", index 1.
static gidd_status find_backend(const char *name, const gidd_backend **backend_p, int *index_p)
{
    size_t length = strcspn(name, ":");
    long   index = 0;
    if (name[length] == ':') {
        char *end = NULL;
        index = strtol(name + length + 1, &end, 10);
        if (end == name + length + 1 || *end != '\0' || index < 0 || index > 1023) {
            return gidd_fail(GIDD_ERR_DEVICE, "no device \"%s\": a number must follow the colon",
                             name);
        }
    }
    for (int i = 0; i < BACKEND_COUNT; i++) {
        const char *known = backend_table[i].name;
        if (strlen(known) == length && strncmp(known, name, length) == 0) {
            if (backend_table[i].backend == NULL) {
                return gidd_fail(GIDD_ERR_UNSUPPORTED, "this build has no %s device", known);
            }
            *backend_p = backend_table[i].backend;
            *index_p = (int)index;
            return GIDD_OK;
        }
    }
    return gidd_fail(GIDD_ERR_DEVICE, "no device \"%s\": devices are cpu, emu, cuda and cuda:N",
                     name);
}

gidd_status gidd_device_count(const char *kind, int *count_p)
{
    const gidd_backend *backend = NULL;
    int                 index = 0;
    *count_p = 1;
    GIDD_TRY(find_backend(kind, &backend, &index));
    return backend->count != NULL ? backend->count(count_p) : GIDD_OK;
}

gidd_status gidd_device_open(const gidd_device_args *args, gidd_device **device_p)
{
    const gidd_backend *backend = NULL;
    int                 index = 0;
    GIDD_TRY(find_backend(args->name, &backend, &index));
    if (args->threads < 0 || (args->dtype != GIDD_F32 && args->dtype != GIDD_BF16)) {
        return gidd_fail(GIDD_ERR_ARG, "device %s: %d threads, element type %d", args->name,
                         args->threads, (int)args->dtype);
    }
    gidd_device *device = calloc(1, sizeof *device);
    if (device == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a device");
    }
    device->backend = backend;
    device->dtype = args->dtype;
    device->threads = args->threads > 0 ? args->threads : omp_get_max_threads();
    gidd_status status = backend->open(device, index);
    if (status != GIDD_OK) {
        free(device);
        return status;
    }
    *device_p = device;
    return GIDD_OK;
}

void gidd_device_close(gidd_device *device)
{
    if (device == NULL) {
        return;
    }
    gidd_device_free(device, device->workspace, device->workspace_bytes);
    device->backend->close(device);
    free(device);
}

// What a graph cannot hold.
static gidd_status refuse_recording(const gidd_device *device, const char *what)
{
    return device->recording == NULL ? GIDD_OK
                                     : gidd_fail(GIDD_ERR_ARG, "%s while work is recorded", what);
}

gidd_status gidd_device_alloc(gidd_device *device, size_t bytes, const char *what, void **memory_p)
{
    void *memory = NULL;
    GIDD_TRY(refuse_recording(device, "device memory is allocated"));
    device->backend->alloc(device, bytes > 0 ? bytes : 1, &memory);
    if (memory == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "%s: no %zu bytes of %s memory (%zu in use)", what, bytes,
                         device->backend->name, device->allocated_bytes);
    }
    device->allocated_bytes += bytes;
    device->allocation_count++;
    *memory_p = memory;
    return GIDD_OK;
}

void gidd_device_free(gidd_device *device, void *memory, size_t bytes)
{
    if (memory != NULL) {
        device->backend->free(device, memory);
        device->allocated_bytes -= bytes;
    }
}

gidd_status gidd_device_host_alloc(gidd_device *device, size_t bytes, const char *what,
                                   void **memory_p)
{
    void *memory = NULL;
    void (*alloc)(gidd_device *, size_t, void **) = device->backend->host_alloc;
    (alloc != NULL ? alloc : gidd_host_alloc)(device, bytes > 0 ? bytes : 1, &memory);
    if (memory == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "%s: no %zu bytes of host memory for %s", what, bytes,
                         device->backend->name);
    }
    *memory_p = memory;
    return GIDD_OK;
}

void gidd_device_host_free(gidd_device *device, void *memory)
{
    void (*release)(gidd_device *, void *) = device->backend->host_free;
    if (memory != NULL) {
        (release != NULL ? release : gidd_host_free)(device, memory);
    }
}

gidd_status gidd_device_copy_in(gidd_device *device, void *target, const void *host, size_t bytes)
{
    GIDD_TRY(refuse_recording(device, "host memory is copied"));
    device->issued[GIDD_STREAM_MAIN]++;
    return device->backend->copy_in(device, target, host, bytes);
}

gidd_status gidd_device_copy_out(gidd_device *device, void *host, const void *source, size_t bytes)
{
    GIDD_TRY(refuse_recording(device, "device memory is read"));
    device->issued[GIDD_STREAM_MAIN]++;
    device->stall_count++;
    return device->backend->copy_out(device, host, source, bytes);
}

// Devices without streams of their own record copies and fills here; the others' libraries see them.
static int is_recorded_here(const gidd_device *device)
{
    return device->recording != NULL && device->backend->streams == NULL;
}

gidd_status gidd_device_copy(gidd_device *device, void *target, const void *source, size_t bytes)
{
    if (is_recorded_here(device)) {
        return gidd_graph_record_copy(device, target, source, bytes);
    }
    device->issued[GIDD_STREAM_MAIN]++;
    return device->backend->copy(device, target, source, bytes);
}

gidd_status gidd_device_zero(gidd_device *device, void *target, size_t bytes)
{
    if (is_recorded_here(device)) {
        return gidd_graph_record_copy(device, target, NULL, bytes);
    }
    device->issued[GIDD_STREAM_MAIN]++;
    return device->backend->zero(device, target, bytes);
}

gidd_status gidd_device_synchronize(gidd_device *device)
{
    GIDD_TRY(refuse_recording(device, "the host waits"));
    device->stall_count++;
    return device->backend->synchronize(device);
}

gidd_status gidd_device_reserve(gidd_device *device, const gidd_device_limits *limits)
{
    size_t bytes = device->backend->workspace_bytes(device, limits);
    if (bytes <= device->workspace_bytes) {
        return GIDD_OK;
    }
    void *memory = NULL;
    GIDD_TRY(gidd_device_alloc(device, bytes, "workspace of the kernels", &memory));
    gidd_device_free(device, device->workspace, device->workspace_bytes);
    device->workspace = memory;
    device->workspace_bytes = bytes;
    return GIDD_OK;
}

int gidd_device_gemm_chooses(const gidd_device *device)
{
    return device->backend->gemm_adopt != NULL;
}

gidd_status gidd_device_gemm_tune(gidd_device *device)
{
    return device->backend->gemm_tune != NULL ? device->backend->gemm_tune(device) : GIDD_OK;
}

int64_t gidd_device_gemm_choices(const gidd_device *device, gidd_gemm_choice *choices, int64_t most)
{
    return device->backend->gemm_choices != NULL ? device->backend->gemm_choices(device, choices, most) : 0;
}

gidd_status gidd_device_gemm_adopt(gidd_device *device, const gidd_gemm_choice *choices, int64_t count)
{
    return device->backend->gemm_adopt != NULL ? device->backend->gemm_adopt(device, choices, count) : GIDD_OK;
}

void gidd_device_describe(const gidd_device *device, char *text, size_t size)
{
    device->backend->describe(device, text, size);
}

void gidd_host_alloc(gidd_device *device, size_t bytes, void **memory_p)
{
    (void)device;
    size_t rounded = (bytes + 255) / 256 * 256;
    *memory_p = rounded >= bytes ? aligned_alloc(256, rounded) : NULL;
}

void gidd_host_free(gidd_device *device, void *memory)
{
    (void)device;
    free(memory);
}

gidd_status gidd_host_copy(gidd_device *device, void *target, const void *source, size_t bytes)
{
    (void)device;
    if (bytes > 0) {
        memcpy(target, source, bytes);
    }
    return GIDD_OK;
}

gidd_status gidd_host_zero(gidd_device *device, void *target, size_t bytes)
{
    (void)device;
    if (bytes > 0) {
        memset(target, 0, bytes);
    }
    return GIDD_OK;
}

gidd_status gidd_host_synchronize(gidd_device *device)
{
    (void)device;
    return GIDD_OK;
}
