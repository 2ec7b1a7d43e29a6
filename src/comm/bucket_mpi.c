/* SPDX-License-Identifier: Apache-2.0
 *
 * Buckets over MPI. What lies on a device that MPI cannot read passes through a copy in host memory: out
 * before it is sent, in behind what was received.
 */
#include "comm/bucket_backend.h"
#include "comm/comm_mpi.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

// Reduce-scatter by direct exchange: every rank sends each other rank its share of that rank's
// piece and adds up what it gets for its own, always in rank order. The bits then depend on the
// number of ranks alone, not on the MPI library or its choice of algorithm, and it moves the least
// data possible (libnbc's Ireduce_scatter_block reduces everything to one rank: 4 to 9 times slower
// on 2 and 4).
#define SUM_BLOCK 2048 // elements added at a time: 8 KiB stay in the L1 cache

typedef struct mpi_buckets {
    gidd_buckets_args args;
    gidd_comm *comm; // owned
    const gidd_bucket_plan *plan;
    float *gradients; // the device's, or their copy on the host
    char *host;       // owned; where there is a device: [plan->elements] of 4 bytes
    float *received;        // per bucket [ranks - 1][piece]: the others' shares of mine
    MPI_Request *exchanges; // [count][2 * (ranks - 1)] receives, then sends
    MPI_Request *gathers;   // [count]
    int64_t posted;         // buckets whose exchange was started
    int64_t finished;       // buckets whose piece is summed
} mpi_buckets;

static gidd_status allocate_exchange(mpi_buckets *buckets)
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

static gidd_status prepare(const gidd_buckets_args *args, void **state_p)
{
    mpi_buckets *buckets = calloc(1, sizeof *buckets);
    if (buckets == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for the buckets");
    }
    *buckets = (mpi_buckets){.args = *args, .plan = args->plan, .gradients = args->gradients};
    *state_p = buckets;
    GIDD_TRY(check_plan(args->plan));
    if (args->copy_out != NULL) {
        buckets->host = malloc((size_t)args->plan->elements * sizeof(float));
        if (buckets->host == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "out of memory to reduce a device's %lld gradients on the host",
                             (long long)args->plan->elements);
        }
        buckets->gradients = (float *)buckets->host;
    }
    return allocate_exchange(buckets);
}

static gidd_status connect_ranks(void *state)
{
    mpi_buckets *buckets = state;
    return gidd_comm_dup(buckets->args.comm, &buckets->comm);
}

static void destroy(void *state)
{
    mpi_buckets *buckets = state;
    if (buckets != NULL) {
        gidd_comm_destroy(buckets->comm);
        free(buckets->gathers);
        free(buckets->exchanges);
        free(buckets->received);
        free(buckets->host);
        free(buckets);
    }
}

/* ---- between host and device ------------------------------------------------------------------ */

// Elements [at, at + count) of a device's array to their place in the host's copy, and back.
static gidd_status fetch(const mpi_buckets *buckets, const void *values, size_t element_bytes, int64_t at, int64_t count)
{
    size_t place = (size_t)at * element_bytes;
    return buckets->host == NULL ? GIDD_OK
                                 : buckets->args.copy_out(buckets->args.copy_context, buckets->host + place,
                                                          (const char *)values + place, (size_t)count * element_bytes);
}

static gidd_status deliver(const mpi_buckets *buckets, void *values, size_t element_bytes, int64_t at, int64_t count)
{
    size_t place = (size_t)at * element_bytes;
    return buckets->host == NULL ? GIDD_OK
                                 : buckets->args.copy_in(buckets->args.copy_context, (char *)values + place,
                                                         buckets->host + place, (size_t)count * element_bytes);
}

/* ---- reduction -------------------------------------------------------------------------------- */

// Where the share of rank (own + hop) mod ranks lands, hop = 1 .. ranks - 1.
static float *received_from(const mpi_buckets *buckets, int64_t index, int hop)
{
    const gidd_bucket_range *range = &buckets->plan->ranges[index];
    int64_t others = buckets->plan->ranks - 1;
    return buckets->received + range->at / buckets->plan->ranks * others + (hop - 1) * range->piece;
}

static MPI_Request *exchange_of(const mpi_buckets *buckets, int64_t index)
{
    return buckets->exchanges + index * 2 * (buckets->plan->ranks - 1);
}

static gidd_status poll(void *state);

