/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-checkpoint verify and prune: which checkpoints are whole, and which may go.
 */
#ifndef GIDD_TOOLS_CHECKPOINT_KEEP_H
#define GIDD_TOOLS_CHECKPOINT_KEEP_H

#include "comm/comm.h"
#include "io/checkpoint.h"

typedef struct gidd_keep_args {
    const char *path; /* a step or run directory; prune: a run directory */
    int threads;      /* that read, on each rank; >= 1 */
    int64_t keep_last, keep_every; /* prune; see gidd_checkpoint_writer_args */
    int dry_run;                   /* prune: say what would go, and leave it */
} gidd_keep_args;

/* Reads every byte of a checkpoint, or of all with a final name in a run directory, ranks and threads
 * sharing the blocks; rank 0 prints a line for each, and one for each damaged block: its place, its
 * tensors and the rank that found it. GIDD_ERR_CORRUPT: there was damage. Collective. */
gidd_status gidd_keep_verify(const gidd_keep_args *args, gidd_comm *comm);

/* Deletes what the rules do not keep, and unfinished ones, printing each. Before anything goes, one of
 * those that stay is proven whole; if none of them is, the newest whole one of the others stays too;
 * if there is none at all, nothing is deleted: GIDD_ERR_CORRUPT. Holds the run lock (not with
 * dry_run). Local. */
gidd_status gidd_keep_prune(const gidd_keep_args *args);

#endif
