/* SPDX-License-Identifier: Apache-2.0
 *
 * Order between the work of a device, its copies and the host; and work recorded once, launched often.
 *
 * A device has three streams. Kernels, copies and fills go to MAIN (device.h), in the order in which they
 * are issued. Copies that should travel meanwhile go to COPY, NCCL's collectives to COMM. An event is a point in a stream's order:
 * the other stream, or the host, can wait for it.
 *
 *     host    copy_in(COPY, record 1)  ...launches of step 0...      ...launches of step 1...
 *     COPY        [record 1 ->]* event
 *     MAIN    [kernels of step 0 ----------------------------] wait [kernels of step 1 ------
 *
 * The devices cpu and emu do everything when it is issued, but emu is late where a GPU may be: a copy of
 * this header is done when somebody waits for an event behind it, and not before.
 *
 * A graph is a list of launches, copies and fills with all their arguments. On cuda it is CUDA's; elsewhere
 * the arguments are copied when it is made, and used again at each launch, so what a test shows of graphs
 * there (no argument holds what changes from step to step; nothing allocates, waits or reads the device)
 * is what a GPU needs.
 *
 * device->stall_count counts the host's waits with nothing issued behind what they waited for: the device
 * runs dry. Local, all of it.
 */
#ifndef GIDD_KERNELS_STREAM_H
#define GIDD_KERNELS_STREAM_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum gidd_stream { GIDD_STREAM_MAIN = 0, GIDD_STREAM_COPY, GIDD_STREAM_COMM } gidd_stream;

/* The stream itself as CUDA knows it (cudaStream_t), for the NCCL back-end; NULL elsewhere. */
void *gidd_stream_handle(const gidd_device *device, gidd_stream stream);

typedef struct gidd_event gidd_event; /* opaque; it may be recorded again and again */

gidd_status gidd_event_create(gidd_device *device, gidd_event **event_p);
void        gidd_event_destroy(gidd_device *device, gidd_event *event); /* NULL-safe */

/* An event that also keeps when it was passed; and the seconds from one such to a later one, both recorded and waited
 * for: the device's own clock on cuda, elsewhere the host's, which did the work between the two. For measurements. */
gidd_status gidd_event_create_timed(gidd_device *device, gidd_event **event_p);
gidd_status gidd_event_seconds(gidd_device *device, const gidd_event *from, const gidd_event *to, double *seconds_p);

/* The event is now the point behind all work issued to `stream` so far. */
gidd_status gidd_event_record(gidd_device *device, gidd_event *event, gidd_stream stream);

/* Work issued to `stream` from now on begins after the event; one that was never recorded is past. */
gidd_status gidd_stream_wait(gidd_device *device, gidd_stream stream, gidd_event *event);

/* The host waits. */
gidd_status gidd_event_wait(gidd_device *device, gidd_event *event);

/* Copies between host memory of gidd_device_host_alloc and the device. The host leaves the bytes alone, and
 * finds them, until and after it has waited for an event recorded behind the copy. */
gidd_status gidd_stream_copy_in(gidd_device *device, gidd_stream stream, void *target, const void *host, size_t bytes);
gidd_status gidd_stream_copy_out(gidd_device *device, gidd_stream stream, void *host, const void *source, size_t bytes);

typedef struct gidd_graph gidd_graph; /* opaque */

/* From begin to end, what is issued to MAIN is recorded, not done. In between, allocating, waiting, and copies
 * from or to other host memory than the pinned are GIDD_ERR_ARG. After a failure gidd_graph_abandon ends the
 * recording. */
gidd_status gidd_graph_begin(gidd_device *device);
gidd_status gidd_graph_end(gidd_device *device, gidd_graph **graph_p);
void        gidd_graph_abandon(gidd_device *device);

/* Issues the recorded work to MAIN. */
gidd_status gidd_graph_launch(gidd_device *device, gidd_graph *graph);

/* Launches, copies and fills of a graph; -1 where CUDA holds them. */
int64_t gidd_graph_size(const gidd_graph *graph);
void    gidd_graph_destroy(gidd_device *device, gidd_graph *graph); /* NULL-safe */

#ifdef __cplusplus
}
#endif
#endif
