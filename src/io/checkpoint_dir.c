/* SPDX-License-Identifier: Apache-2.0 */
#include "io/checkpoint_dir.h"

#include "base/fault.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *gidd_checkpoint_join(const char *first, const char *second)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s", first, second) >= 0 ? path : NULL;
}

static gidd_status no_memory(void)
{
    return gidd_fail(GIDD_ERR_NOMEM, "out of memory for a path");
}

/* ---- names ------------------------------------------------------------------------------------
 */

gidd_status gidd_checkpoint_parse_name(const char *name, gidd_checkpoint_entry *entry)
{
    char canonical[32];
    size_t digits = strncmp(name, "step-", 5) == 0 ? strspn(name + 5, "0123456789") : 0;
    if (digits < 9 || digits > 18 || strlen(name) >= sizeof entry->name) {
        return gidd_fail(GIDD_ERR_ARG, "'%.100s' is not the name of a checkpoint", name);
    }
    const char *rest = name + 5 + digits;
    *entry = (gidd_checkpoint_entry){.step = strtoll(name + 5, NULL, 10)};
    (void)snprintf(canonical, sizeof canonical, "step-%09lld", (long long)entry->step);
    int known = strncmp(canonical, name, strlen(canonical)) == 0 && strlen(canonical) == 5 + digits;
    if (rest[0] == '\0') {
        entry->kind = GIDD_CHECKPOINT_COMPLETE;
    } else if (strncmp(rest, ".tmp-", 5) == 0) {
        entry->kind = GIDD_CHECKPOINT_UNFINISHED;
    } else if (strncmp(rest, ".damaged-", 9) == 0 && isdigit((unsigned char)rest[9])) {
        entry->kind = GIDD_CHECKPOINT_DAMAGED;
    } else {
        known = 0;
    }
    if (!known) {
        return gidd_fail(GIDD_ERR_ARG, "'%s' is not the name of a checkpoint", name);
    }
    memcpy(entry->name, name, strlen(name) + 1);
    return GIDD_OK;
}

// Newest first; at the same step the complete one before the others, then by name.
static int compare_entries(const void *left, const void *right)
{
    const gidd_checkpoint_entry *a = left, *b = right;
    if (a->step != b->step) {
        return a->step < b->step ? 1 : -1;
    }
    return a->kind != b->kind ? (int)a->kind - (int)b->kind : strcmp(a->name, b->name);
}

// Collects the entries of an open directory. Other names are somebody else's.
static gidd_status collect(DIR *folder, const char *path, gidd_checkpoint_entry **entries_p,
                           int64_t *count_p)
{
    int64_t capacity = 0;
    gidd_checkpoint_entry entry;
    for (;;) {
        errno = 0;
        const struct dirent *item = readdir(folder);
        if (item == NULL) {
            return errno == 0 ? GIDD_OK
                              : gidd_fail(GIDD_ERR_IO, "cannot list %s: %s", path, strerror(errno));
        }
        const gidd_error before = *gidd_error_last();
        if (gidd_checkpoint_parse_name(item->d_name, &entry) != GIDD_OK) {
            gidd_error_restore(&before); // a foreign name is no failure
            continue;
        }
        if (*count_p == capacity) {
            capacity = 2 * capacity + 16;
            gidd_checkpoint_entry *more = realloc(*entries_p, (size_t)capacity * sizeof *more);
            if (more == NULL) {
                return gidd_fail(GIDD_ERR_NOMEM, "out of memory for the checkpoints of %s", path);
            }
            *entries_p = more;
        }
        (*entries_p)[(*count_p)++] = entry;
    }
}

gidd_status gidd_checkpoint_list(const char *run_dir, gidd_checkpoint_entry **entries_p,
                                 int64_t *count_p)
{
    gidd_checkpoint_entry *entries = NULL;
    int64_t count = 0;
    char *path = gidd_checkpoint_join(run_dir, "checkpoints");
    DIR *folder = path != NULL ? opendir(path) : NULL;
    gidd_status status = path != NULL ? GIDD_OK : no_memory();
    if (status == GIDD_OK && folder == NULL && errno != ENOENT) {
        status = gidd_fail(GIDD_ERR_IO, "cannot list %s: %s", path, strerror(errno));
    }
    if (folder != NULL) {
        status = collect(folder, path, &entries, &count);
        (void)closedir(folder);
    }
    free(path);
    if (status != GIDD_OK) {
        free(entries);
        return status;
    }
    if (count > 0) {
        qsort(entries, (size_t)count, sizeof *entries, compare_entries);
    }
    *entries_p = entries;
    *count_p = count;
    return GIDD_OK;
}

