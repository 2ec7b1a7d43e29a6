/* SPDX-License-Identifier: Apache-2.0
 *
 * Batch records on their way to the device, one ahead of the step that works on them.
 *
 *     gidd_feed_take(feed, model, &batch);     // the next record is the model's batch
 *     ...the step's work is issued...
 *     gidd_feed_send(feed);                    // the record after it begins to travel
 *
 * Two places on the device take turns. The prefetch's ring, from which the copies are made, is in pinned memory; a
 * record goes back to it when its copy is known to be done, two sends later. Local, all of it.
 */
#ifndef GIDD_WORKER_FEED_H
#define GIDD_WORKER_FEED_H

#include "io/loader.h"
#include "kernels/stream.h"
#include "model/model.h"

typedef struct gidd_feed gidd_feed;

/* `args`: of the prefetch, whose memory, depth and thread are the feed's. Owned by the caller. */
gidd_status gidd_feed_create(gidd_device *device, const gidd_prefetch_args *args, gidd_feed **feed_p);
void        gidd_feed_destroy(gidd_feed *feed); /* NULL-safe */

/* Makes the next record the model's batch, in the order of the device's work. *batch_p (sizes and counts; its
 * arrays are the host's) stays valid until the send after next. */
gidd_status gidd_feed_take(gidd_feed *feed, gidd_model *model, const gidd_batch **batch_p);

/* Sends the next record, if there is one: waits until the prefetch has built it. */
gidd_status gidd_feed_send(gidd_feed *feed);

/* Nanoseconds spent waiting for the prefetch so far. */
int64_t gidd_feed_waited_ns(const gidd_feed *feed);

#endif
