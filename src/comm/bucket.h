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
 * arithmetic. Over MPI, sums are taken in rank order, whatever the library: bits depend on the number
 * of ranks alone.
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

/* What carries the sums. MPI reads host memory; for gradients on a device it needs the copies. NCCL reads the
 * device's memory; nothing of it blocks the host: what it does is issued on a stream of its own, between
 * `fork` and `join`. Their orders of summation differ, so they are two arithmetics. */
typedef enum gidd_bucket_transport { GIDD_BUCKET_MPI = 0, GIDD_BUCKET_NCCL } gidd_bucket_transport;

typedef struct gidd_buckets_args {
    gidd_comm *comm;              /* the workers, whose size is plan->ranks */
    const gidd_bucket_plan *plan; /* borrowed until destroy                 */
    float *gradients;             /* [plan->elements], padding zero; borrowed likewise */
    gidd_bucket_mode mode;
    gidd_bucket_transport transport;

    /* MPI, memory of a device: copies that have been done when they return; NULL: host memory. */
    gidd_status (*copy_out)(void *context, void *host, const void *device, size_t bytes);
    gidd_status (*copy_in)(void *context, void *device, const void *host, size_t bytes);
    void *copy_context;

    /* NCCL: `stream` (cudaStream_t) goes on behind all work that the device has been given (fork); the device
     * goes on behind all that was issued to `stream` (join). */
    void *stream;
    gidd_status (*fork)(void *context);
    gidd_status (*join)(void *context);
    void *order_context;
    int deterministic; /* one algorithm, protocol and number of channels, unless the user's environment says so */
} gidd_buckets_args;

/* Scratch memory, MPI: (ranks - 1) / ranks of the gradients, and as much as the gradients where they are copied.
 * GIDD_ERR_UNSUPPORTED: a piece of more than INT_MAX elements; GIDD_ERR_DEVICE: no NCCL, or it does not start.
 * Collective. */
gidd_status gidd_buckets_create(const gidd_buckets_args *args, gidd_buckets **out_p);

/* For people and for the numerics fingerprint. Local. */
const char *gidd_bucket_transport_name(gidd_bucket_transport transport);

/* NULL-safe; nothing may be in flight. Collective. */
void gidd_buckets_destroy(gidd_buckets *buckets);

/* Starts the reduction of bucket `index`, whose gradients are complete; they are pinned until
 * wait_all. Each step posts 0, 1, ... count-1 in this order. Collective. */
gidd_status gidd_bucket_post(gidd_buckets *buckets, int64_t index);

/* Drives what is in flight without blocking. MPI progresses only inside its own calls, so call it
 * every few milliseconds of computation. GIDD_ERR_PEER: NCCL has lost a rank. Local. */
gidd_status gidd_bucket_poll(gidd_buckets *buckets);

/* Completes every bucket of the step, for what the device is given from now on (MPI: for the host too); all of
 * them must have been posted. Collective. */
gidd_status gidd_bucket_wait_all(gidd_buckets *buckets);

/* ZeRO-1's second half: `values` [plan->elements] of 2 or 4 bytes each; every rank has updated its own
 * pieces and gets everybody's. Nothing is in flight. MPI blocks, NCCL issues. Collective. */
gidd_status gidd_bucket_gather(gidd_buckets *buckets, void *values, size_t element_bytes);

/* Makes one array of parts that lie anywhere: words[count] of 4 bytes each, every word 0 on all ranks
 * but one; every rank gets all of them, bit for bit. Nothing is in flight. MPI blocks, NCCL issues. Collective. */
gidd_status gidd_bucket_merge(gidd_buckets *buckets, void *words, int64_t count);

#endif
