/* SPDX-License-Identifier: Apache-2.0
 *
 * The few file operations behind "nothing half-written under a final name": whole small files read
 * within a limit, and files made real by fsync, rename and fsync of their folder.
 */
#ifndef GIDD_IO_SHARD_FILES_H
#define GIDD_IO_SHARD_FILES_H

#include "base/status.h"

#include <stddef.h>

/* "folder/name" as a new string, which the caller frees; NULL when out of memory. Local. */
char *gidd_path_join(const char *folder, const char *name);

/* Reads a file of at most `limit` bytes; *bytes_p gets a NUL after its *size_p bytes; the caller
 * frees it. Errors: MISSING, CORRUPT (longer than the limit), IO, NOMEM. Local. */
gidd_status gidd_file_read(const char *path, size_t limit, char **bytes_p, size_t *size_p);

/* Writes a file, which may exist; not synced. Errors: OUTPUT (cannot be created), IO. Local. */
gidd_status gidd_file_write(const char *path, const void *bytes, size_t size);

/* Replaces `path` by `size` bytes: path.tmp written and synced, then gidd_file_commit.
 * Errors: OUTPUT (cannot be created), IO, NOMEM. On failure `path` is what it was. Local. */
gidd_status gidd_file_replace(const char *path, const void *bytes, size_t size);

/* As gidd_file_replace, but not synced: whole for every process, perhaps gone or torn after a power
 * loss. For what is only a hint. Local. */
gidd_status gidd_file_publish(const char *path, const void *bytes, size_t size);

/* Syncs the finished file `temporary`, renames it to `path` and syncs the folder. Errors: IO.
 * Local. */
gidd_status gidd_file_commit(const char *temporary, const char *path);

/* Removes `path`, which need not exist, and syncs its folder if it did. Errors: IO, NOMEM. Local.
 */
gidd_status gidd_file_remove(const char *path);

/* Makes the folder `path` with its parents, so that they last; it may exist. Errors: OUTPUT, IO,
 * NOMEM. Local. */
gidd_status gidd_folder_make(const char *path);

#endif
