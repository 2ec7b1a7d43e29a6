/* SPDX-License-Identifier: Apache-2.0
 *
 * One rank's view of a file, over MPI-IO on this process alone: nothing here is collective, so a
 * writer thread may use it while the main thread communicates (needs
 * gidd_comm_set.thread_multiple). Several ranks may have the same file open and write disjoint
 * ranges. One thread of a process at a time opens or closes files.
 *
 * A write counts only when return code and byte count are both right; it is on disk only after
 * gidd_file_sync(), and proven only by reading it back. Failures are GIDD_ERR_IO (GIDD_ERR_MISSING
 * for opening what is not there, GIDD_ERR_OUTPUT for what cannot be created) and name path, offset,
 * and for writes the bytes wanted and the bytes free.
 */
#ifndef GIDD_COMM_FILE_H
#define GIDD_COMM_FILE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct gidd_file gidd_file; /* opaque */

/* Creates `path` or opens what another rank created, for reading and writing. `bytes` > 0: also
 * reserves that space where the file system can (running out is an error at once, but no
 * reservation is not) and makes the file exactly that long. One rank does so; the others pass 0.
 * Local. */
gidd_status gidd_file_create(const char *path, int64_t bytes, gidd_file **out_p);

/* Opens an existing file for reading. Local. */
gidd_status gidd_file_open(const char *path, gidd_file **out_p);

/* Any size and offset >= 0. Reading past the end is GIDD_ERR_CORRUPT: the file is shorter than its
 * description. Local. */
gidd_status gidd_file_write_at(gidd_file *file, int64_t offset, const void *data, size_t bytes);
gidd_status gidd_file_read_at(gidd_file *file, int64_t offset, void *data, size_t bytes);

/* Length in bytes. Local. */
gidd_status gidd_file_size(gidd_file *file, int64_t *bytes_p);

/* Pushes what this rank wrote to the device. Local. */
gidd_status gidd_file_sync(gidd_file *file);

/* Closes and sets *file_p to NULL, also on failure. Does not sync. NULL-safe. Local. */
gidd_status gidd_file_close(gidd_file **file_p);

#endif
