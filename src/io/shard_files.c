/* SPDX-License-Identifier: Apache-2.0 */
#include "io/shard_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *gidd_path_join(const char *folder, const char *name)
{
    size_t length = strlen(folder);
    int slash = length > 0 && folder[length - 1] != '/';
    size_t size = length + strlen(name) + 2;
    char *path = malloc(size);
    if (path != NULL) {
        (void)snprintf(path, size, "%s%s%s", folder, slash ? "/" : "", name);
    }
    return path;
}

static gidd_status read_all(int fd, const char *path, char *bytes, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t got = read(fd, bytes + done, size - done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return gidd_fail(GIDD_ERR_IO, "cannot read %s: %s", path, strerror(errno));
        }
        if (got == 0) {
            return gidd_fail(GIDD_ERR_IO, "%s became shorter while it was read", path);
        }
        done += (size_t)got;
    }
    return GIDD_OK;
}

gidd_status gidd_file_read(const char *path, size_t limit, char **bytes_p, size_t *size_p)
{
    gidd_status status = GIDD_OK;
    char *bytes = NULL;
    struct stat facts;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return gidd_fail(errno == ENOENT ? GIDD_ERR_MISSING : GIDD_ERR_IO, "cannot open %s: %s",
                         path, strerror(errno));
    }
    if (fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode)) {
        status = gidd_fail(GIDD_ERR_IO, "%s is no regular file", path);
        goto out;
    }
    if ((unsigned long long)facts.st_size > limit) {
        status = gidd_fail(GIDD_ERR_CORRUPT, "%s has %lld bytes, more than the %zu allowed", path,
                           (long long)facts.st_size, limit);
        goto out;
    }
    bytes = malloc((size_t)facts.st_size + 1);
    if (bytes == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "no memory for the %lld bytes of %s",
                           (long long)facts.st_size, path);
        goto out;
    }
    GIDD_TRY_GOTO(read_all(fd, path, bytes, (size_t)facts.st_size));
    bytes[facts.st_size] = '\0';
    *bytes_p = bytes;
    *size_p = (size_t)facts.st_size;
    bytes = NULL;
out:
    free(bytes);
    (void)close(fd); // read-only: nothing to lose
    return status;
}

static gidd_status sync_folder_of(const char *path)
{
    gidd_status status = GIDD_OK;
    const char *slash = strrchr(path, '/');
    char *folder = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
    if (folder == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the folder of %s", path);
    }
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    // EINVAL: a file system that cannot sync folders; the rename is as durable as it can be there.
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL)) {
        status = gidd_fail(GIDD_ERR_IO, "cannot sync the folder of %s: %s", path, strerror(errno));
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    free(folder);
    return status;
}

static gidd_status sync_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return gidd_fail(GIDD_ERR_IO, "cannot open %s to sync it: %s", path, strerror(errno));
    }
    int failed = fsync(fd) != 0;
    int reason = errno;
    if (close(fd) != 0 && !failed) {
        failed = 1;
        reason = errno;
    }
    if (failed) {
        return gidd_fail(GIDD_ERR_IO, "cannot sync %s: %s", path, strerror(reason));
    }
    return GIDD_OK;
}

static gidd_status rename_file(const char *temporary, const char *path)
{
    if (rename(temporary, path) != 0) {
        return gidd_fail(GIDD_ERR_IO, "cannot rename %s to %s: %s", temporary, path,
                         strerror(errno));
    }
    return GIDD_OK;
}

gidd_status gidd_file_commit(const char *temporary, const char *path)
{
    GIDD_TRY(sync_file(temporary));
    GIDD_TRY(rename_file(temporary, path));
    return sync_folder_of(path);
}

gidd_status gidd_file_remove(const char *path)
{
    if (unlink(path) != 0) {
        if (errno == ENOENT) {
            return GIDD_OK;
        }
        return gidd_fail(GIDD_ERR_IO, "cannot remove %s: %s", path, strerror(errno));
    }
    return sync_folder_of(path);
}

gidd_status gidd_file_write(const char *path, const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot create %s: %s", path, strerror(errno));
    }
    gidd_status status = GIDD_OK;
    for (size_t done = 0; status == GIDD_OK && done < size;) {
        ssize_t put = write(fd, (const char *)bytes + done, size - done);
        if (put >= 0) {
            done += (size_t)put;
        } else if (errno != EINTR) {
            status = gidd_fail(GIDD_ERR_IO, "cannot write %s: %s", path, strerror(errno));
        }
    }
    if (close(fd) != 0 && status == GIDD_OK) {
        status = gidd_fail(GIDD_ERR_IO, "cannot close %s: %s", path, strerror(errno));
    }
    return status;
}

// Writes path.tmp and makes it `path` with `commit`.
static gidd_status write_through_temporary(const char *path, const void *bytes, size_t size,
                                           gidd_status (*commit)(const char *, const char *))
{
    size_t length = strlen(path) + sizeof ".tmp";
    char *temporary = malloc(length);
    if (temporary == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the name of %s", path);
    }
    (void)snprintf(temporary, length, "%s.tmp", path);
    gidd_status status = gidd_file_write(temporary, bytes, size);
    if (status == GIDD_OK) {
        status = commit(temporary, path);
    }
    if (status != GIDD_OK) {
        (void)unlink(temporary); // it may never have been there
    }
    free(temporary);
    return status;
}

gidd_status gidd_file_replace(const char *path, const void *bytes, size_t size)
{
    return write_through_temporary(path, bytes, size, gidd_file_commit);
}

gidd_status gidd_file_publish(const char *path, const void *bytes, size_t size)
{
    return write_through_temporary(path, bytes, size, rename_file);
}

gidd_status gidd_folder_make(const char *path)
{
    char *partial = strdup(path);
    if (partial == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the name of %s", path);
    }
    gidd_status status = GIDD_OK;
    for (char *at = partial + 1; status == GIDD_OK && partial[0] != '\0'; at++) {
        if (*at != '/' && *at != '\0') {
            continue;
        }
        char kept = *at;
        *at = '\0';
        if (mkdir(partial, 0777) == 0) {
            status = sync_folder_of(partial); // else a power loss may take all that is put into it
        } else if (errno != EEXIST && errno != EISDIR && errno != EROFS) {
            status = gidd_fail(GIDD_ERR_OUTPUT, "cannot make the folder %s: %s", partial,
                               strerror(errno));
        }
        *at = kept;
        if (kept == '\0') {
            break;
        }
    }
    struct stat facts;
    if (status == GIDD_OK && (stat(path, &facts) != 0 || !S_ISDIR(facts.st_mode))) {
        status = gidd_fail(GIDD_ERR_OUTPUT, "%s is no folder and cannot be made one", path);
    }
    free(partial);
    return status;
}