/* ---- files and directories --------------------------------------------------------------------
 */

gidd_status gidd_checkpoint_make_dir(const char *path)
{
    if (mkdir(path, 0777) != 0 && errno != EEXIST) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot create %s: %s", path, strerror(errno));
    }
    return GIDD_OK;
}

static int sync_retrying(int fd)
{
    int code = 0;
    do {
        code = fsync(fd);
    } while (code != 0 && errno == EINTR);
    return code;
}

gidd_status gidd_checkpoint_sync_dir(const char *path)
{
    gidd_status status = GIDD_OK;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return gidd_fail(GIDD_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    }
    if (sync_retrying(fd) != 0 && errno != EINVAL) { // EINVAL: directories cannot be synced here
        status = gidd_fail(GIDD_ERR_IO, "cannot sync %s: %s", path, strerror(errno));
    }
    (void)close(fd);
    return status;
}

gidd_status gidd_checkpoint_write_file(const char *path, const char *text, size_t bytes)
{
    gidd_status status = GIDD_OK;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot create %s: %s", path, strerror(errno));
    }
    for (size_t done = 0; done < bytes && status == GIDD_OK;) {
        ssize_t written = write(fd, text + done, bytes - done);
        if (written > 0) {
            done += (size_t)written;
        } else if (written == 0 || errno != EINTR) {
            status = gidd_fail(GIDD_ERR_IO, "cannot write %s: %zu of %zu bytes: %s", path, done,
                               bytes, strerror(errno));
        }
    }
    if (status == GIDD_OK && sync_retrying(fd) != 0) {
        status = gidd_fail(GIDD_ERR_IO, "cannot sync %s: %s", path, strerror(errno));
    }
    if (close(fd) != 0 && status == GIDD_OK) {
        status = gidd_fail(GIDD_ERR_IO, "cannot close %s: %s", path, strerror(errno));
    }
    return status;
}

static gidd_status remove_tree(const char *path)
{
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return errno == ENOENT
                   ? GIDD_OK
                   : gidd_fail(GIDD_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    }
    int failed = 0;
    const struct dirent *item = NULL;
    while ((item = readdir(folder)) != NULL) {
        if (strcmp(item->d_name, ".") != 0 && strcmp(item->d_name, "..") != 0 &&
            unlinkat(dirfd(folder), item->d_name, 0) != 0 && errno != ENOENT) {
            failed = errno;
        }
    }
    (void)closedir(folder);
    if (failed == 0 && rmdir(path) != 0 && errno != ENOENT) {
        failed = errno;
    }
    return failed == 0 ? GIDD_OK
                       : gidd_fail(GIDD_ERR_IO, "cannot remove %s: %s", path, strerror(failed));
}

// RUN/checkpoints/NAME in fresh memory, after making sure that the directory is still ours.
static gidd_status locked_path(const char *run_dir, gidd_run_lock *lock, const char *name,
                               char **path_p)
{
    char *folder = gidd_checkpoint_join(run_dir, "checkpoints");
    char *path = folder != NULL ? gidd_checkpoint_join(folder, name) : NULL;
    free(folder);
    gidd_status status = path != NULL ? gidd_run_lock_check(lock) : no_memory();
    if (status != GIDD_OK) {
        free(path);
        return status;
    }
    *path_p = path;
    return GIDD_OK;
}

// Takes the final name away, for good: were only the deletions on disk after a power loss, a ruin
// would have it.
static gidd_status take_name_away(const char *run_dir, const char *path, const char *victim)
{
    if (rename(path, victim) != 0) {
        return errno == ENOENT
                   ? GIDD_OK
                   : gidd_fail(GIDD_ERR_IO, "cannot rename %s: %s", path, strerror(errno));
    }
    char *folder = gidd_checkpoint_join(run_dir, "checkpoints");
    gidd_status status = folder != NULL ? gidd_checkpoint_sync_dir(folder) : no_memory();
    free(folder);
    return status;
}

