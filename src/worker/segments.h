/* SPDX-License-Identifier: Apache-2.0
 *
 * A training step's work on the device, in segments. Everything that a segment issues is the same from step to
 * step: what changes lies in the batch record and in the update's state on the device. So each segment is
 * recorded once, before the first step, as a graph per variant, and launched from then on:
 *
 *     TRUNK      embedding, conditioning, blocks             per B
 *     HEAD       final norm, output matrix, loss and their   per B, first | further micro-batch, rows: all, or one
 *                backward                                    of GIDD_ROW_BUCKETS + 1 lengths of the list
 *     BACKWARD   blocks, conditioning, embedding             per B, first | further, and rows as in HEAD
 *     NORM       partial sums of the gradient's norm
 *     UPDATE     norm, clipping, AdamW
 *
 * (B: a rank's last micro-batch may be smaller.) BACKWARD is a graph for each bucket of gradients, so that the
 * host starts a bucket's reduction when it is complete; other exchanges of the ranks happen between segments.
 * Without graphs, a segment issues its work when it is run, and the host is called in the middle of it.
 */
#ifndef GIDD_WORKER_SEGMENTS_H
#define GIDD_WORKER_SEGMENTS_H

#include "kernels/stream.h"
#include "model/model.h"
#include "worker/optimizer.h"

typedef enum gidd_segment_kind {
    GIDD_SEGMENT_TRUNK = 0,
    GIDD_SEGMENT_HEAD,
    GIDD_SEGMENT_BACKWARD,
    GIDD_SEGMENT_NORM,
    GIDD_SEGMENT_UPDATE,
} gidd_segment_kind;

typedef struct gidd_segment {
    gidd_segment_kind kind;
    int64_t           B;          /* TRUNK, HEAD, BACKWARD: sequences of the micro-batch           */
    int               accumulate; /* HEAD, BACKWARD: a further micro-batch adds to the gradients  */
    int               last;       /* BACKWARD: the last one, whose gradients are complete         */
    int               skip_clean; /* HEAD, BACKWARD: listed rows only, so many:                    */
    int64_t           rows;       /* gidd_model_bucket()                                           */
} gidd_segment;

typedef struct gidd_segments_args {
    gidd_model     *model;     /* borrowed, as all here */
    gidd_optimizer *optimizer;
    float           scale;     /* 1/(G*T) */
    int64_t         T;
    int64_t         B, last_B; /* of the micro-batches, and of the last one of a step */
    int64_t         micro_batches;
    int             may_skip;  /* steps with skip_clean happen */
    int             use_graphs;
    void (*chunk_done)(void *context);                  /* the host's, between the head's chunks           */
    void (*grads_ready)(void *context, int32_t group);  /* the host's, in or behind the last BACKWARD      */
    void *context;
} gidd_segments_args;

typedef struct gidd_segments gidd_segments;

/* With graphs: records every variant. Local. */
gidd_status gidd_segments_create(const gidd_segments_args *args, gidd_segments **segments_p);
void        gidd_segments_destroy(gidd_segments *segments); /* NULL-safe. Local. */

/* Issues the segment's work. With graphs chunk_done is called behind HEAD, not in the middle of it. A variant
 * that was not recorded is GIDD_ERR_ARG. Local. */
gidd_status gidd_segment_run(gidd_segments *segments, const gidd_segment *segment);

/* From now on the segments issue their work as without graphs, so that each launch passes device->kernels: for a
 * profile of them. Local. */
void gidd_segments_issue_plainly(gidd_segments *segments);

/* Graphs recorded, and launches in all of them (-1: CUDA holds them). Local. */
int64_t gidd_segments_count(const gidd_segments *segments, int64_t *launches_p);

#endif
