/* SPDX-License-Identifier: Apache-2.0
 *
 * What the storage tests share: a run directory on fast storage with a lock, a writer of the small
 * test state on all ranks, and the question that all of them ask: which step does a start find, and
 * is it whole?
 */
#ifndef GIDD_TESTS_STORAGE_FIXTURE_H
#define GIDD_TESTS_STORAGE_FIXTURE_H

#ifndef STATE_LARGE
#define STATE_SMALL
#endif
#include "mpi/checkpoint_state.h"
#include "support/mpi_test.h"

typedef struct storage {
    state state;
    char run_dir[128];
    gidd_run_lock *lock; /* rank 0 */
    gidd_checkpoint_writer *writer;
    gidd_checkpoint_extent extents[STATE_EXTENTS_MAX];
    int rank, size;
    gidd_comm *comm;
    int pieces; /* hold the state in pieces, as ZeRO-1 does; 0: whole */
} storage;

/* A fresh run directory and writer; close removes the directory. Collective. */
gidd_status storage_open(storage *s, gidd_comm *comm, int pieces);
void storage_close(storage *s);

/* The same in a directory of the caller's, made like a worker makes it, and left. Collective. */
gidd_status storage_open_at(storage *s, gidd_comm *comm, const char *run_dir, int pieces);
void storage_release(storage *s);

/* Writes `step` to the end; the writer's status. Collective. */
gidd_status storage_write(storage *s, int64_t step);

/* What a start finds: its step in *step_p (0: nothing). GIDD_ERR_ARG: a number in it is wrong.
 * Collective. */
gidd_status storage_restore(storage *s, int64_t *step_p);

/* Whether everything with a final name is whole. GIDD_ERR_CORRUPT names the first that is not. Rank 0
 * looks. Collective. */
gidd_status storage_verify_all(storage *s);

/* Entries of a kind in the run directory, rank 0's count everywhere. Collective. */
int64_t storage_count(storage *s, gidd_checkpoint_kind kind);

/* Removes a folder with everything in it. Local. */
void storage_remove(const char *path);

/* A folder for very many writes: memory if there is room, else TMPDIR or /tmp. Local. */
const char *storage_place(void);

/* The test's seeded choice: a number that depends on nothing but (GIDD_TEST_SEED, case). Local. */
uint64_t storage_random(uint64_t number);

#endif