gidd_status gidd_checkpoint_remove(const char *run_dir, gidd_run_lock *lock, const char *name)
{
    gidd_checkpoint_entry entry;
    char *path = NULL, *victim = NULL;
    GIDD_TRY(gidd_checkpoint_parse_name(name, &entry));
    GIDD_TRY(locked_path(run_dir, lock, name, &path));
    gidd_status status = GIDD_OK;
    if (entry.kind == GIDD_CHECKPOINT_COMPLETE) {
        if (asprintf(&victim, "%s.tmp-pruned-%s", path, gidd_run_lock_token(lock)) < 0) {
            victim = NULL;
            status = no_memory();
        } else {
            status = take_name_away(run_dir, path, victim);
        }
    }
    gidd_fault_point("ckpt_prune");
    if (status == GIDD_OK) {
        status = remove_tree(victim != NULL ? victim : path);
    }
    free(victim);
    free(path);
    return status;
}

gidd_status gidd_checkpoint_quarantine(const char *run_dir, gidd_run_lock *lock, const char *name)
{
    char *path = NULL, *parent = NULL;
    GIDD_TRY(locked_path(run_dir, lock, name, &path));
    gidd_status status = GIDD_OK;
    int renamed = 0;
    gidd_fault_point("ckpt_quarantine");
    for (int k = 1; k < 1000 && status == GIDD_OK && !renamed; k++) {
        char *damaged = NULL;
        if (asprintf(&damaged, "%s.damaged-%d", path, k) < 0) {
            status = no_memory();
            break;
        }
        if (access(damaged, F_OK) != 0) {
            renamed = rename(path, damaged) == 0;
            if (!renamed) {
                status = gidd_fail(GIDD_ERR_OUTPUT, "cannot rename %s: %s", path, strerror(errno));
            }
        }
        free(damaged);
    }
    if (renamed) {
        parent = gidd_checkpoint_join(run_dir, "checkpoints");
        status = parent != NULL ? gidd_checkpoint_sync_dir(parent) : no_memory();
    } else if (status == GIDD_OK) {
        status = gidd_fail(GIDD_ERR_OUTPUT, "%s has been damaged 999 times", path);
    }
    free(parent);
    free(path);
    return status;
}

/* ---- keeping and deleting ---------------------------------------------------------------------
 */

gidd_status gidd_checkpoint_sweep(const char *run_dir, gidd_run_lock *lock)
{
    gidd_checkpoint_entry *entries = NULL;
    int64_t count = 0;
    gidd_status status = GIDD_OK;
    GIDD_TRY(gidd_checkpoint_list(run_dir, &entries, &count));
    for (int64_t i = 0; i < count && status == GIDD_OK; i++) {
        if (entries[i].kind == GIDD_CHECKPOINT_UNFINISHED) {
            status = gidd_checkpoint_remove(run_dir, lock, entries[i].name);
        }
    }
    free(entries);
    return status;
}

void gidd_checkpoint_doom(const gidd_checkpoint_entry *entries, int64_t count, int64_t keep_last,
                          int64_t keep_every, unsigned char *doomed)
{
    int64_t seen = 0;
    for (int64_t i = 0; i < count; i++) { // newest first
        int complete = entries[i].kind == GIDD_CHECKPOINT_COMPLETE;
        seen += complete;
        int kept = complete && (seen <= keep_last || (keep_every > 0 && entries[i].step % keep_every == 0));
        doomed[i] = entries[i].kind != GIDD_CHECKPOINT_DAMAGED && !kept;
    }
}

gidd_status gidd_checkpoint_prune(const char *run_dir, gidd_run_lock *lock, int64_t keep_last,
                                  int64_t keep_every, int64_t *deleted_p)
{
    gidd_checkpoint_entry *entries = NULL;
    int64_t count = 0, deleted = 0;
    GIDD_ASSERT(keep_last >= 1);
    GIDD_TRY(gidd_checkpoint_list(run_dir, &entries, &count));
    unsigned char *doomed = calloc((size_t)count + 1, 1);
    gidd_status status = doomed != NULL ? GIDD_OK : no_memory();
    if (status == GIDD_OK) {
        gidd_checkpoint_doom(entries, count, keep_last, keep_every, doomed);
    }
    for (int64_t i = 0; i < count && status == GIDD_OK; i++) {
        if (doomed[i]) {
            status = gidd_checkpoint_remove(run_dir, lock, entries[i].name);
            deleted += status == GIDD_OK;
        }
    }
    free(doomed);
    free(entries);
    if (deleted_p != NULL) {
        *deleted_p = deleted;
    }
    return status;
}
