/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/bucket.h"

#include "comm/comm_mpi.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- reduction --------------------------------------------------------------------------------
 */

// Reduce-scatter by direct exchange: every rank sends each other rank its share of that rank's
// piece and adds up what it gets for its own, always in rank order. The bits then depend on the
// number of ranks alone, not on the MPI library or its choice of algorithm, and it moves the least
// data possible (libnbc's Ireduce_scatter_block reduces everything to one rank: 4 to 9 times slower
// on 2 and 4).
#define SUM_BLOCK 2048 // elements added at a time: 8 KiB stay in the L1 cache

struct gidd_buckets {
    gidd_comm *comm; // owned; NULL with one rank
    const gidd_bucket_plan *plan;
    float *gradients;
    gidd_bucket_mode mode;
    float *received;        // per bucket [ranks - 1][piece]: the others' shares of mine
    MPI_Request *exchanges; // [count][2 * (ranks - 1)] receives, then sends
    MPI_Request *gathers;   // [count]
    int64_t posted;         // buckets whose exchange was started
    int64_t finished;       // buckets whose piece is summed
};

static gidd_status allocate_exchange(gidd_buckets *buckets)
{
    const gidd_bucket_plan *plan = buckets->plan;
    size_t others = (size_t)plan->ranks - 1, count = (size_t)plan->count;
    size_t own = (size_t)(plan->elements / plan->ranks);
    buckets->received = malloc(own * others * sizeof *buckets->received);
    buckets->exchanges = malloc(count * 2 * others * sizeof *buckets->exchanges);
    buckets->gathers = malloc(count * sizeof(MPI_Request));
    if (buckets->received == NULL || buckets->exchanges == NULL || buckets->gathers == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory to reduce %lld buckets over %d ranks",
                         (long long)plan->count, plan->ranks);
    }
    for (size_t i = 0; i < count; i++) {
        buckets->gathers[i] = MPI_REQUEST_NULL;
    }
    return GIDD_OK;
}

static gidd_status check_plan(const gidd_bucket_plan *plan)
{
    for (int64_t i = 0; i < plan->count; i++) {
        if (plan->ranges[i].piece > INT_MAX) {
            return gidd_fail(GIDD_ERR_UNSUPPORTED,
                             "a bucket piece of %lld elements is above MPI's limit of %d",
                             (long long)plan->ranges[i].piece, INT_MAX);
        }
    }
    return GIDD_OK;
}

gidd_status gidd_buckets_create(gidd_comm *comm, const gidd_bucket_plan *plan, float *gradients,
                                gidd_bucket_mode mode, gidd_buckets **out_p)
{
    GIDD_ASSERT(comm->size == plan->ranks);
    gidd_status status = GIDD_OK;
    gidd_buckets *buckets = calloc(1, sizeof *buckets);
    if (buckets == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "out of memory for the buckets");
    } else {
        *buckets = (gidd_buckets){.plan = plan, .gradients = gradients, .mode = mode};
        status = check_plan(plan);
        if (status == GIDD_OK && plan->ranks > 1) {
            status = allocate_exchange(buckets);
        }
    }
    GIDD_TRY_GOTO(gidd_comm_agree(comm, status));
    if (plan->ranks > 1) {
        GIDD_TRY_GOTO(gidd_comm_dup(comm, &buckets->comm));
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
        gidd_comm_destroy(buckets->comm);
        free(buckets->gathers);
        free(buckets->exchanges);
        free(buckets->received);
        free(buckets);
    }
}

// Where the share of rank (own + hop) mod ranks lands, hop = 1 .. ranks - 1.
static float *received_from(const gidd_buckets *buckets, int64_t index, int hop)
{
    const gidd_bucket_range *range = &buckets->plan->ranges[index];
    int64_t others = buckets->plan->ranks - 1;
    return buckets->received + range->at / buckets->plan->ranks * others + (hop - 1) * range->piece;
}

static MPI_Request *exchange_of(const gidd_buckets *buckets, int64_t index)
{
    return buckets->exchanges + index * 2 * (buckets->plan->ranks - 1);
}

gidd_status gidd_bucket_post(gidd_buckets *buckets, int64_t index)
{
    GIDD_ASSERT(index == buckets->posted && index < buckets->plan->count);
    int ranks = buckets->plan->ranks;
    buckets->posted++;
    if (ranks == 1) {
        return GIDD_OK;
    }
    const gidd_bucket_range *range = &buckets->plan->ranges[index];
    MPI_Request *request = exchange_of(buckets, index);
    int rank = buckets->comm->rank;
    // One tag does for all: messages of a pair arrive in the order in which they were sent.
    for (int hop = 1; hop < ranks; hop++) {
        GIDD_TRY_MPI(MPI_Irecv(received_from(buckets, index, hop), (int)range->piece, MPI_FLOAT,
                               (rank + hop) % ranks, 0, buckets->comm->mpi, request++));
    }
    for (int hop = ranks - 1; hop >= 1; hop--) { // so that no rank is everybody's first
        int to = (rank + hop) % ranks;
        const float *share = buckets->gradients + range->at + to * range->piece;
        GIDD_TRY_MPI(
            MPI_Isend(share, (int)range->piece, MPI_FLOAT, to, 0, buckets->comm->mpi, request++));
    }
    return gidd_bucket_poll(buckets);
}

