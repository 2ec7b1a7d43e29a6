/* SPDX-License-Identifier: Apache-2.0
 *
 * Gradient reduction in buckets, overlapped with the backward pass.
 *
 * The flat order lists all parameters in the order in which backward completes their gradients.
 * Buckets are consecutive ranges of it, cut between tensors. In memory each bucket is padded so
 * that it splits into one equal piece per rank; rank r owns piece r of every bucket.
 *
 *   flat      | t0 | t1 |   t2   | t3 |      t4      |          elements, no padding, rank-free
 *   buckets   |---- bucket 0 ----|----- bucket 1 ----|
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
    int64_t first;  /* first element in flat order */
    int64_t count;  /* elements, without padding */
    int64_t memory; /* element offset in padded memory; a multiple of GIDD_BUCKET_ALIGN */
    int64_t piece;  /* elements of one rank's piece, a multiple of GIDD_BUCKET_ALIGN; padded size of
                       the bucket = ranks * piece */
} gidd_bucket_range;

/* Pieces start on multiples of this many elements: 256 bytes in fp32, 128 in bf16. */
#define GIDD_BUCKET_ALIGN 64

typedef struct gidd_bucket_plan {
    gidd_bucket_range *ranges; /* [count] owned */
    int64_t count;             /* buckets */
    int64_t elements;          /* of the flat order */
    int64_t memory_elements;   /* of padded memory */
    int ranks;
} gidd_bucket_plan;

/* Cuts tensor_elements[tensors] (flat order, each >= 1) into buckets of at most `bucket_bytes` of
 * fp32; a larger tensor is a bucket of its own. A piece above INT_MAX elements is
 * GIDD_ERR_UNSUPPORTED. Release with gidd_bucket_plan_release. Local. */
gidd_status gidd_bucket_plan_init(gidd_bucket_plan *plan, const int64_t *tensor_elements,
                                  int64_t tensors, size_t bucket_bytes, int ranks);
void gidd_bucket_plan_release(gidd_bucket_plan *plan);

/* Bucket that holds flat element `flat`, and where that element lies in padded memory. Tensors
 * never straddle a bucket, so a tensor lies contiguously from its first element's place. Local. */
int64_t gidd_bucket_of(const gidd_bucket_plan *plan, int64_t flat);
int64_t gidd_bucket_memory(const gidd_bucket_plan *plan, int64_t flat);

/* The part of bucket `index` that rank `rank` owns, without padding: flat range [*first_p, *first_p
 * + *count_p), count possibly 0. Its memory starts at ranges[index].memory + rank * piece. Local.
 */
void gidd_bucket_slice(const gidd_bucket_plan *plan, int64_t index, int rank, int64_t *first_p,
                       int64_t *count_p);

typedef struct gidd_buckets
    gidd_buckets; /* opaque: the requests and scratch of one gradient buffer */

typedef enum gidd_bucket_mode {
    GIDD_BUCKET_WHOLE = 0, /* every rank ends with the whole sum */
    GIDD_BUCKET_PIECE,     /* every rank ends with the sum of its pieces; the rest is undefined */
} gidd_bucket_mode;

/* Takes scratch memory of (ranks - 1) / ranks of the gradients. `gradients`
 * [plan->memory_elements], padding zero; plan and gradients are borrowed until destroy. Collective
 * over `comm` (the workers), whose size is plan->ranks. */
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

/* ZeRO-1's second half: `values` [plan->memory_elements] of `element_bytes` each; every rank has
 * updated its own pieces and gets everybody's. Blocks. Collective. */
gidd_status gidd_bucket_gather(gidd_buckets *buckets, void *values, size_t element_bytes);

#endif
