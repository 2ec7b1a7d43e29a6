/* SPDX-License-Identifier: Apache-2.0
 *
 * The part of NCCL that is used, as its documented interface has it, loaded when a communicator is wanted: programs
 * start on machines without it. A build with CUDA compares this with NCCL's own header (nccl_check_cuda.c).
 * Private to src/comm.
 */
#ifndef GIDD_COMM_NCCL_API_H
#define GIDD_COMM_NCCL_API_H

#include "base/status.h"

#include <stddef.h>

enum { GIDD_NCCL_ID_BYTES = 128, GIDD_NCCL_SUCCESS = 0, GIDD_NCCL_IN_PROGRESS = 7 };
enum { GIDD_NCCL_UINT32 = 3, GIDD_NCCL_FLOAT32 = 7, GIDD_NCCL_BFLOAT16 = 9 }; /* types */
enum { GIDD_NCCL_SUM = 0 };

typedef struct gidd_nccl_id {
    char internal[GIDD_NCCL_ID_BYTES];
} gidd_nccl_id;

/* X(member, function of NCCL, arguments): all return ncclResult_t, an int. Communicators and streams are pointers. */
#define GIDD_NCCL_FUNCTIONS(X)                                                                     \
    X(get_version, ncclGetVersion, (int *version))                                                 \
    X(get_unique_id, ncclGetUniqueId, (gidd_nccl_id * id))                                         \
    X(comm_init_rank, ncclCommInitRank, (void **comm, int ranks, gidd_nccl_id id, int rank))       \
    X(comm_destroy, ncclCommDestroy, (void *comm))                                                 \
    X(comm_abort, ncclCommAbort, (void *comm))                                                     \
    X(comm_get_async_error, ncclCommGetAsyncError, (void *comm, int *error))                       \
    X(reduce_scatter, ncclReduceScatter,                                                           \
      (const void *send, void *receive, size_t count, int type, int op, void *comm, void *stream)) \
    X(all_gather, ncclAllGather,                                                                   \
      (const void *send, void *receive, size_t count, int type, void *comm, void *stream))         \
    X(all_reduce, ncclAllReduce,                                                                   \
      (const void *send, void *receive, size_t count, int type, int op, void *comm, void *stream))

typedef struct gidd_nccl {
    void *library;
    const char *(*get_error_string)(int result);
#define GIDD_NCCL_MEMBER(member, function, arguments) int(*member) arguments;
    GIDD_NCCL_FUNCTIONS(GIDD_NCCL_MEMBER)
#undef GIDD_NCCL_MEMBER
} gidd_nccl;

/* Loads libnccl.so.2. GIDD_ERR_DEVICE says what is missing. The library stays loaded. Local. */
gidd_status gidd_nccl_load(gidd_nccl *nccl);

#endif
