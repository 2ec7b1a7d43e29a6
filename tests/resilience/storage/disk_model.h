/* SPDX-License-Identifier: Apache-2.0
 *
 * A disk after power loss: from a record of file operations (iofault.h) to one of the states that a
 * file system may be found in when the power went in the middle of it.
 *
 * What was synced is there. Of the rest anything may be lost: a directory's changes since its last
 * sync, a file's writes and lengths since its own, a write's sectors of 512 bytes one by one. A sync
 * covers what had happened to that file or directory before it was called, nothing else; syncing a
 * file says nothing about its name. (Real file systems promise more; the program is not to need it.)
 */
#ifndef GIDD_TESTS_DISK_MODEL_H
#define GIDD_TESTS_DISK_MODEL_H

#include <stddef.h>
#include <stdint.h>

typedef struct disk_model disk_model;

/* How the unsynced rest is treated. */
typedef enum disk_policy {
    DISK_NOTHING,    /* all of it is lost                                                   */
    DISK_EVERYTHING, /* none: a crash of the program alone                                  */
    DISK_PREFIXES,   /* of each directory and file a prefix of its changes                  */
    DISK_ANY,        /* each change on its own: reordered                                   */
    DISK_TORN,       /* names as DISK_PREFIXES, each sector of a write on its own           */
    DISK_JOURNAL,    /* names and lengths: one prefix of all; data as they like             */
    DISK_POLICIES,
} disk_policy;

/* Reads a record whose paths lie below `root`; NULL: unreadable, or it makes no sense. */
disk_model *disk_load(const char *log, const char *root);
void disk_free(disk_model *disk); /* NULL-safe */

/* Operations in it, marks included. */
int64_t disk_operations(const disk_model *disk);

/* The step of the last mark "`word` STEP" among the first `count` operations; 0: none. */
int64_t disk_mark(const disk_model *disk, int64_t count, const char *word);

/* Builds the state after `count` operations in the folder `to` (which is `root` then); every choice
 * follows from `seed`. Files called `skip` are left out. 0, or -1. */
int disk_build(const disk_model *disk, int64_t count, disk_policy policy, uint64_t seed, const char *to,
               const char *skip);

#endif
