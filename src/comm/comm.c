/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/comm_mpi.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

// One MPI call moves at most this much; longer buffers go in several.
#define CHUNK_BYTES ((size_t)1 << 30)

_Static_assert(sizeof(MPI_Request) <= sizeof(((gidd_comm_request *)0)->raw), "request fits");

gidd_status gidd_comm_check_at(int code, const char *call, const char *file, int line,
                               const char *func)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (code == MPI_SUCCESS) {
        return GIDD_OK;
    }
    (void)MPI_Error_string(code, text, &length);
    int name = (int)strcspn(call, "("); // the call's name without its arguments
    return gidd_fail_at(GIDD_ERR_COMM, file, line, func, "%.*s: %s", name, call, text);
}

// Of the process, as its communicators are: a watchdog tells it without knowing which of them is stuck.
static _Atomic int64_t collectives;

void gidd_comm_count_collective(void)
{
    atomic_fetch_add_explicit(&collectives, 1, memory_order_relaxed);
}

int64_t gidd_comm_collectives(void)
{
    return atomic_load(&collectives);
}

gidd_status gidd_comm_adopt(MPI_Comm mpi, gidd_comm **out_p)
{
    gidd_comm *comm = calloc(1, sizeof *comm);
    if (comm == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for a communicator");
    }
    comm->mpi = mpi;
    gidd_status status = GIDD_OK;
    GIDD_TRY_GOTO(GIDD_MPI(MPI_Comm_set_errhandler(mpi, MPI_ERRORS_RETURN)));
    GIDD_TRY_GOTO(GIDD_MPI(MPI_Comm_rank(mpi, &comm->rank)));
    GIDD_TRY_GOTO(GIDD_MPI(MPI_Comm_size(mpi, &comm->size)));
    *out_p = comm;
    return GIDD_OK;
out:
    gidd_comm_destroy(comm);
    return status;
}

gidd_status gidd_comm_dup(const gidd_comm *comm, gidd_comm **out_p)
{
    MPI_Comm copy = MPI_COMM_NULL;
    GIDD_TRY_MPI(MPI_Comm_dup(comm->mpi, &copy));
    return gidd_comm_adopt(copy, out_p);
}

void gidd_comm_destroy(gidd_comm *comm)
{
    if (comm != NULL) {
        (void)MPI_Comm_free(&comm->mpi); // the job ends soon after; nobody could act on a failure
        free(comm);
    }
}

int gidd_comm_rank(const gidd_comm *comm)
{
    return comm->rank;
}

int gidd_comm_size(const gidd_comm *comm)
{
    return comm->size;
}

// The one narrowing to MPI's int.
static gidd_status narrow(size_t bytes, int *count_p)
{
    if (bytes > (size_t)INT_MAX) {
        return gidd_fail(GIDD_ERR_ARG, "a message of %zu bytes is above the limit of %d", bytes,
                         INT_MAX);
    }
    *count_p = (int)bytes;
    return GIDD_OK;
}

static size_t chunk_of(size_t rest)
{
    return rest < CHUNK_BYTES ? rest : CHUNK_BYTES;
}

gidd_status gidd_comm_barrier(gidd_comm *comm)
{
    gidd_comm_count_collective();
    return GIDD_MPI(MPI_Barrier(comm->mpi));
}

gidd_status gidd_comm_bcast(gidd_comm *comm, int root, void *data, size_t bytes)
{
    gidd_comm_count_collective();
    for (size_t done = 0; done < bytes; done += chunk_of(bytes - done)) {
        GIDD_TRY_MPI(
            MPI_Bcast((char *)data + done, (int)chunk_of(bytes - done), MPI_BYTE, root, comm->mpi));
    }
    return GIDD_OK;
}

gidd_status gidd_comm_gather(gidd_comm *comm, int root, const void *mine, size_t bytes, void *all)
{
    gidd_comm_count_collective();
    int count = 0;
    GIDD_TRY(narrow(bytes, &count));
    return GIDD_MPI(MPI_Gather(mine, count, MPI_BYTE, all, count, MPI_BYTE, root, comm->mpi));
}

gidd_status gidd_comm_allgather(gidd_comm *comm, const void *mine, size_t bytes, void *all)
{
    gidd_comm_count_collective();
    int count = 0;
    GIDD_TRY(narrow(bytes, &count));
    return GIDD_MPI(MPI_Allgather(mine, count, MPI_BYTE, all, count, MPI_BYTE, comm->mpi));
}

// What each rank says before a gatherv, so that all refuse together.
typedef struct gather_offer {
    int64_t bytes;    // it will send
    int64_t capacity; // it could take; root's counts
} gather_offer;

