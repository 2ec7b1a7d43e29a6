/* SPDX-License-Identifier: Apache-2.0
 *
 * The buckets of a model's gradients: the parameters' table says where they lie, the device how to reach them.
 */
#ifndef GIDD_WORKER_REDUCTION_H
#define GIDD_WORKER_REDUCTION_H

#include "comm/bucket.h"
#include "kernels/stream.h"
#include "model/model.h"

typedef struct gidd_reduction_args {
    gidd_comm            *workers; /* borrowed, as all here */
    gidd_model           *model;   /* its slice says whether sums are wanted whole */
    gidd_bucket_transport transport;
    int                   deterministic; /* NCCL: see comm/bucket.h */
} gidd_reduction_args;

typedef struct gidd_reduction {
    gidd_device     *device;
    gidd_bucket_plan plan;
    gidd_event      *forked, *joined; /* NCCL: between MAIN and COMM */
    gidd_buckets    *buckets;         /* owned */
} gidd_reduction;

/* The caller's storage; close it also after a failure. Collective over the workers. */
gidd_status gidd_reduction_open(gidd_reduction *reduction, const gidd_reduction_args *args);
void        gidd_reduction_close(gidd_reduction *reduction); /* All zero is closed. Collective. */

#endif
