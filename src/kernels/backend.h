/* SPDX-License-Identifier: Apache-2.0
 *
 * What a kind of device must provide besides its kernels. device.c holds the table of the back-ends
 * of this build; to add one, write a gidd_backend and put its name into that table.
 */
#ifndef GIDD_KERNELS_BACKEND_H
#define GIDD_KERNELS_BACKEND_H

#include "kernels/stream.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Streams, events and graphs of a device that has an order of its own (stream.h says what they promise). Streams
 * and graphs are passed as stream.h numbers and this back-end makes them. */
typedef struct gidd_backend_streams {
    void *(*handle)(const gidd_device *device, gidd_stream stream);
    gidd_status (*copy_in)(gidd_device *device, gidd_stream stream, void *target, const void *host, size_t bytes);
    gidd_status (*copy_out)(gidd_device *device, gidd_stream stream, void *host, const void *source, size_t bytes);
    gidd_status (*event_create)(gidd_device *device, void **event_p);
    gidd_status (*event_create_timed)(gidd_device *device, void **event_p);
    gidd_status (*event_seconds)(const void *from, const void *to, double *seconds_p); /* timed ones */
    void (*event_destroy)(gidd_device *device, void *event);
    gidd_status (*event_record)(gidd_device *device, void *event, gidd_stream stream);
    gidd_status (*event_wait)(gidd_device *device, void *event);
    gidd_status (*stream_wait)(gidd_device *device, gidd_stream stream, void *event);
    gidd_status (*capture_begin)(gidd_device *device);
    gidd_status (*capture_end)(gidd_device *device, void **graph_p);
    void (*capture_abandon)(gidd_device *device);
    gidd_status (*launch)(gidd_device *device, void *graph);
    void (*destroy)(gidd_device *device, void *graph);
} gidd_backend_streams;

typedef struct gidd_backend {
    const char *name; /* what stands before ":" in a device's name */

    /* How many there are, or why none; NULL: one. */
    gidd_status (*count)(int *count_p);

    /* Fills device->kernels and device->impl; backend, dtype and threads are set already. `index`
     * is the number after ":" (0 without). On failure nothing is left behind. close() undoes it. */
    gidd_status (*open)(gidd_device *device, int index);
    void (*close)(gidd_device *device);

    /* 256-byte aligned memory; *memory_p = NULL where there is none. Counted by the caller. */
    void (*alloc)(gidd_device *device, size_t bytes, void **memory_p);
    void (*free)(gidd_device *device, void *memory);

    /* Host memory from which copies are fast (pinned); NULL where any memory serves. */
    void (*host_alloc)(gidd_device *device, size_t bytes, void **memory_p);
    void (*host_free)(gidd_device *device, void *memory);

    gidd_status (*copy_in)(gidd_device *device, void *target, const void *host, size_t bytes);
    gidd_status (*copy_out)(gidd_device *device, void *host, const void *source, size_t bytes);
    gidd_status (*copy)(gidd_device *device, void *target, const void *source, size_t bytes);
    gidd_status (*zero)(gidd_device *device, void *target, size_t bytes);
    gidd_status (*synchronize)(gidd_device *device);

    const gidd_backend_streams *streams; /* NULL: stream.c's, in the host's order */

    /* Bytes of workspace that the kernels need within `limits`. */
    size_t (*workspace_bytes)(const gidd_device *device, const gidd_device_limits *limits);

    /* Algorithms of matrix products (device.h); NULL where there is nothing to choose. */
    gidd_status (*gemm_tune)(gidd_device *device);
    int64_t (*gemm_choices)(const gidd_device *device, gidd_gemm_choice *choices, int64_t most);
    gidd_status (*gemm_adopt)(gidd_device *device, const gidd_gemm_choice *choices, int64_t count);

    void (*describe)(const gidd_device *device, char *text, size_t size);
} gidd_backend;

extern const gidd_backend gidd_backend_cpu;
extern const gidd_backend gidd_backend_emu;  /* builds with GIDD_HAVE_EMU  */
extern const gidd_backend gidd_backend_cuda; /* builds with GIDD_HAVE_CUDA */

/* Memory functions of every device whose memory is the host's (cpu, emu). Local. */
void        gidd_host_alloc(gidd_device *device, size_t bytes, void **memory_p);
void        gidd_host_free(gidd_device *device, void *memory);
gidd_status gidd_host_copy(gidd_device *device, void *target, const void *source, size_t bytes);
gidd_status gidd_host_zero(gidd_device *device, void *target, size_t bytes);
gidd_status gidd_host_synchronize(gidd_device *device);

/* stream.c: a copy or (source NULL) a fill while recording on such a device; emu's copies that come late. Local. */
gidd_status gidd_graph_record_copy(gidd_device *device, void *target, const void *source, size_t bytes);
gidd_status gidd_late_copies_create(gidd_device *device);
void        gidd_late_copies_finish(gidd_device *device);
void        gidd_late_copies_destroy(gidd_device *device);

#ifdef __cplusplus
}
#endif
#endif
