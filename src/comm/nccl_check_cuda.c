/* SPDX-License-Identifier: Apache-2.0
 *
 * nccl_api.h against NCCL's own header. Nothing here runs.
 */
#include "comm/nccl_api.h"

#include <nccl.h>

_Static_assert(sizeof(ncclUniqueId) == sizeof(gidd_nccl_id), "a communicator's id");
_Static_assert((int)ncclSuccess == GIDD_NCCL_SUCCESS && (int)ncclInProgress == GIDD_NCCL_IN_PROGRESS, "results");
_Static_assert((int)ncclUint32 == GIDD_NCCL_UINT32 && (int)ncclFloat32 == GIDD_NCCL_FLOAT32 &&
                   (int)ncclBfloat16 == GIDD_NCCL_BFLOAT16 && (int)ncclSum == GIDD_NCCL_SUM,
               "types and operations");

/* The arguments are those that nccl_api.h passes. */
#define CHECK(function, type)                                                                      \
    _Static_assert(__builtin_types_compatible_p(__typeof__(&function), type), #function)
CHECK(ncclReduceScatter,
      ncclResult_t (*)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t, cudaStream_t));
CHECK(ncclAllReduce,
      ncclResult_t (*)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t, cudaStream_t));
CHECK(ncclAllGather, ncclResult_t (*)(const void *, void *, size_t, ncclDataType_t, ncclComm_t, cudaStream_t));
CHECK(ncclCommInitRank, ncclResult_t (*)(ncclComm_t *, int, ncclUniqueId, int));
CHECK(ncclCommGetAsyncError, ncclResult_t (*)(ncclComm_t, ncclResult_t *));
CHECK(ncclCommAbort, ncclResult_t (*)(ncclComm_t));
CHECK(ncclCommDestroy, ncclResult_t (*)(ncclComm_t));
CHECK(ncclGetUniqueId, ncclResult_t (*)(ncclUniqueId *));
_Static_assert(sizeof(ncclDataType_t) == sizeof(int) && sizeof(ncclRedOp_t) == sizeof(int) && sizeof(ncclResult_t) == sizeof(int),
               "enumerations are ints");