static gidd_status gather_pieces(gidd_comm *comm, int root, const void *mine,
                                 const gather_offer *offers, void *all, size_t *sizes)
{
    gidd_status status = GIDD_OK;
    int *counts = calloc((size_t)comm->size, sizeof *counts);
    int *starts = calloc((size_t)comm->size, sizeof *starts);
    if (counts == NULL || starts == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "out of memory for a gather of %d ranks", comm->size);
    }
    GIDD_TRY_GOTO(gidd_comm_agree(comm, status)); // nobody waits for a root that cannot receive
    for (int rank = 0, start = 0; rank < comm->size; rank++) {
        counts[rank] = (int)offers[rank].bytes;
        starts[rank] = start;
        start += counts[rank];
        if (comm->rank == root && sizes != NULL) {
            sizes[rank] = (size_t)offers[rank].bytes;
        }
    }
    status = GIDD_MPI(MPI_Gatherv(mine, counts[comm->rank], MPI_BYTE, all, counts, starts, MPI_BYTE,
                                  root, comm->mpi));
out:
    free(counts);
    free(starts);
    return status;
}

gidd_status gidd_comm_gatherv(gidd_comm *comm, int root, const void *mine, size_t bytes, void *all,
                              size_t capacity, size_t *sizes)
{
    gidd_comm_count_collective();
    gather_offer own = {.bytes = (int64_t)bytes, .capacity = (int64_t)capacity};
    gather_offer *offers = calloc((size_t)comm->size, sizeof *offers);
    int64_t sum = 0;
    gidd_status status = GIDD_OK;
    if (offers == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "out of memory for a gather of %d sizes", comm->size);
    }
    GIDD_TRY_GOTO(gidd_comm_agree(comm, status));
    GIDD_TRY_GOTO(gidd_comm_allgather(comm, &own, sizeof own, offers));
    for (int rank = 0; rank < comm->size; rank++) {
        sum += offers[rank].bytes;
    }
    if (sum > offers[root].capacity || sum > INT_MAX) {
        status = gidd_fail(GIDD_ERR_ARG, "%lld bytes to gather, room for %lld", (long long)sum,
                           (long long)offers[root].capacity);
        goto out;
    }
    status = gather_pieces(comm, root, mine, offers, all, sizes);
out:
    free(offers);
    return status;
}

static MPI_Op mpi_op(gidd_comm_op op)
{
    return op == GIDD_COMM_SUM ? MPI_SUM : op == GIDD_COMM_MIN ? MPI_MIN : MPI_MAX;
}

static gidd_status allreduce(gidd_comm *comm, void *values, int64_t count, MPI_Datatype type,
                             gidd_comm_op op)
{
    gidd_comm_count_collective();
    GIDD_ASSERT(count >= 0 && count <= INT_MAX);
    return GIDD_MPI(MPI_Allreduce(MPI_IN_PLACE, values, (int)count, type, mpi_op(op), comm->mpi));
}

gidd_status gidd_comm_allreduce_double(gidd_comm *comm, double *values, int64_t count,
                                       gidd_comm_op op)
{
    return allreduce(comm, values, count, MPI_DOUBLE, op);
}

gidd_status gidd_comm_allreduce_int64(gidd_comm *comm, int64_t *values, int64_t count,
                                      gidd_comm_op op)
{
    return allreduce(comm, values, count, MPI_INT64_T, op);
}

gidd_status gidd_comm_send(gidd_comm *comm, int destination, int tag, const void *data,
                           size_t bytes)
{
    size_t done = 0;
    do { // once also for an empty message
        size_t chunk = chunk_of(bytes - done);
        GIDD_TRY_MPI(
            MPI_Send((const char *)data + done, (int)chunk, MPI_BYTE, destination, tag, comm->mpi));
        done += chunk;
    } while (done < bytes);
    return GIDD_OK;
}

// One message of at most `capacity` bytes. A longer one is left alone until it is known to fit.
static gidd_status receive(gidd_comm *comm, int source, int tag, void *data, size_t capacity,
                           MPI_Status *mpi_status, int *count_p)
{
    MPI_Message message = MPI_MESSAGE_NULL;
    GIDD_TRY_MPI(MPI_Mprobe(source, tag, comm->mpi, &message, mpi_status));
    GIDD_TRY_MPI(MPI_Get_count(mpi_status, MPI_BYTE, count_p));
    if (*count_p == MPI_UNDEFINED || (size_t)*count_p > capacity) {
        return gidd_fail(GIDD_ERR_COMM, "rank %d sent %d bytes with tag %d, expected at most %zu",
                         mpi_status->MPI_SOURCE, *count_p, tag, capacity);
    }
    return GIDD_MPI(MPI_Mrecv(data, *count_p, MPI_BYTE, &message, MPI_STATUS_IGNORE));
}

