/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/shard_folder.h"

#include "io/shard_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// Whether the lock file that was opened still is the one that others would open.
static int is_current(int fd, const char *path)
{
    struct stat opened, named;
    return fstat(fd, &opened) == 0 && stat(path, &named) == 0 && opened.st_ino == named.st_ino &&
           opened.st_dev == named.st_dev;
}

// Open-file-description lock: it goes with the process, so a killed job leaves nothing behind.
static gidd_status lock_file(const char *folder, const char *path, int *lock_p)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (lock < 0) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot write to %s: %s", folder, strerror(errno));
    }
    // ENOLCK, EINVAL: a file system without locks; nothing better can be had there.
    int held = fcntl(lock, F_OFD_SETLK, &whole) != 0 && (errno == EAGAIN || errno == EACCES);
    if (held || !is_current(lock, path)) { // or its owner removed it as we opened it
        (void)close(lock);
        return gidd_fail(GIDD_ERR_OUTPUT, "another shard job is writing to %s", folder);
    }
    *lock_p = lock;
    return GIDD_OK;
}

static gidd_status take_lock(const char *folder, int *lock_p)
{
    char *path = gidd_path_join(folder, "build.lock");
    if (path == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the lock of %s", folder);
    }
    gidd_status status = lock_file(folder, path, lock_p);
    free(path);
    return status;
}

void gidd_shard_folder_release(const char *folder, int lock)
{
    if (lock >= 0) {
        char *path = gidd_path_join(folder, "build.lock");
        if (path != NULL) {
            (void)unlink(path); // under the lock: nobody else can hold this file
        }
        free(path);
        (void)close(lock);
    }
}

static int is_leftover(const char *name, int64_t shard_count)
{
    size_t length = strlen(name);
    const char *digits = name + strlen("shard-");
    char *end = NULL;
    if (strncmp(name, "shard-", strlen("shard-")) != 0) {
        return strcmp(name, "index.json.tmp") == 0;
    }
    if (length > 4 && strcmp(name + length - 4, ".tmp") == 0) {
        return 1;
    }
    long long shard = strtoll(digits, &end, 10);
    return end != digits && (strcmp(end, ".h5") == 0 || strcmp(end, ".json") == 0) &&
           shard >= shard_count;
}

// Removes temporary files, and shards and records numbered `shard_count` or more.
static gidd_status sweep_folder(const char *folder, int64_t shard_count)
{
    gidd_status status = GIDD_OK;
    DIR *dir = opendir(folder);
    if (dir == NULL) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot list %s: %s", folder, strerror(errno));
    }
    for (struct dirent *entry; status == GIDD_OK && (entry = readdir(dir)) != NULL;) {
        if (is_leftover(entry->d_name, shard_count) &&
            unlinkat(dirfd(dir), entry->d_name, 0) != 0 && errno != ENOENT) {
            status = gidd_fail(GIDD_ERR_IO, "cannot remove %s/%s: %s", folder, entry->d_name,
                               strerror(errno));
        }
    }
    (void)closedir(dir);
    return status;
}

gidd_status gidd_shard_folder_sweep(const char *folder, int64_t shard_count)
{
    char *done = gidd_path_join(folder, "done");
    if (done == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a path");
    }
    gidd_status status = sweep_folder(folder, shard_count);
    if (status == GIDD_OK) {
        status = sweep_folder(done, shard_count);
    }
    free(done);
    return status;
}

gidd_status gidd_shard_folder_take(const char *folder, int *lock_p)
{
    char *done = gidd_path_join(folder, "done");
    if (done == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a path");
    }
    gidd_status status = gidd_folder_make(done);
    free(done);
    GIDD_TRY(status);
    GIDD_TRY(take_lock(folder, lock_p));
    return gidd_shard_folder_sweep(folder, INT64_MAX);
}

gidd_status gidd_shard_folder_check(const char *folder)
{
    char *done = gidd_path_join(folder, "done");
    int seen = done != NULL && access(done, W_OK) == 0;
    free(done);
    return seen ? GIDD_OK
                : gidd_fail(GIDD_ERR_MISSING,
                            "%s is not there for this rank: all ranks need one file system",
                            folder);
}
