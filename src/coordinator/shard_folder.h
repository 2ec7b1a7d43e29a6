/* SPDX-License-Identifier: Apache-2.0
 *
 * The folder that a shard job writes: DIR, DIR/done, and DIR/build.lock while it does.
 */
#ifndef GIDD_COORDINATOR_SHARD_FOLDER_H
#define GIDD_COORDINATOR_SHARD_FOLDER_H

#include "base/status.h"

#include <stdint.h>

/* Makes the folder and DIR/done, takes the lock, and removes temporary files of a job that was killed. *lock_p, a
 * descriptor, is set as soon as the lock is held (-1 before), so release it also after a failure. Errors: OUTPUT
 * (cannot be made, or another job holds it), IO, NOMEM. Local. */
gidd_status gidd_shard_folder_take(const char *folder, int *lock_p);

/* Removes the lock; a lock of -1 is ignored. Local. */
void gidd_shard_folder_release(const char *folder, int lock);

/* Whether this rank sees the folder that another made. Errors: MISSING. Local. */
gidd_status gidd_shard_folder_check(const char *folder);

/* Removes temporary files, and shards and records numbered `shard_count` or more. Errors: OUTPUT, IO, NOMEM. Local. */
gidd_status gidd_shard_folder_sweep(const char *folder, int64_t shard_count);

#endif
