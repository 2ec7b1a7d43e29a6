/* SPDX-License-Identifier: Apache-2.0
 *
 * Gradient reduction in buckets, overlapped with the backward pass.
 *
 * Gradients lie in memory in the order in which backward completes them, cut into buckets; each bucket
 * is one equal piece per rank (model/params.h pads it so), and rank r owns piece r of every bucket:
 *
 *   memory    |p0 p0 |p1 p1 |p2 ~|p0 p0|p1 p1 |p2 ~~~|          3 ranks; ~ padding, kept at zero
 *
 * A bucket is reduced as reduce-scatter (each rank gets the sum of its piece), then all-gather of
 * the pieces: with GIDD_BUCKET_WHOLE of the gradients themselves (every rank updates everything),
 * with GIDD_BUCKET_PIECE of the updated weights (ZeRO-1: gidd_bucket_gather). Both are one
 * arithmetic. Sums are taken in rank order, whatever the MPI library: bits depend on the number of
 * ranks alone.
 *
 * Life of a step: post 0, post 1 ... from inside backward, poll between kernels, wait_all. With one
 * rank there is nothing to do: no communication and no copy. No allocation after create.
 */
#ifndef GIDD_COMM_BUCKET_H
#define GIDD_COMM_BUCKET_H

#include "comm/comm.h"

typedef struct gidd_bucket_range {
    int64_t at;    /* first element */
    int64_t piece; /* elements of one rank's piece; the bucket has ranks * piece */
} gidd_bucket_range;

typedef struct gidd_bucket_plan {
    gidd_bucket_range *ranges; /* [count] back to back, in the order in which they are posted */
    int64_t count;
    int64_t elements; /* of all buckets together */
    int ranks;
} gidd_bucket_plan;

typedef struct gidd_buckets
    gidd_buckets; /* opaque: the requests and scratch of one gradient buffer */

typedef enum gidd_bucket_mode {
    GIDD_BUCKET_WHOLE = 0, /* every rank ends with the whole sum */
    GIDD_BUCKET_PIECE,     /* every rank ends with the sum of its pieces; the rest is undefined */
} gidd_bucket_mode;

/* Takes scratch memory of (ranks - 1) / ranks of the gradients. `gradients`
 * [plan->elements], padding zero; plan and gradients are borrowed until destroy. Collective
 * over `comm` (the workers), whose size is plan->ranks. GIDD_ERR_UNSUPPORTED: a piece of
 * more than INT_MAX elements. */
gidd_status gidd_buckets_create(gidd_comm *comm, const gidd_bucket_plan *plan, float *gradients,
                                gidd_bucket_mode mode, gidd_buckets **out_p);

/* NULL-safe; nothing may be in flight. Collective. */
void gidd_buckets_destroy(gidd_buckets *buckets);

/* Starts the reduction of bucket `index`, whose gradients are complete; they are pinned until
 * wait_all. Each step posts 0, 1, ... count-1 in this order. Collective. */
gidd_status gidd_bucket_post(gidd_buckets *buckets, int64_t index);

/* Drives what is in flight without blocking. MPI progresses only inside its own calls, so call it
 * every few milliseconds of computation. Local. */
gidd_status gidd_bucket_poll(gidd_buckets *buckets);

/* Completes every bucket of the step; all of them must have been posted. Collective. */
gidd_status gidd_bucket_wait_all(gidd_buckets *buckets);

/* ZeRO-1's second half: `values` [plan->elements] of 2 or 4 bytes each; every rank has updated its own
 * pieces and gets everybody's. Nothing is in flight. Blocks. Collective. */
gidd_status gidd_bucket_gather(gidd_buckets *buckets, void *values, size_t element_bytes);

/* Makes one array of parts that lie anywhere: words[count] of 4 bytes each, every word 0 on all ranks
 * but one; every rank gets all of them, bit for bit. Nothing is in flight. Blocks. Collective. */
gidd_status gidd_bucket_merge(gidd_buckets *buckets, void *words, int64_t count);

#endif