static gidd_status post(void *state, int64_t index)
{
    mpi_buckets *buckets = state;
    int ranks = buckets->plan->ranks, rank = buckets->comm->rank;
    const gidd_bucket_range *range = &buckets->plan->ranges[index];
    MPI_Request *request = exchange_of(buckets, index);
    GIDD_TRY(fetch(buckets, buckets->args.gradients, sizeof(float), range->at, range->piece * ranks));
    buckets->posted++;
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
    return poll(state);
}

// sum[count] = share 0 + share 1 + ... in rank order; sum is the share of `rank` itself.
static void add_shares(float *sum, const mpi_buckets *buckets, int64_t index)
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
static gidd_status finish_bucket(mpi_buckets *buckets)
{
    int64_t index = buckets->finished++;
    const gidd_bucket_range *range = &buckets->plan->ranges[index];
    float *memory = buckets->gradients + range->at;
    add_shares(memory + buckets->comm->rank * range->piece, buckets, index);
    if (buckets->args.mode == GIDD_BUCKET_PIECE) {
        return GIDD_OK;
    }
    return GIDD_MPI(MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, memory, (int)range->piece,
                                   MPI_FLOAT, buckets->comm->mpi, &buckets->gathers[index]));
}

static gidd_status poll(void *state)
{
    mpi_buckets *buckets = state;
    int done = 1, requests = 2 * (buckets->plan->ranks - 1);
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

static gidd_status wait_all(void *state)
{
    mpi_buckets *buckets = state;
    const gidd_bucket_plan *plan = buckets->plan;
    int requests = 2 * (plan->ranks - 1);
    while (buckets->finished < plan->count) {
        GIDD_TRY_MPI(MPI_Waitall(requests, exchange_of(buckets, buckets->finished), MPI_STATUSES_IGNORE));
        GIDD_TRY(finish_bucket(buckets));
    }
    GIDD_TRY_MPI(MPI_Waitall((int)plan->count, buckets->gathers, MPI_STATUSES_IGNORE));
    buckets->posted = buckets->finished = 0;
    for (int64_t i = 0; i < plan->count; i++) {
        const gidd_bucket_range *range = &plan->ranges[i];
        int whole = buckets->args.mode == GIDD_BUCKET_WHOLE;
        int64_t at = range->at + (whole ? 0 : buckets->comm->rank * range->piece);
        GIDD_TRY(deliver(buckets, buckets->args.gradients, sizeof(float), at, whole ? range->piece * plan->ranks : range->piece));
    }
    return GIDD_OK;
}

static gidd_status gather(void *state, void *values, size_t element_bytes)
{
    mpi_buckets *buckets = state;
    const gidd_bucket_plan *plan = buckets->plan;
    char *memory = buckets->host != NULL ? buckets->host : values;
    for (int64_t i = 0; i < plan->count; i++) {
        const gidd_bucket_range *range = &plan->ranges[i];
        GIDD_TRY(fetch(buckets, values, element_bytes, range->at + buckets->comm->rank * range->piece, range->piece));
        GIDD_TRY_MPI(MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, memory + (size_t)range->at * element_bytes,
                                    (int)range->piece, element_bytes == 2 ? MPI_UINT16_T : MPI_FLOAT,
                                    buckets->comm->mpi, &buckets->gathers[i]));
    }
    GIDD_TRY_MPI(MPI_Waitall((int)plan->count, buckets->gathers, MPI_STATUSES_IGNORE));
    return deliver(buckets, values, element_bytes, 0, plan->elements);
}

static gidd_status merge(void *state, void *words, int64_t count)
{
    enum { AT_ONCE = 1 << 28 };
    mpi_buckets *buckets = state;
    for (int64_t at = 0; at < count; at += AT_ONCE) {
        int64_t some = count - at < AT_ONCE ? count - at : AT_ONCE;
        some = buckets->host != NULL && some > buckets->plan->elements ? buckets->plan->elements : some;
        uint32_t *part = (uint32_t *)words + at, *memory = buckets->host != NULL ? (uint32_t *)(void *)buckets->host : part;
        GIDD_TRY(fetch(buckets, part, sizeof *part, 0, some));
        GIDD_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, memory, (int)some, MPI_UINT32_T, MPI_BOR, buckets->comm->mpi));
        GIDD_TRY(deliver(buckets, part, sizeof *part, 0, some));
    }
    return GIDD_OK;
}

const gidd_bucket_backend gidd_bucket_mpi = {
    .name = "mpi reduce-scatter, all-gather",
    .prepare = prepare,
    .connect = connect_ranks,
    .destroy = destroy,
    .post = post,
    .poll = poll,
    .wait_all = wait_all,
    .gather = gather,
    .merge = merge,
};
