/* SPDX-License-Identifier: Apache-2.0
 *
 * What gidd-worker and gidd-coordinator have in common: the command line, then the life of a rank.
 */
#ifndef GIDD_WORKER_PROGRAM_H
#define GIDD_WORKER_PROGRAM_H

#include "comm/comm.h"

/* Parses, bootstraps, runs, reports; returns the process's exit code. Collective over the job. */
int gidd_program_main(int argc, char **argv, gidd_comm_role role);

#endif
