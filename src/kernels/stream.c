/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams, events and graphs of the devices whose memory is the host's, and what all devices share. A
 * back-end with an order of its own (cuda) fills backend->streams.
 */
#include "kernels/stream.h"

#include "base/clock.h"
#include "kernels/backend.h"
#include "kernels/kernels.h"

#include <stdlib.h>
#include <string.h>

struct gidd_event {
    int         is_recorded;
    gidd_stream stream;
    int64_t     position; // in the order of the stream's work
    int64_t     time_ns;  // when it was recorded, on the host's clock
    void       *vendor;   // the back-end's event
};

enum { MOST_LATE = 64, SNAPSHOT_BYTES = 256 };

// A copy that emu has not done yet. The oldest first.
typedef struct late_copy {
    gidd_stream stream;
    int64_t     position;
    void       *target;
    const void *source; // NULL: `snapshot`
    size_t      bytes;
    unsigned char snapshot[SNAPSHOT_BYTES]; // what MAIN's memory held when the copy's turn came
} late_copy;

struct gidd_late_copies {
    late_copy copies[MOST_LATE];
    int       count;
};

// ---- recording -------------------------------------------------------------------------------

enum { NODE_COPY = -1, NODE_ZERO = -2 }; // other nodes: the number of a slot

typedef struct graph_node {
    int    kind;
    size_t at; // its arguments in graph->arguments
} graph_node;

typedef struct copy_arguments {
    void       *target;
    const void *source; // NULL for a fill with zeros
    size_t      bytes;
} copy_arguments;

struct gidd_graph {
    graph_node    *nodes;
    int64_t        count, capacity;
    unsigned char *arguments;
    size_t         used, reserved;
    void          *vendor; // the back-end's graph; no nodes then
};

enum slot_number {
#define SLOT_NUMBER(slot, arguments) SLOT_##slot,
    GIDD_KERNEL_SLOTS(SLOT_NUMBER)
#undef SLOT_NUMBER
};

static gidd_status append(gidd_graph *graph, int kind, const void *arguments, size_t bytes)
{
    size_t at = (graph->used + 15) / 16 * 16;
    if (graph->count == graph->capacity) {
        int64_t     capacity = graph->capacity * 2 + 64;
        graph_node *nodes = realloc(graph->nodes, (size_t)capacity * sizeof *nodes);
        if (nodes == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for a graph of %lld nodes", (long long)capacity);
        }
        graph->nodes = nodes;
        graph->capacity = capacity;
    }
    if (at + bytes > graph->reserved) {
        size_t         reserved = (at + bytes) * 2;
        unsigned char *memory = realloc(graph->arguments, reserved);
        if (memory == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for %zu bytes of a graph's arguments", reserved);
        }
        graph->arguments = memory;
        graph->reserved = reserved;
    }
    memcpy(graph->arguments + at, arguments, bytes);
    graph->nodes[graph->count++] = (graph_node){.kind = kind, .at = at};
    graph->used = at + bytes;
    return GIDD_OK;
}

