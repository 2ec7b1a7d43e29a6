/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams, events and graphs. Where a copy may be late it is late on emu, so that what does not wait is seen.
 */
#include "base/clock.h"
#include "kernels/harness.h"
#include "kernels/stream.h"

#include <criterion/criterion.h>
#include <string.h>

enum { COUNT = 1000 };

static void *allocate(gidd_device *device, size_t bytes)
{
    void *memory = NULL;
    CHECK_OK(gidd_device_alloc(device, bytes, "test", &memory));
    return memory;
}

static float *pinned(gidd_device *device, float value)
{
    void *memory = NULL;
    CHECK_OK(gidd_device_host_alloc(device, COUNT * sizeof(float), "test", &memory));
    float *values = memory;
    for (int i = 0; i < COUNT; i++) {
        values[i] = value;
    }
    return values;
}

static void expect(gidd_device *device, const float *memory, float want)
{
    float values[COUNT];
    CHECK_OK(gidd_device_copy_out(device, values, memory, sizeof values));
    for (int i = 0; i < COUNT; i++) {
        cr_assert_eq(values[i], want, "element %d is %g, not %g", i, (double)values[i], (double)want);
    }
}

static int is_emu(const gidd_device *device)
{
    return strcmp(device->kernels->device, "emu") == 0;
}

Test(stream, a_copy_is_there_for_those_who_wait_for_it)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    gidd_event  *copied = NULL;
    float       *target = allocate(device, COUNT * sizeof *target), *host = pinned(device, 3.0f);
    CHECK_OK(gidd_event_create(device, &copied));
    CHECK_OK(gidd_device_zero(device, target, COUNT * sizeof *target));
    CHECK_OK(gidd_stream_copy_in(device, GIDD_STREAM_COPY, target, host, COUNT * sizeof *target));
    CHECK_OK(gidd_event_record(device, copied, GIDD_STREAM_COPY));
    if (is_emu(device)) { // nobody has waited
        expect(device, target, 0.0f);
    }
    CHECK_OK(gidd_stream_wait(device, GIDD_STREAM_MAIN, copied));
    expect(device, target, 3.0f);
    // the event is about what was issued before it, not what comes after
    float *later = pinned(device, 4.0f);
    CHECK_OK(gidd_stream_copy_in(device, GIDD_STREAM_COPY, target, later, COUNT * sizeof *target));
    CHECK_OK(gidd_event_wait(device, copied));
    if (is_emu(device)) {
        expect(device, target, 3.0f);
    }
    CHECK_OK(gidd_device_synchronize(device));
    expect(device, target, 4.0f);
    gidd_event_destroy(device, copied);
    gidd_device_host_free(device, later);
    gidd_device_host_free(device, host);
    gidd_device_free(device, target, COUNT * sizeof *target);
    gidd_device_close(device);
}

/* What is copied out is what the memory held when the copy's turn came. */
Test(stream, results_arrive_when_they_are_waited_for)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    gidd_event  *done = NULL;
    float       *source = allocate(device, COUNT * sizeof *source), *host = pinned(device, -1.0f), *ones = pinned(device, 1.0f);
    CHECK_OK(gidd_event_create(device, &done));
    CHECK_OK(gidd_device_copy_in(device, source, ones, COUNT * sizeof *source));
    CHECK_OK(gidd_stream_copy_out(device, GIDD_STREAM_MAIN, host, source, 8 * sizeof *host));
    CHECK_OK(gidd_event_record(device, done, GIDD_STREAM_MAIN));
    CHECK_OK(gidd_device_zero(device, source, COUNT * sizeof *source));
    cr_assert(!is_emu(device) || host[0] == -1.0f);
    CHECK_OK(gidd_event_wait(device, done));
    cr_assert(host[0] == 1.0f && host[7] == 1.0f && host[8] == -1.0f);
    gidd_event_destroy(device, done);
    gidd_device_host_free(device, ones);
    gidd_device_host_free(device, host);
    gidd_device_free(device, source, COUNT * sizeof *source);
    gidd_device_close(device);
}

/* Waiting for all that was issued is a stall; waiting with work behind is not. */
Test(stream, stalls_are_counted)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    gidd_event  *event = NULL;
    float       *memory = allocate(device, COUNT * sizeof *memory), value = 0.0f;
    CHECK_OK(gidd_event_create(device, &event));
    int64_t stalls = device->stall_count;
    CHECK_OK(gidd_event_wait(device, event)); // never recorded: past
    CHECK_OK(gidd_device_zero(device, memory, COUNT * sizeof *memory));
    CHECK_OK(gidd_event_record(device, event, GIDD_STREAM_MAIN));
    CHECK_OK(gidd_device_zero(device, memory, COUNT * sizeof *memory));
    CHECK_OK(gidd_event_wait(device, event));
    cr_assert_eq(device->stall_count, stalls);
    CHECK_OK(gidd_event_record(device, event, GIDD_STREAM_MAIN));
    CHECK_OK(gidd_event_wait(device, event));
    cr_assert_eq(device->stall_count, stalls + 1);
    CHECK_OK(gidd_device_copy_out(device, &value, memory, sizeof value));
    CHECK_OK(gidd_device_synchronize(device));
    cr_assert_eq(device->stall_count, stalls + 3);
    gidd_event_destroy(device, event);
    gidd_device_free(device, memory, COUNT * sizeof *memory);
    gidd_device_close(device);
}

