/* SPDX-License-Identifier: Apache-2.0
 *
 * iofault: makes chosen file operations of a process fail, or writes down all of them.
 *
 * It stands between the program and the C library: preloaded (LD_PRELOAD=libiofault.so, for the real
 * programs, steered by the environment), or linked into a test, which then calls the functions
 * below. It sees the calls of MPI-IO (ROMIO) as well, and everything that goes through a file
 * descriptor; not what stdio does inside the C library.
 *
 *     IOFAULT=path=PREFIX,op=OP[+OP...],k=K,error=E[,forever][,rank=R]
 *     IOFAULT_LOG=FILE     IOFAULT_RECORD=PREFIX,FILE
 *
 * Operations whose path begins with PREFIX and whose kind is listed are counted; the K-th fails
 * (with `forever` every one from the K-th on). `rank`: only where OMPI_COMM_WORLD_RANK is R.
 *
 *   OP  open read write fsync ftruncate fallocate close rename unlink mkdir rmdir; any: all of them
 *       (pread, pwritev, fdatasync, openat ... count as what they are variants of)
 *   E   EIO ENOSPC EINTR EDQUOT EACCES ...: not done, and reported so (close: done all the same)
 *       short  write, read: half is done      late: done, and then EIO reported
 *       kill   SIGKILL instead of the operation
 *       spoil  write: one bit goes wrong, and nobody is told      slow  fsync: a second later
 *
 * Each strike is written as one line to IOFAULT_LOG (none set: not at all): "rank op path error".
 */
#ifndef GIDD_TESTS_IOFAULT_H
#define GIDD_TESTS_IOFAULT_H

#include <stdint.h>

/* As IOFAULT; NULL: nothing fails any more. 0, or -1: not understood. */
int iofault_arm(const char *spec);

/* Operations counted, and of these made to fail, since iofault_arm. */
long iofault_counted(void);
long iofault_struck(void);

/* Path and operation of the last strike: "write /tmp/x"; "" if there was none. */
const char *iofault_last(void);

/* ---- the record ------------------------------------------------------------------------------- */

enum iofault_kind {
    IOFAULT_OPEN = 1, /* size: flags of open(2); handle: new */
    IOFAULT_WRITE,    /* offset, data                         */
    IOFAULT_SYNC,     /* logged before and after: size 0, 1    */
    IOFAULT_TRUNCATE, /* size: the new length; fallocate too    */
    IOFAULT_CLOSE,
    IOFAULT_RENAME, /* path -> other */
    IOFAULT_UNLINK,
    IOFAULT_MKDIR,
    IOFAULT_RMDIR,
    IOFAULT_MARK, /* path: a text of the test's own */
};

/* One operation that succeeded; followed by path, other and data without NULs. */
typedef struct iofault_record {
    uint32_t kind;
    uint32_t path_bytes, other_bytes, data_bytes;
    int64_t handle; /* of the open file: unique over all processes; 0: none */
    int64_t offset, size;
} iofault_record;

/* Appends every operation below `prefix` to the file `log`, from now on; NULL: no more. */
int iofault_start_record(const char *prefix, const char *log);

/* Writes a mark into the record. */
void iofault_mark(const char *text);

#endif
