/* SPDX-License-Identifier: Apache-2.0
 *
 * The main of a program that a test's script starts under mpirun, for one thing: its exit code is that
 * of the status, and the coordinator tells what went wrong.
 *
 *   int main(int argc, char **argv) { return mpi_program_main(argc, argv, run); }
 */
#ifndef GIDD_TESTS_MPI_PROGRAM_H
#define GIDD_TESTS_MPI_PROGRAM_H

#include "base/log.h"
#include "comm/comm.h"

static inline int mpi_program_main(int argc, char **argv,
                                   gidd_status (*run)(gidd_comm_set *set, int argc, char **argv))
{
    gidd_comm_set set;
    gidd_log_set_level(GIDD_LOG_ERROR);
    gidd_status status = gidd_comm_bootstrap(&argc, &argv, GIDD_COMM_TOOL, &set);
    if (status == GIDD_OK) {
        status = run(&set, argc, argv);
    }
    if (status != GIDD_OK && set.is_coordinator) {
        gidd_log_last_error();
    }
    gidd_comm_set_finalize(&set);
    return gidd_status_exit_code(status);
}

#endif
