/* SPDX-License-Identifier: Apache-2.0
 *
 * Buckets over NCCL. Everything is issued on the stream for communication; the host waits for nothing.
 */
#include "comm/bucket_backend.h"
#include "comm/comm_mpi.h"
#include "comm/nccl_abort.h"
#include "comm/nccl_api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct nccl_buckets {
    gidd_buckets_args args;
    gidd_nccl nccl;
    void *comm; // ncclComm_t
    int rank;
} nccl_buckets;

static gidd_status check(const nccl_buckets *buckets, int result, const char *call)
{
    return result == GIDD_NCCL_SUCCESS
               ? GIDD_OK
               : gidd_fail(GIDD_ERR_COMM, "%s: %s", call, buckets->nccl.get_error_string(result));
}

// One algorithm, one protocol and one number of channels: then the order of every sum is the topology's. NCCL takes
// them from the environment; what the user has set stands.
static void fix_choices(void)
{
    static const char *const choices[][2] = {{"NCCL_ALGO", "Ring"},         {"NCCL_PROTO", "Simple"},
                                             {"NCCL_MIN_CTAS", "16"},       {"NCCL_MAX_CTAS", "16"},
                                             {"NCCL_MIN_NCHANNELS", "16"},  {"NCCL_MAX_NCHANNELS", "16"}};
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        (void)setenv(choices[i][0], choices[i][1], 0);
    }
}

static gidd_status prepare(const gidd_buckets_args *args, void **state_p)
{
    nccl_buckets *buckets = calloc(1, sizeof *buckets);
    if (buckets == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for the buckets");
    }
    GIDD_ASSERT(args->fork != NULL && args->join != NULL);
    buckets->args = *args;
    buckets->rank = gidd_comm_rank(args->comm);
    *state_p = buckets;
    if (args->deterministic) {
        fix_choices();
    }
    return gidd_nccl_load(&buckets->nccl);
}

// Rank 0's id reaches all over MPI. A rank that cannot start is told by the others' time limit, NCCL's or the watchdog's.
static gidd_status connect_ranks(void *state)
{
    nccl_buckets *buckets = state;
    gidd_nccl_id id;
    memset(&id, 0, sizeof id);
    gidd_status status = GIDD_OK;
    if (buckets->rank == 0) {
        status = check(buckets, buckets->nccl.get_unique_id(&id), "ncclGetUniqueId");
    }
    GIDD_TRY(gidd_comm_agree(buckets->args.comm, status));
    GIDD_TRY(gidd_comm_bcast(buckets->args.comm, 0, &id, sizeof id));
    GIDD_TRY(check(buckets, buckets->nccl.comm_init_rank(&buckets->comm, buckets->args.plan->ranks, id, buckets->rank),
                   "ncclCommInitRank"));
    gidd_nccl_abort_arm(buckets->nccl.comm_abort, buckets->comm);
    return GIDD_OK;
}

static void destroy(void *state)
{
    nccl_buckets *buckets = state;
    if (buckets != NULL) {
        if (buckets->comm != NULL) {
            gidd_nccl_abort_arm(NULL, NULL);
            (void)buckets->nccl.comm_destroy(buckets->comm);
        }
        free(buckets);
    }
}

static gidd_status poll(void *state)
{
    nccl_buckets *buckets = state;
    int error = GIDD_NCCL_SUCCESS;
    GIDD_TRY(check(buckets, buckets->nccl.comm_get_async_error(buckets->comm, &error), "ncclCommGetAsyncError"));
    if (error != GIDD_NCCL_SUCCESS && error != GIDD_NCCL_IN_PROGRESS) {
        return gidd_fail(GIDD_ERR_PEER, "NCCL has lost the other ranks: %s", buckets->nccl.get_error_string(error));
    }
    return GIDD_OK;
}

static gidd_status post(void *state, int64_t index)
{
    nccl_buckets *buckets = state;
    const gidd_bucket_range *range = &buckets->args.plan->ranges[index];
    float *memory = buckets->args.gradients + range->at, *own = memory + buckets->rank * range->piece;
    size_t piece = (size_t)range->piece;
    GIDD_TRY(buckets->args.fork(buckets->args.order_context));
    GIDD_TRY(check(buckets, buckets->nccl.reduce_scatter(memory, own, piece, GIDD_NCCL_FLOAT32, GIDD_NCCL_SUM,
                                                         buckets->comm, buckets->args.stream),
                   "ncclReduceScatter"));
    if (buckets->args.mode == GIDD_BUCKET_PIECE) {
        return GIDD_OK;
    }
    return check(buckets, buckets->nccl.all_gather(own, memory, piece, GIDD_NCCL_FLOAT32, buckets->comm, buckets->args.stream),
                 "ncclAllGather");
}

static gidd_status wait_all(void *state)
{
    nccl_buckets *buckets = state;
    GIDD_TRY(poll(state));
    return buckets->args.join(buckets->args.order_context);
}

static gidd_status gather(void *state, void *values, size_t element_bytes)
{
    nccl_buckets *buckets = state;
    GIDD_TRY(buckets->args.fork(buckets->args.order_context));
    for (int64_t i = 0; i < buckets->args.plan->count; i++) {
        const gidd_bucket_range *range = &buckets->args.plan->ranges[i];
        char *memory = (char *)values + (size_t)range->at * element_bytes;
        char *own = memory + (size_t)(buckets->rank * range->piece) * element_bytes;
        GIDD_TRY(check(buckets, buckets->nccl.all_gather(own, memory, (size_t)range->piece,
                                                         element_bytes == 2 ? GIDD_NCCL_BFLOAT16 : GIDD_NCCL_FLOAT32,
                                                         buckets->comm, buckets->args.stream),
                       "ncclAllGather"));
    }
    return wait_all(state);
}

// All ranks but one have 0: the sum of whole numbers is the one's bits.
static gidd_status merge(void *state, void *words, int64_t count)
{
    nccl_buckets *buckets = state;
    GIDD_TRY(buckets->args.fork(buckets->args.order_context));
    GIDD_TRY(check(buckets, buckets->nccl.all_reduce(words, words, (size_t)count, GIDD_NCCL_UINT32, GIDD_NCCL_SUM,
                                                     buckets->comm, buckets->args.stream),
                   "ncclAllReduce"));
    return wait_all(state);
}

const gidd_bucket_backend gidd_bucket_nccl = {
    .name = "nccl reduce-scatter, all-gather",
    .prepare = prepare,
    .connect = connect_ranks,
    .destroy = destroy,
    .post = post,
    .poll = poll,
    .wait_all = wait_all,
    .gather = gather,
    .merge = merge,
};
