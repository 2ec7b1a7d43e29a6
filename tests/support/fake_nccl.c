/* SPDX-License-Identifier: Apache-2.0 */
#include "support/fake_nccl.h"

#include "comm/nccl_api.h"

#include <mpi.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { REDUCE_SCATTER, ALL_GATHER, ALL_REDUCE };
enum { INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };

typedef struct fake_comm {
    MPI_Comm mpi;
    int rank, size;
} fake_comm;

static int async_error, aborts, live;

void fake_nccl_set_async_error(int error)
{
    async_error = error;
}

int fake_nccl_aborts(void)
{
    return aborts;
}

int fake_nccl_live(void)
{
    return live;
}

#define DECLARE(member, function, arguments) int function arguments;
GIDD_NCCL_FUNCTIONS(DECLARE)
#undef DECLARE
const char *ncclGetErrorString(int result);

const char *ncclGetErrorString(int result)
{
    return result == 6 ? "remote process exited" : result == INVALID_USAGE ? "invalid usage" : "some error";
}

int ncclGetVersion(int *version)
{
    *version = 22809;
    return 0;
}

int ncclGetUniqueId(gidd_nccl_id *id)
{
    memset(id, 0x5a, sizeof *id);
    return 0;
}

int ncclCommInitRank(void **comm, int ranks, gidd_nccl_id id, int rank)
{
    fake_comm *fake = calloc(1, sizeof *fake);
    if (fake == NULL || id.internal[0] != 0x5a || id.internal[GIDD_NCCL_ID_BYTES - 1] != 0x5a) { // rank 0's has arrived
        free(fake);
        return INVALID_ARGUMENT;
    }
    (void)MPI_Comm_split(MPI_COMM_WORLD, 0, rank, &fake->mpi);
    (void)MPI_Comm_size(fake->mpi, &fake->size);
    fake->rank = rank;
    *comm = fake;
    live++;
    return fake->size == ranks ? 0 : INVALID_ARGUMENT;
}

int ncclCommDestroy(void *comm)
{
    fake_comm *fake = comm;
    (void)MPI_Comm_free(&fake->mpi);
    free(fake);
    live--;
    return 0;
}

int ncclCommAbort(void *comm)
{
    (void)comm;
    aborts++;
    return 0;
}

int ncclCommGetAsyncError(void *comm, int *error)
{
    (void)comm;
    *error = async_error;
    return 0;
}

static int issue(void *stream, int kind, const void *send, void *receive, size_t items, int type, void *comm)
{
    fake_nccl_stream *s = stream;
    if (!s->is_forked || s->count == FAKE_NCCL_MOST) {
        return INVALID_USAGE; // nothing says that the data are there
    }
    s->work[s->count].kind = kind;
    s->work[s->count].type = type;
    s->work[s->count].send = send;
    s->work[s->count].receive = receive;
    s->work[s->count].items = items;
    s->work[s->count++].comm = comm;
    return 0;
}

int ncclReduceScatter(const void *send, void *receive, size_t count, int type, int op, void *comm, void *stream)
{
    return type != GIDD_NCCL_FLOAT32 || op != GIDD_NCCL_SUM ? INVALID_ARGUMENT
                                                            : issue(stream, REDUCE_SCATTER, send, receive, count, type, comm);
}

int ncclAllGather(const void *send, void *receive, size_t count, int type, void *comm, void *stream)
{
    return issue(stream, ALL_GATHER, send, receive, count, type, comm);
}

int ncclAllReduce(const void *send, void *receive, size_t count, int type, int op, void *comm, void *stream)
{
    return type != GIDD_NCCL_UINT32 || op != GIDD_NCCL_SUM || send != receive
               ? INVALID_ARGUMENT
               : issue(stream, ALL_REDUCE, send, receive, count, type, comm);
}

/* In place: the own piece lies where it belongs in `send`. */
static void reduce_scatter(fake_comm *comm, const float *send, float *receive, int items)
{
    float *all = malloc((size_t)items * (size_t)comm->size * sizeof *all);
    (void)MPI_Allreduce(send, all, items * comm->size, MPI_FLOAT, MPI_SUM, comm->mpi);
    memcpy(receive, all + (size_t)comm->rank * (size_t)items, (size_t)items * sizeof *all);
    free(all);
}

int fake_nccl_run(fake_nccl_stream *stream)
{
    for (int i = 0; i < stream->count; i++) {
        fake_comm *comm = stream->work[i].comm;
        int items = (int)stream->work[i].items;
        MPI_Datatype type = stream->work[i].type == GIDD_NCCL_BFLOAT16 ? MPI_UINT16_T : MPI_FLOAT;
        switch (stream->work[i].kind) {
        case REDUCE_SCATTER:
            reduce_scatter(comm, stream->work[i].send, stream->work[i].receive, items);
            break;
        case ALL_GATHER:
            (void)MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, stream->work[i].receive, items, type, comm->mpi);
            break;
        default:
            (void)MPI_Allreduce(MPI_IN_PLACE, stream->work[i].receive, items, MPI_UINT32_T, MPI_SUM, comm->mpi);
        }
    }
    stream->count = 0;
    return 0;
}