// sum[count] = share 0 + share 1 + ... in rank order; sum is the share of `rank` itself.
static void add_shares(float *sum, const gidd_buckets *buckets, int64_t index)
{
    int64_t piece = buckets->plan->ranges[index].piece;
    int ranks = buckets->plan->ranks, rank = buckets->comm->rank;
    float total[SUM_BLOCK];
    for (int64_t start = 0; start < piece; start += SUM_BLOCK) {
        int64_t count = piece - start < SUM_BLOCK ? piece - start : SUM_BLOCK;
        for (int from = 0; from < ranks; from++) {
            int hop = (from - rank + ranks) % ranks;
            const float *share = (hop == 0 ? sum : received_from(buckets, index, hop)) + start;
            if (from == 0) {
                memcpy(total, share, (size_t)count * sizeof *total);
                continue;
            }
            for (int64_t i = 0; i < count; i++) {
                total[i] += share[i];
            }
        }
        memcpy(sum + start, total, (size_t)count * sizeof *total);
    }
}

// All shares of the next bucket are here, and its own have left: sum the piece and pass it on.
static gidd_status finish_bucket(gidd_buckets *buckets)
{
    int64_t index = buckets->finished++;
    const gidd_bucket_range *range = &buckets->plan->ranges[index];
    float *memory = buckets->gradients + range->at;
    add_shares(memory + buckets->comm->rank * range->piece, buckets, index);
    if (buckets->mode == GIDD_BUCKET_PIECE) {
        return GIDD_OK;
    }
    return GIDD_MPI(MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, memory, (int)range->piece,
                                   MPI_FLOAT, buckets->comm->mpi, &buckets->gathers[index]));
}

gidd_status gidd_bucket_poll(gidd_buckets *buckets)
{
    int done = buckets->plan->ranks > 1;
    int requests = 2 * (buckets->plan->ranks - 1);
    // In bucket order on every rank, so that the gathers start in one order everywhere. Testing one
    // bucket drives them all.
    while (done && buckets->finished < buckets->posted) {
        GIDD_TRY_MPI(MPI_Testall(requests, exchange_of(buckets, buckets->finished), &done,
                                 MPI_STATUSES_IGNORE));
        if (done) {
            GIDD_TRY(finish_bucket(buckets));
        }
    }
    if (done) {
        GIDD_TRY_MPI(
            MPI_Testall((int)buckets->finished, buckets->gathers, &done, MPI_STATUSES_IGNORE));
    }
    return GIDD_OK;
}

gidd_status gidd_bucket_wait_all(gidd_buckets *buckets)
{
    int64_t count = buckets->plan->count;
    int requests = 2 * (buckets->plan->ranks - 1);
    GIDD_ASSERT(buckets->posted == count);
    if (buckets->plan->ranks > 1) {
        while (buckets->finished < count) {
            GIDD_TRY_MPI(MPI_Waitall(requests, exchange_of(buckets, buckets->finished),
                                     MPI_STATUSES_IGNORE));
            GIDD_TRY(finish_bucket(buckets));
        }
        GIDD_TRY_MPI(MPI_Waitall((int)count, buckets->gathers, MPI_STATUSES_IGNORE));
    }
    buckets->posted = buckets->finished = 0;
    return GIDD_OK;
}

gidd_status gidd_bucket_gather(gidd_buckets *buckets, void *values, size_t element_bytes)
{
    const gidd_bucket_plan *plan = buckets->plan;
    GIDD_ASSERT(buckets->posted == 0 && (element_bytes == 2 || element_bytes == 4));
    if (plan->ranks == 1) {
        return GIDD_OK;
    }
    for (int64_t i = 0; i < plan->count; i++) {
        const gidd_bucket_range *range = &plan->ranges[i];
        GIDD_TRY_MPI(MPI_Iallgather(
            MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, (char *)values + (size_t)range->at * element_bytes,
            (int)range->piece, element_bytes == 2 ? MPI_UINT16_T : MPI_FLOAT, buckets->comm->mpi,
            &buckets->gathers[i]));
    }
    return GIDD_MPI(MPI_Waitall((int)plan->count, buckets->gathers, MPI_STATUSES_IGNORE));
}

gidd_status gidd_bucket_merge(gidd_buckets *buckets, void *words, int64_t count)
{
    enum { AT_ONCE = 1 << 28 };
    for (int64_t at = 0; buckets->plan->ranks > 1 && at < count; at += AT_ONCE) {
        int64_t some = count - at < AT_ONCE ? count - at : AT_ONCE;
        GIDD_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, (uint32_t *)words + at, (int)some, MPI_UINT32_T,
                                   MPI_BOR, buckets->comm->mpi));
    }
    return GIDD_OK;
}