static gidd_status half_of(gidd_device *device, float *values, gidd_update_state *state, float *m, float *v)
{
    // one AdamW step without gradient halves: lr * weight decay = 1/2
    return device->kernels->adamw(device, &(gidd_adamw_args){.theta = values,
                                                             .m = m,
                                                             .v = v,
                                                             .grads = m,
                                                             .state = state,
                                                             .count = COUNT});
}

/* Recorded work is not done until it is launched, then as often as it is; it holds arguments, not values. */
Test(stream, a_graph_does_what_was_recorded)
{
    gidd_device      *device = open_test_device(GIDD_F32, 1);
    gidd_graph       *graph = NULL;
    size_t            bytes = COUNT * sizeof(float);
    float            *a = allocate(device, bytes), *b = allocate(device, bytes), *m = allocate(device, bytes),
                     *v = allocate(device, bytes);
    gidd_update_state numbers = {.lr = 0.5f, .weight_decay = 1.0f, .bias1 = 1.0f, .bias2 = 1.0f, .epsilon = 1.0f};
    gidd_update_state *state = allocate(device, sizeof numbers);
    float            *eights = pinned(device, 8.0f);
    CHECK_OK(gidd_device_copy_in(device, state, &numbers, sizeof numbers));
    CHECK_OK(gidd_device_copy_in(device, a, eights, bytes));
    CHECK_OK(gidd_device_copy_in(device, b, eights, bytes));
    CHECK_OK(gidd_graph_begin(device));
    CHECK_OK(gidd_device_zero(device, m, bytes));
    CHECK_OK(gidd_device_zero(device, v, bytes));
    CHECK_OK(half_of(device, a, state, m, v));
    CHECK_OK(gidd_device_copy(device, b, a, bytes));
    CHECK_OK(gidd_graph_end(device, &graph));
    cr_assert(gidd_graph_size(graph) == 4 || gidd_graph_size(graph) == -1);
    expect(device, b, 8.0f);
    CHECK_OK(gidd_graph_launch(device, graph));
    CHECK_OK(gidd_graph_launch(device, graph));
    expect(device, b, 2.0f);
    numbers.weight_decay = 2.0f; // what changes from step to step is read, not recorded
    CHECK_OK(gidd_device_copy_in(device, state, &numbers, sizeof numbers));
    CHECK_OK(gidd_graph_launch(device, graph));
    expect(device, a, 0.0f);
    gidd_graph_destroy(device, graph);
    gidd_device_host_free(device, eights);
    void *owned[] = {a, b, m, v};
    for (int i = 0; i < 4; i++) {
        gidd_device_free(device, owned[i], bytes);
    }
    gidd_device_free(device, state, sizeof numbers);
    gidd_device_close(device);
}

Test(stream, what_a_graph_cannot_hold_is_refused)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    float       *memory = allocate(device, COUNT * sizeof *memory), value = 0.0f;
    void        *more = NULL;
    CHECK_OK(gidd_graph_begin(device));
    cr_assert_eq(gidd_device_alloc(device, 16, "test", &more), GIDD_ERR_ARG);
    cr_assert_eq(gidd_device_copy_out(device, &value, memory, sizeof value), GIDD_ERR_ARG);
    cr_assert_eq(gidd_device_copy_in(device, memory, &value, sizeof value), GIDD_ERR_ARG);
    cr_assert_eq(gidd_device_synchronize(device), GIDD_ERR_ARG);
    gidd_graph_abandon(device);
    CHECK_OK(gidd_device_zero(device, memory, COUNT * sizeof *memory)); // done, not recorded
    expect(device, memory, 0.0f);
    gidd_device_free(device, memory, COUNT * sizeof *memory);
    gidd_device_close(device);
}

/* The time between two events is that of the work between them; an event without a record has none. */
Test(stream, timed_events_know_the_seconds_between_them)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    gidd_event  *from = NULL, *to = NULL;
    float       *memory = allocate(device, COUNT * sizeof *memory);
    double       seconds = -1.0;
    CHECK_OK(gidd_event_create_timed(device, &from));
    CHECK_OK(gidd_event_create_timed(device, &to));
    CHECK_OK(gidd_event_record(device, from, GIDD_STREAM_MAIN));
    cr_assert_eq(gidd_event_seconds(device, from, to, &seconds), GIDD_ERR_ARG);
    const int64_t start_ns = gidd_clock_ns();
    for (int i = 0; i < 100; i++) {
        CHECK_OK(gidd_device_zero(device, memory, COUNT * sizeof *memory));
    }
    CHECK_OK(gidd_event_record(device, to, GIDD_STREAM_MAIN));
    CHECK_OK(gidd_event_wait(device, to));
    const double most = (double)(gidd_clock_ns() - start_ns) * 1e-9 + 1e-3;
    CHECK_OK(gidd_event_seconds(device, from, to, &seconds));
    cr_assert(seconds > 0.0 && seconds <= most, "%g s, of at most %g", seconds, most);
    gidd_event_destroy(device, to);
    gidd_event_destroy(device, from);
    gidd_device_free(device, memory, COUNT * sizeof *memory);
    gidd_device_close(device);
}
