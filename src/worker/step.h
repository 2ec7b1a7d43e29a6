/* SPDX-License-Identifier: Apache-2.0
 *
 * One training step of one rank: the heart of the program (step.c is one screen).
 */
#ifndef GIDD_WORKER_STEP_H
#define GIDD_WORKER_STEP_H

#include "comm/bucket.h"
#include "coordinator/protocol.h"
#include "coordinator/watch.h"
#include "model/model.h"
#include "worker/feed.h"
#include "worker/optimizer.h"
#include "worker/results.h"
#include "worker/segments.h"

/* What a step works with; everything is borrowed. */
typedef struct gidd_step_context {
    gidd_model     *model;
    gidd_optimizer *optimizer;
    gidd_feed      *feed;
    gidd_segments  *segments;
    gidd_results   *results;
    gidd_buckets   *buckets;
    /* Called once a step, when the first micro-batch's forward has been issued: the last step's report, and the
     * next order. NULL: nobody gives orders (benchmarks). */
    gidd_status (*midway)(void *context);
    void           *context;
    gidd_comm      *workers;  /* for the loss over all ranks, where an order gives a limit */
    gidd_protocol  *protocol; /* NULL: nobody gives orders (benchmarks) */
    gidd_watch     *watch;    /* may be NULL */
    int64_t         micro_batches; /* of a step on this rank */
    int64_t         skipped_in_row; /* carried from step to step, and in the checkpoint */
    /* private to step.c */
    int64_t         next_bucket, head_rows;
    gidd_status     poll_status;
    struct gidd_step_times {
        int64_t step, head_rows, step_ns, data_ns, comm_ns;
        int     left_out;    /* the parameters stayed as they were      */
        double  loss_factor; /* 1, but for a fault at point `loss`       */
    } times[2];                   /* of the steps of which no report was made */
    int64_t         issued, reported;
} gidd_step_context;

/* Issues the step of `order`: load, forward, loss, backward, reduce, clip, update. Collective over the workers;
 * GIDD_ERR_* from a rank's own trouble is Local. */
gidd_status gidd_step_run(gidd_step_context *context, const gidd_order *order);

/* 1 while there are steps of which no report was made; at most two. Local. */
int gidd_step_is_open(const gidd_step_context *context);

/* The report of the oldest such step, but for eval, signals and writer: waits until it is done. Local. */
gidd_status gidd_step_report(gidd_step_context *context, gidd_report *report);

/* The host's part of the segments: keeps communication moving; starts the reduction of gradients that are
 * complete (gidd_segments_args; `context` is the gidd_step_context). Collective, as the reduction is. */
void gidd_step_poll(void *context);

/* See gidd_step_poll. Collective. */
void gidd_step_post(void *context, int32_t group);

#endif
