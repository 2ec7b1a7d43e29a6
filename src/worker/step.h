/* SPDX-License-Identifier: Apache-2.0
 *
 * One training step of one rank: the heart of the program (step.c is one screen).
 */
#ifndef GIDD_WORKER_STEP_H
#define GIDD_WORKER_STEP_H

#include "comm/bucket.h"
#include "coordinator/protocol.h"
#include "coordinator/watch.h"
#include "io/loader.h"
#include "model/model.h"
#include "worker/optimizer.h"

/* What a step works with; everything is borrowed. */
typedef struct gidd_step_context {
    gidd_model     *model;
    gidd_optimizer *optimizer;
    gidd_prefetch  *prefetch;
    gidd_buckets   *buckets;
    gidd_protocol  *protocol; /* NULL: nobody gives orders (benchmarks) */
    gidd_watch     *watch;    /* may be NULL */
    int64_t         micro_batches; /* of a step on this rank */
    float           scale;         /* 1/(G*T) */
    int64_t         skipped_in_row; /* carried from step to step, and in the checkpoint */
    /* private to step.c */
    int64_t         next_bucket;
    gidd_status     poll_status;
} gidd_step_context;

/* Does the step of `order`: load, forward, loss, backward, reduce, clip, update. Fills the report but for
 * eval, signals and writer. Collective over the workers; GIDD_ERR_* from a rank's own trouble is Local. */
gidd_status gidd_step_run(gidd_step_context *context, const gidd_order *order, gidd_report *report);

#endif
