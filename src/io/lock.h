/* SPDX-License-Identifier: Apache-2.0
 *
 * The lock of a run directory: one job at a time writes there. RUN/run.lock names the holder (host,
 * process, job) and a random token; a thread of the holder rewrites it every 10 s. FORMAT.md, "Run
 * directory", has the bytes.
 *
 * A lock is stale, and is taken over, when its process is gone from this very host, when it belongs
 * to an earlier start of this very job, or when it was not rewritten for 60 s. Its age is the file
 * server's clock against a file just written there, so the hosts' clocks do not matter. A holder
 * that was taken for dead finds another token at its next check, and must touch nothing from then
 * on: check before every rename, truncation and deletion in the run directory.
 *
 * Held by the coordinator alone. Functions may be called from several threads.
 */
#ifndef GIDD_IO_LOCK_H
#define GIDD_IO_LOCK_H

#include "base/status.h"

#define GIDD_RUN_LOCK_TOKEN_SIZE 33 /* 32 digits and a NUL */

typedef struct gidd_run_lock gidd_run_lock; /* opaque */

typedef struct gidd_run_lock_args {
    const char *run_dir; /* exists; borrowed during the call                                  */
    int steal;           /* 1: take it from whoever holds it, alive or not (--steal-lock)     */
    double beat_s;       /* seconds between rewrites; 0: 10                                   */
    double stale_s;      /* age from which a silent lock counts as abandoned; 0: 60           */
    double settle_s;     /* wait after a takeover, for a rival that was about to; 0: 1        */
} gidd_run_lock_args;

/* Takes the lock and starts its thread. GIDD_ERR_OUTPUT when somebody holds it (the text names
 * host, process, job and age) or the file cannot be made. Local. */
gidd_status gidd_run_lock_acquire(const gidd_run_lock_args *args, gidd_run_lock **out_p);

/* Reads the lock again: GIDD_ERR_OUTPUT, naming the present holder, when the token is not ours any
 * more; GIDD_ERR_IO when it cannot be read. Local. */
gidd_status gidd_run_lock_check(gidd_run_lock *lock);

/* This holder's token: lower-case hexadecimal, new with each acquire. Local. */
const char *gidd_run_lock_token(const gidd_run_lock *lock);

/* Stops the thread and removes the file if it is still ours. NULL-safe. Local. */
void gidd_run_lock_release(gidd_run_lock *lock);

#endif
