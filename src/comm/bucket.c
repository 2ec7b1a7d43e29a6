/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/bucket.h"

#include "comm/bucket_backend.h"

#include <stdlib.h>

struct gidd_buckets {
    const gidd_bucket_backend *backend;
    const gidd_bucket_plan *plan;
    void *state;    // the back-end's; NULL with one rank
    int64_t posted; // buckets of this step
};

static const gidd_bucket_backend *const backends[] = {
    [GIDD_BUCKET_MPI] = &gidd_bucket_mpi,
    [GIDD_BUCKET_NCCL] = &gidd_bucket_nccl,
};

const char *gidd_bucket_transport_name(gidd_bucket_transport transport)
{
    return backends[transport]->name;
}

gidd_status gidd_buckets_create(const gidd_buckets_args *args, gidd_buckets **out_p)
{
    GIDD_ASSERT(gidd_comm_size(args->comm) == args->plan->ranks);
    gidd_status status = GIDD_OK;
    gidd_buckets *buckets = calloc(1, sizeof *buckets);
    if (buckets == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "out of memory for the buckets");
    } else {
        *buckets = (gidd_buckets){.backend = backends[args->transport], .plan = args->plan};
        status = args->plan->ranks > 1 ? buckets->backend->prepare(args, &buckets->state) : GIDD_OK;
    }
    GIDD_TRY_GOTO(gidd_comm_agree(args->comm, status));
    if (args->plan->ranks > 1) {
        status = buckets->backend->connect(buckets->state);
        GIDD_TRY_GOTO(gidd_comm_agree(args->comm, status));
    }
    *out_p = buckets;
    return GIDD_OK;
out:
    gidd_buckets_destroy(buckets);
    return status;
}

void gidd_buckets_destroy(gidd_buckets *buckets)
{
    if (buckets != NULL) {
        buckets->backend->destroy(buckets->state);
        free(buckets);
    }
}

gidd_status gidd_bucket_post(gidd_buckets *buckets, int64_t index)
{
    GIDD_ASSERT(index == buckets->posted && index < buckets->plan->count);
    buckets->posted++;
    gidd_comm_count_collective();
    return buckets->state != NULL ? buckets->backend->post(buckets->state, index) : GIDD_OK;
}

gidd_status gidd_bucket_poll(gidd_buckets *buckets)
{
    return buckets->state != NULL ? buckets->backend->poll(buckets->state) : GIDD_OK;
}

gidd_status gidd_bucket_wait_all(gidd_buckets *buckets)
{
    GIDD_ASSERT(buckets->posted == buckets->plan->count);
    buckets->posted = 0;
    return buckets->state != NULL ? buckets->backend->wait_all(buckets->state) : GIDD_OK;
}

gidd_status gidd_bucket_gather(gidd_buckets *buckets, void *values, size_t element_bytes)
{
    GIDD_ASSERT(buckets->posted == 0 && (element_bytes == 2 || element_bytes == 4));
    return buckets->state != NULL ? buckets->backend->gather(buckets->state, values, element_bytes) : GIDD_OK;
}

gidd_status gidd_bucket_merge(gidd_buckets *buckets, void *words, int64_t count)
{
    GIDD_ASSERT(buckets->posted == 0);
    return buckets->state != NULL ? buckets->backend->merge(buckets->state, words, count) : GIDD_OK;
}