#define RECORD_SLOT(slot, arguments)                                                               \
    static gidd_status record_##slot(gidd_device *device, const gidd_##arguments##_args *args)     \
    {                                                                                              \
        return append(device->recording, SLOT_##slot, args, sizeof *args);                         \
    }
GIDD_KERNEL_SLOTS(RECORD_SLOT)
#undef RECORD_SLOT

#define RECORDING_SLOT(slot, arguments) .slot = record_##slot,
static const gidd_kernels recording_kernels = {.device = "recording", GIDD_KERNEL_SLOTS(RECORDING_SLOT)};
#undef RECORDING_SLOT

static gidd_status replay(gidd_device *device, const gidd_graph *graph, const graph_node *node)
{
    const void           *arguments = graph->arguments + node->at;
    const copy_arguments *copy = arguments;
    switch (node->kind) {
    case NODE_COPY:
        return gidd_device_copy(device, copy->target, copy->source, copy->bytes);
    case NODE_ZERO:
        return gidd_device_zero(device, copy->target, copy->bytes);
#define REPLAY_SLOT(slot, arguments_type)                                                          \
    case SLOT_##slot:                                                                              \
        return device->kernels->slot(device, arguments);
        GIDD_KERNEL_SLOTS(REPLAY_SLOT)
#undef REPLAY_SLOT
    default:
        return gidd_fail(GIDD_ERR_ARG, "a graph's node of kind %d", node->kind);
    }
}

gidd_status gidd_graph_record_copy(gidd_device *device, void *target, const void *source, size_t bytes)
{
    copy_arguments arguments = {target, source, bytes};
    return append(device->recording, source != NULL ? NODE_COPY : NODE_ZERO, &arguments, sizeof arguments);
}

gidd_status gidd_graph_begin(gidd_device *device)
{
    GIDD_ASSERT(device->recording == NULL);
    gidd_graph *graph = calloc(1, sizeof *graph);
    if (graph == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a graph");
    }
    if (device->backend->streams != NULL) {
        gidd_status status = device->backend->streams->capture_begin(device);
        if (status != GIDD_OK) {
            free(graph);
            return status;
        }
    } else {
        device->plain_kernels = device->kernels;
        device->kernels = &recording_kernels;
    }
    device->recording = graph;
    return GIDD_OK;
}

static gidd_graph *stop_recording(gidd_device *device)
{
    gidd_graph *graph = device->recording;
    device->recording = NULL;
    if (device->backend->streams == NULL) {
        device->kernels = device->plain_kernels;
    }
    return graph;
}

gidd_status gidd_graph_end(gidd_device *device, gidd_graph **graph_p)
{
    gidd_graph *graph = stop_recording(device);
    gidd_status status = GIDD_OK;
    if (device->backend->streams != NULL) {
        status = device->backend->streams->capture_end(device, &graph->vendor);
    }
    if (status != GIDD_OK) {
        gidd_graph_destroy(device, graph);
        return status;
    }
    *graph_p = graph;
    return GIDD_OK;
}

void gidd_graph_abandon(gidd_device *device)
{
    if (device->recording != NULL) {
        gidd_graph *graph = stop_recording(device);
        if (device->backend->streams != NULL) {
            device->backend->streams->capture_abandon(device);
        }
        gidd_graph_destroy(device, graph);
    }
}

gidd_status gidd_graph_launch(gidd_device *device, gidd_graph *graph)
{
    device->issued[GIDD_STREAM_MAIN]++;
    if (graph->vendor != NULL) {
        return device->backend->streams->launch(device, graph->vendor);
    }
    for (int64_t i = 0; i < graph->count; i++) {
        GIDD_TRY(replay(device, graph, &graph->nodes[i]));
    }
    return GIDD_OK;
}

int64_t gidd_graph_size(const gidd_graph *graph)
{
    return graph->vendor != NULL ? -1 : graph->count;
}

void gidd_graph_destroy(gidd_device *device, gidd_graph *graph)
{
    if (graph == NULL) {
        return;
    }
    if (graph->vendor != NULL) {
        device->backend->streams->destroy(device, graph->vendor);
    }
    free(graph->nodes);
    free(graph->arguments);
    free(graph);
}

// ---- events ----------------------------------------------------------------------------------

void *gidd_stream_handle(const gidd_device *device, gidd_stream stream)
{
    return device->backend->streams != NULL ? device->backend->streams->handle(device, stream) : NULL;
}

typedef gidd_status (*create_vendor_event)(gidd_device *device, void **event_p);

// `create`: NULL where the back-end has no events.
static gidd_status create_event(gidd_device *device, create_vendor_event create, gidd_event **event_p)
{
    gidd_event *event = calloc(1, sizeof *event);
    if (event == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for an event");
    }
    if (create != NULL) {
        gidd_status status = create(device, &event->vendor);
        if (status != GIDD_OK) {
            free(event);
            return status;
        }
    }
    *event_p = event;
    return GIDD_OK;
}

gidd_status gidd_event_create(gidd_device *device, gidd_event **event_p)
{
    const gidd_backend_streams *streams = device->backend->streams;
    return create_event(device, streams != NULL ? streams->event_create : NULL, event_p);
}

gidd_status gidd_event_create_timed(gidd_device *device, gidd_event **event_p)
{
    const gidd_backend_streams *streams = device->backend->streams;
    return create_event(device, streams != NULL ? streams->event_create_timed : NULL, event_p);
}

gidd_status gidd_event_seconds(gidd_device *device, const gidd_event *from, const gidd_event *to, double *seconds_p)
{
    if (!from->is_recorded || !to->is_recorded) {
        return gidd_fail(GIDD_ERR_ARG, "the time between events of which one was not recorded");
    }
    if (from->vendor != NULL) {
        return device->backend->streams->event_seconds(from->vendor, to->vendor, seconds_p);
    }
    *seconds_p = (double)(to->time_ns - from->time_ns) * 1e-9;
    return GIDD_OK;
}

void gidd_event_destroy(gidd_device *device, gidd_event *event)
{
    if (event != NULL) {
        if (event->vendor != NULL) {
            device->backend->streams->event_destroy(device, event->vendor);
        }
        free(event);
    }
}

gidd_status gidd_event_record(gidd_device *device, gidd_event *event, gidd_stream stream)
{
    event->is_recorded = 1;
    event->stream = stream;
    event->position = device->issued[stream];
    event->time_ns = gidd_clock_ns();
    return event->vendor != NULL ? device->backend->streams->event_record(device, event->vendor, stream) : GIDD_OK;
}

// Does the copies of `stream` up to `position`.
static void do_late_copies(gidd_device *device, gidd_stream stream, int64_t position)
{
    struct gidd_late_copies *late = device->late;
    int left = 0;
    for (int i = 0; late != NULL && i < late->count; i++) {
        const late_copy *copy = &late->copies[i];
        if (copy->stream == stream && copy->position <= position) {
            memcpy(copy->target, copy->source != NULL ? copy->source : copy->snapshot, copy->bytes);
        } else {
            late->copies[left++] = *copy;
        }
    }
    if (late != NULL) {
        late->count = left;
    }
}

void gidd_late_copies_finish(gidd_device *device)
{
    do_late_copies(device, GIDD_STREAM_MAIN, INT64_MAX);
    do_late_copies(device, GIDD_STREAM_COPY, INT64_MAX);
}

gidd_status gidd_stream_wait(gidd_device *device, gidd_stream stream, gidd_event *event)
{
    if (!event->is_recorded) {
        return GIDD_OK;
    }
    if (event->vendor != NULL) {
        return device->backend->streams->stream_wait(device, stream, event->vendor);
    }
    do_late_copies(device, event->stream, event->position);
    return GIDD_OK;
}

gidd_status gidd_event_wait(gidd_device *device, gidd_event *event)
{
    if (!event->is_recorded) {
        return GIDD_OK;
    }
    device->stall_count += event->stream == GIDD_STREAM_MAIN && event->position == device->issued[GIDD_STREAM_MAIN];
    if (event->vendor != NULL) {
        return device->backend->streams->event_wait(device, event->vendor);
    }
    do_late_copies(device, event->stream, event->position);
    return GIDD_OK;
}

// ---- copies ----------------------------------------------------------------------------------

static gidd_status add_late(gidd_device *device, const late_copy *copy)
{
    struct gidd_late_copies *late = device->late;
    if (late->count == MOST_LATE) {
        return gidd_fail(GIDD_ERR_ARG, "more than %d copies for which nobody waits", MOST_LATE);
    }
    late->copies[late->count++] = *copy;
    return GIDD_OK;
}

// What MAIN's next kernel reads is there when it is issued. COPY reads the host's bytes as late as it may.
static gidd_status copy_in_host(gidd_device *device, gidd_stream stream, void *target, const void *host, size_t bytes)
{
    if (device->late == NULL || bytes == 0 || stream == GIDD_STREAM_MAIN) {
        return gidd_host_copy(device, target, host, bytes);
    }
    return add_late(device, &(late_copy){.stream = stream,
                                         .position = device->issued[stream],
                                         .target = target,
                                         .source = host,
                                         .bytes = bytes});
}

// The host gets MAIN's bytes as they are now, but late.
static gidd_status copy_out_host(gidd_device *device, gidd_stream stream, void *host, const void *source, size_t bytes)
{
    if (device->late == NULL || bytes == 0 || bytes > SNAPSHOT_BYTES) {
        return gidd_host_copy(device, host, source, bytes);
    }
    late_copy copy = {.stream = stream, .position = device->issued[stream], .target = host, .bytes = bytes};
    memcpy(copy.snapshot, source, bytes);
    return add_late(device, &copy);
}

gidd_status gidd_stream_copy_in(gidd_device *device, gidd_stream stream, void *target, const void *host, size_t bytes)
{
    device->issued[stream]++;
    return device->backend->streams != NULL
               ? device->backend->streams->copy_in(device, stream, target, host, bytes)
               : copy_in_host(device, stream, target, host, bytes);
}

gidd_status gidd_stream_copy_out(gidd_device *device, gidd_stream stream, void *host, const void *source, size_t bytes)
{
    device->issued[stream]++;
    return device->backend->streams != NULL
               ? device->backend->streams->copy_out(device, stream, host, source, bytes)
               : copy_out_host(device, stream, host, source, bytes);
}

gidd_status gidd_late_copies_create(gidd_device *device)
{
    device->late = calloc(1, sizeof *device->late);
    return device->late != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory for late copies");
}

void gidd_late_copies_destroy(gidd_device *device)
{
    free(device->late);
    device->late = NULL;
}
