/* SPDX-License-Identifier: Apache-2.0
 *
 * iofault's parts among themselves:
 *
 *   iofault.c         the one state: what is to fail, when, and whether an operation is the one
 *   iofault_record.c  the open files that are watched, and the record of what was done to them
 *   iofault_data.c    the C library's calls on data in this process: read, write, sync, length
 *   iofault_names.c   and on names: open and close, rename, unlink, mkdir
 *
 * A call asks iofault_strike between iofault_enter and iofault_leave, does the system's own work (never
 * by the C library, which would come back here), notes it, and reports it.
 */
#ifndef GIDD_TESTS_IOFAULT_PARTS_H
#define GIDD_TESTS_IOFAULT_PARTS_H

#include "iofault.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OP_OPEN, OP_READ, OP_WRITE, OP_FSYNC, OP_FTRUNCATE, OP_FALLOCATE, OP_CLOSE, OP_RENAME, OP_UNLINK, OP_MKDIR, OP_RMDIR, OPS };
enum { ERROR_SHORT = -1, ERROR_LATE = -2, ERROR_KILL = -3, ERROR_SPOIL = -4, ERROR_SLOW = -5 };
enum { PATH_BYTES = 4608 };

// Not for the program that the shim stands in.
#pragma GCC visibility push(hidden)

/* One operation at a time; while a record is kept, of all processes. */
void iofault_enter(void);
void iofault_leave(void);

/* Counts an operation. 0: it goes on; else the errno to report, or one of ERROR_*. */
int iofault_strike(int op, const char *path);

/* Whether `path` is one that may fail. */
int iofault_is_target(const char *path);

/* ---- watched files, and the record; under the mutex ------------------------------------------- */

/* The absolute path of `name` below `folder` (an open directory, or AT_FDCWD). */
void iofault_resolve(int folder, const char *name, char path[PATH_BYTES]);

void iofault_remember(int fd, const char *path);
void iofault_forget(int fd);
/* "" and 0: not watched. */
const char *iofault_path_of(int fd);
int64_t iofault_handle_of(int fd);

void iofault_note(uint32_t kind, const char *path, const char *other, iofault_record r, const void *data);

/* "PREFIX" and the file; NULL: no record any more. 0 or -1. */
int iofault_record_open(const char *prefix, const char *log);
void iofault_record_lock(void);
void iofault_record_unlock(void);

#pragma GCC visibility pop

static inline int iofault_begins(const char *path, const char *prefix)
{
    return prefix[0] != '\0' && strncmp(path, prefix, strlen(prefix)) == 0;
}

static inline long iofault_refuse(int error)
{
    errno = error;
    return -1;
}

/* What the caller is told: `result` of the operation that was done, unless it was to be reported failed. */
static inline long iofault_report(int fault, long result)
{
    return fault == ERROR_LATE && result >= 0 ? iofault_refuse(EIO) : result;
}

#endif
