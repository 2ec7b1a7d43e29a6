/* SPDX-License-Identifier: Apache-2.0
 *
 * Private to the checkpoint: names, renames and deletions in RUN/checkpoints. Whatever changes a
 * name checks the run lock first.
 */
#ifndef GIDD_IO_CHECKPOINT_DIR_H
#define GIDD_IO_CHECKPOINT_DIR_H

#include "io/checkpoint.h"

/* RUN/checkpoints, RUN/checkpoints/NAME, DIR/FILE ...: "first/second" in fresh memory, NULL when
 * out of it. Local. */
char *gidd_checkpoint_join(const char *first, const char *second);

/* The step and kind a name stands for. GIDD_ERR_ARG: not a checkpoint's name. Local. */
gidd_status gidd_checkpoint_parse_name(const char *name, gidd_checkpoint_entry *entry);

/* Creates `path` unless it is there. GIDD_ERR_OUTPUT. Local. */
gidd_status gidd_checkpoint_make_dir(const char *path);

/* Makes what happened to names in `path` last. Local. */
gidd_status gidd_checkpoint_sync_dir(const char *path);

/* Writes a new file and syncs it. Local. */
gidd_status gidd_checkpoint_write_file(const char *path, const char *text, size_t bytes);

/* Deletes what writers that died left behind. Local. */
gidd_status gidd_checkpoint_sweep(const char *run_dir, gidd_run_lock *lock);

/* Renames step-N to step-N.damaged-K, K the first free number. Local. */
gidd_status gidd_checkpoint_quarantine(const char *run_dir, gidd_run_lock *lock, const char *name);

#endif