gidd_status gidd_comm_recv(gidd_comm *comm, int source, int tag, void *data, size_t bytes)
{
    size_t done = 0;
    do {
        size_t chunk = chunk_of(bytes - done);
        MPI_Status mpi_status;
        int count = 0;
        GIDD_TRY(receive(comm, source, tag, (char *)data + done, chunk, &mpi_status, &count));
        if ((size_t)count != chunk) {
            return gidd_fail(GIDD_ERR_COMM, "rank %d sent %d bytes with tag %d, expected %zu",
                             source, count, tag, chunk);
        }
        done += chunk;
    } while (done < bytes);
    return GIDD_OK;
}

gidd_status gidd_comm_probe_any(gidd_comm *comm, int tag, size_t *bytes_p, int *source_p)
{
    MPI_Status mpi_status;
    int count = 0;
    GIDD_TRY_MPI(MPI_Probe(MPI_ANY_SOURCE, tag, comm->mpi, &mpi_status));
    GIDD_TRY_MPI(MPI_Get_count(&mpi_status, MPI_BYTE, &count));
    *bytes_p = (size_t)count;
    *source_p = mpi_status.MPI_SOURCE;
    return GIDD_OK;
}

gidd_status gidd_comm_poll_any(gidd_comm *comm, int tag, int *source_p)
{
    MPI_Status mpi_status;
    int found = 0;
    GIDD_TRY_MPI(MPI_Iprobe(MPI_ANY_SOURCE, tag, comm->mpi, &found, &mpi_status));
    *source_p = found ? mpi_status.MPI_SOURCE : -1;
    return GIDD_OK;
}

gidd_status gidd_comm_recv_any(gidd_comm *comm, int tag, void *data, size_t capacity,
                               size_t *bytes_p, int *source_p)
{
    MPI_Status mpi_status;
    int count = 0;
    GIDD_TRY(receive(comm, MPI_ANY_SOURCE, tag, data, capacity, &mpi_status, &count));
    *bytes_p = (size_t)count;
    *source_p = mpi_status.MPI_SOURCE;
    return GIDD_OK;
}

static void keep_request(gidd_comm_request *request, MPI_Request mpi)
{
    memcpy(request->raw, &mpi, sizeof mpi);
    request->active = 1;
}

gidd_status gidd_comm_igather(gidd_comm *comm, int root, const void *mine, size_t bytes, void *all,
                              gidd_comm_request *request)
{
    gidd_comm_count_collective();
    GIDD_ASSERT(!request->active);
    MPI_Request mpi = MPI_REQUEST_NULL;
    int count = 0;
    GIDD_TRY(narrow(bytes, &count));
    GIDD_TRY_MPI(MPI_Igather(mine, count, MPI_BYTE, all, count, MPI_BYTE, root, comm->mpi, &mpi));
    keep_request(request, mpi);
    return GIDD_OK;
}

gidd_status gidd_comm_ibcast(gidd_comm *comm, int root, void *data, size_t bytes,
                             gidd_comm_request *request)
{
    gidd_comm_count_collective();
    GIDD_ASSERT(!request->active);
    MPI_Request mpi = MPI_REQUEST_NULL;
    int count = 0;
    GIDD_TRY(narrow(bytes, &count));
    GIDD_TRY_MPI(MPI_Ibcast(data, count, MPI_BYTE, root, comm->mpi, &mpi));
    keep_request(request, mpi);
    return GIDD_OK;
}

gidd_status gidd_comm_test(gidd_comm_request *request, int *done_p)
{
    *done_p = 1;
    if (!request->active) {
        return GIDD_OK;
    }
    MPI_Request mpi;
    memcpy(&mpi, request->raw, sizeof mpi);
    GIDD_TRY_MPI(MPI_Test(&mpi, done_p, MPI_STATUS_IGNORE));
    memcpy(request->raw, &mpi, sizeof mpi);
    request->active = !*done_p;
    return GIDD_OK;
}

gidd_status gidd_comm_wait(gidd_comm_request *request)
{
    if (!request->active) {
        return GIDD_OK;
    }
    MPI_Request mpi;
    memcpy(&mpi, request->raw, sizeof mpi);
    request->active = 0;
    return GIDD_MPI(MPI_Wait(&mpi, MPI_STATUS_IGNORE));
}
