/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/reduction.h"

#include <stdlib.h>

static gidd_status copy_out(void *context, void *host, const void *device, size_t bytes)
{
    return gidd_device_copy_out(context, host, device, bytes);
}

static gidd_status copy_in(void *context, void *device, const void *host, size_t bytes)
{
    GIDD_TRY(gidd_device_copy_in(context, device, host, bytes));
    return gidd_device_synchronize(context);
}

// COMM goes on behind what MAIN has been given.
static gidd_status fork_stream(void *context)
{
    gidd_reduction *r = context;
    GIDD_TRY(gidd_event_record(r->device, r->forked, GIDD_STREAM_MAIN));
    return gidd_stream_wait(r->device, GIDD_STREAM_COMM, r->forked);
}

static gidd_status join_stream(void *context)
{
    gidd_reduction *r = context;
    GIDD_TRY(gidd_event_record(r->device, r->joined, GIDD_STREAM_COMM));
    return gidd_stream_wait(r->device, GIDD_STREAM_MAIN, r->joined);
}

// The rank's own half.
static gidd_status prepare(gidd_reduction *r, const gidd_params *params, int ranks)
{
    r->plan.ranges = calloc((size_t)params->bucket_count, sizeof *r->plan.ranges);
    if (r->plan.ranges == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the bucket table");
    }
    for (int64_t i = 0; i < params->bucket_count; i++) {
        const gidd_param_bucket *bucket = &params->buckets[i];
        r->plan.ranges[i] = (gidd_bucket_range){.at = bucket->at, .piece = bucket->padded_count / ranks};
    }
    r->plan.count = params->bucket_count;
    r->plan.elements = params->memory_count;
    r->plan.ranks = ranks;
    GIDD_TRY(gidd_event_create(r->device, &r->forked));
    return gidd_event_create(r->device, &r->joined);
}

gidd_status gidd_reduction_open(gidd_reduction *reduction, const gidd_reduction_args *args)
{
    gidd_model *model = args->model;
    *reduction = (gidd_reduction){.device = model->device};
    GIDD_TRY(gidd_comm_agree(args->workers, prepare(reduction, model->params, gidd_comm_size(args->workers))));
    int is_remote = gidd_stream_handle(model->device, GIDD_STREAM_MAIN) != NULL; // MPI cannot read its memory
    return gidd_buckets_create(
        &(gidd_buckets_args){.comm = args->workers,
                             .plan = &reduction->plan,
                             .gradients = model->grads,
                             .mode = model->slice == NULL || model->slice->is_whole ? GIDD_BUCKET_WHOLE : GIDD_BUCKET_PIECE,
                             .transport = args->transport,
                             .copy_out = is_remote ? copy_out : NULL,
                             .copy_in = is_remote ? copy_in : NULL,
                             .copy_context = model->device,
                             .stream = gidd_stream_handle(model->device, GIDD_STREAM_COMM),
                             .fork = fork_stream,
                             .join = join_stream,
                             .order_context = reduction,
                             .deterministic = args->deterministic},
        &reduction->buckets);
}

void gidd_reduction_close(gidd_reduction *reduction)
{
    gidd_buckets_destroy(reduction->buckets);
    if (reduction->device != NULL) {
        gidd_event_destroy(reduction->device, reduction->joined);
        gidd_event_destroy(reduction->device, reduction->forked);
    }
    free(reduction->plan.ranges);
    *reduction = (gidd_reduction){0};
}
