/* SPDX-License-Identifier: Apache-2.0
 *
 * Private to src/comm: what a communicator is, and MPI's return codes as statuses.
 */
#ifndef GIDD_COMM_COMM_MPI_H
#define GIDD_COMM_COMM_MPI_H

#include "comm/comm.h"

#include <mpi.h>

struct gidd_comm {
    MPI_Comm mpi;
    int rank;
    int size;
};

/* Records MPI error `code` of `call` as GIDD_ERR_COMM, or returns GIDD_OK for MPI_SUCCESS. Local.
 */
gidd_status gidd_comm_check_at(int code, const char *call, const char *file, int line,
                               const char *func);

#define GIDD_MPI(call) gidd_comm_check_at((call), #call, __FILE__, __LINE__, __func__)
#define GIDD_TRY_MPI(call) GIDD_TRY(GIDD_MPI(call))

/* Wraps `mpi`, taking it over also on failure; its errors return from then on. Local. */
gidd_status gidd_comm_adopt(MPI_Comm mpi, gidd_comm **out_p);

#endif
