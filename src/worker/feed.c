/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/feed.h"

#include <stdlib.h>

enum {
    PLACES = 2,
    DEPTH = PLACES + 2, // records held for the copies, and two to build
};

struct gidd_feed {
    gidd_device      *device;
    gidd_prefetch    *prefetch;
    void             *ring; // pinned; the prefetch's
    size_t            record_bytes;
    void             *staging[PLACES]; // on the device
    const gidd_batch *batches[PLACES];
    gidd_event       *copied[PLACES], *consumed[PLACES];
    int64_t           sent, taken, total;
};

static gidd_status open_parts(gidd_feed *feed, const gidd_prefetch_args *args)
{
    gidd_prefetch_args prefetch = *args;
    prefetch.depth = DEPTH;
    for (int i = 0; i < PLACES; i++) {
        GIDD_TRY(gidd_device_alloc(feed->device, feed->record_bytes, "batch records", &feed->staging[i]));
        GIDD_TRY(gidd_event_create(feed->device, &feed->copied[i]));
        GIDD_TRY(gidd_event_create(feed->device, &feed->consumed[i]));
    }
    GIDD_TRY(gidd_device_host_alloc(feed->device, gidd_prefetch_bytes(&prefetch), "batch records", &feed->ring));
    prefetch.memory = feed->ring;
    return gidd_prefetch_create(&prefetch, &feed->prefetch);
}

gidd_status gidd_feed_create(gidd_device *device, const gidd_prefetch_args *args, gidd_feed **feed_p)
{
    gidd_feed *feed = calloc(1, sizeof *feed);
    if (feed == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a feed");
    }
    int64_t per_step = (args->row_count + args->micro_batch - 1) / args->micro_batch;
    feed->device = device;
    feed->total = (args->end_step - args->first_step) * per_step;
    feed->record_bytes = gidd_batch_bytes(args->micro_batch, gidd_loader_row_length(args->loader));
    gidd_status status = open_parts(feed, args);
    if (status != GIDD_OK) {
        gidd_feed_destroy(feed);
        return status;
    }
    *feed_p = feed;
    return GIDD_OK;
}

void gidd_feed_destroy(gidd_feed *feed)
{
    if (feed == NULL) {
        return;
    }
    (void)!gidd_device_synchronize(feed->device); // copies that nobody took
    gidd_prefetch_destroy(feed->prefetch);
    gidd_device_host_free(feed->device, feed->ring);
    for (int i = 0; i < PLACES; i++) {
        gidd_event_destroy(feed->device, feed->consumed[i]);
        gidd_event_destroy(feed->device, feed->copied[i]);
        gidd_device_free(feed->device, feed->staging[i], feed->record_bytes);
    }
    free(feed);
}

gidd_status gidd_feed_send(gidd_feed *feed)
{
    const int place = (int)(feed->sent % PLACES);
    if (feed->sent == feed->total) {
        return GIDD_OK;
    }
    if (feed->sent >= PLACES) { // the copy from the ring that this place had before
        GIDD_TRY(gidd_event_wait(feed->device, feed->copied[place]));
        gidd_prefetch_release(feed->prefetch);
    }
    const gidd_batch **batch = &feed->batches[place];
    GIDD_TRY(gidd_prefetch_next(feed->prefetch, batch));
    GIDD_TRY(gidd_stream_wait(feed->device, GIDD_STREAM_COPY, feed->consumed[place]));
    GIDD_TRY(gidd_stream_copy_in(feed->device, GIDD_STREAM_COPY, feed->staging[place], (*batch)->memory, (*batch)->bytes));
    GIDD_TRY(gidd_event_record(feed->device, feed->copied[place], GIDD_STREAM_COPY));
    feed->sent++;
    return GIDD_OK;
}

gidd_status gidd_feed_take(gidd_feed *feed, gidd_model *model, const gidd_batch **batch_p)
{
    const int place = (int)(feed->taken % PLACES);
    if (feed->sent == feed->taken) { // the first of all
        GIDD_TRY(gidd_feed_send(feed));
    }
    if (feed->sent == feed->taken) {
        return gidd_fail(GIDD_ERR_ARG, "all %lld batch records were taken", (long long)feed->total);
    }
    GIDD_TRY(gidd_stream_wait(feed->device, GIDD_STREAM_MAIN, feed->copied[place]));
    GIDD_TRY(gidd_model_load_from(model, feed->batches[place], feed->staging[place]));
    GIDD_TRY(gidd_event_record(feed->device, feed->consumed[place], GIDD_STREAM_MAIN));
    feed->taken++;
    *batch_p = feed->batches[place];
    return GIDD_OK;
}

int64_t gidd_feed_waited_ns(const gidd_feed *feed)
{
    return gidd_prefetch_waited_ns(feed->prefetch);
}
