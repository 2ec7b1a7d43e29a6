/* SPDX-License-Identifier: Apache-2.0 */
#include "iofault_parts.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/uio.h>

enum { FDS = 4096 };

// Under the mutex of iofault.c, as is all of this file.
static struct {
    char prefix[PATH_BYTES];
    int fd; // or -1
    int64_t handles;
} record = {.fd = -1};
static struct {
    char *path;
    int64_t handle;
} files[FDS];

/* ---- watched files -------------------------------------------------------------------------------- */

void iofault_resolve(int folder, const char *name, char path[PATH_BYTES])
{
    char base[PATH_BYTES] = "";
    if (name[0] != '/') {
        if (folder == AT_FDCWD) {
            if (syscall(SYS_getcwd, base, sizeof base) < 0) {
                base[0] = '\0';
            }
        } else {
            char link[64];
            (void)snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            long length = syscall(SYS_readlinkat, AT_FDCWD, link, base, sizeof base - 1);
            base[length > 0 ? length : 0] = '\0';
        }
    }
    (void)snprintf(path, PATH_BYTES, "%.*s%s%.*s", PATH_BYTES / 2, base, base[0] != '\0' ? "/" : "", PATH_BYTES / 2 - 2, name);
}

static int is_watched(const char *path)
{
    return iofault_is_target(path) || (record.fd >= 0 && iofault_begins(path, record.prefix));
}

void iofault_remember(int fd, const char *path)
{
    if (fd >= 0 && fd < FDS) {
        free(files[fd].path);
        files[fd].path = is_watched(path) ? strdup(path) : NULL;
        files[fd].handle = ((int64_t)getpid() << 32) + ++record.handles;
    }
}

void iofault_forget(int fd)
{
    if (fd >= 0 && fd < FDS) {
        free(files[fd].path);
        files[fd].path = NULL;
    }
}

const char *iofault_path_of(int fd)
{
    return fd >= 0 && fd < FDS && files[fd].path != NULL ? files[fd].path : "";
}

int64_t iofault_handle_of(int fd)
{
    return fd >= 0 && fd < FDS ? files[fd].handle : 0;
}

/* ---- the record ----------------------------------------------------------------------------------- */

int iofault_record_open(const char *prefix, const char *log)
{
    if (record.fd >= 0) {
        (void)syscall(SYS_close, record.fd);
    }
    record.fd = -1;
    if (prefix == NULL) {
        return 0;
    }
    (void)snprintf(record.prefix, sizeof record.prefix, "%s", prefix);
    record.fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    return record.fd >= 0 ? 0 : -1;
}

void iofault_record_lock(void)
{
    if (record.fd >= 0) {
        (void)flock(record.fd, LOCK_EX);
    }
}

void iofault_record_unlock(void)
{
    if (record.fd >= 0) {
        (void)flock(record.fd, LOCK_UN);
    }
}

void iofault_note(uint32_t kind, const char *path, const char *other, iofault_record r, const void *data)
{
    if (record.fd < 0 || (kind != IOFAULT_MARK && !iofault_begins(path, record.prefix))) {
        return;
    }
    r.kind = kind;
    r.path_bytes = (uint32_t)strlen(path);
    r.other_bytes = (uint32_t)strlen(other);
    struct iovec parts[] = {{&r, sizeof r},
                            {(void *)(uintptr_t)path, r.path_bytes},
                            {(void *)(uintptr_t)other, r.other_bytes},
                            {(void *)(uintptr_t)data, r.data_bytes}};
    if (syscall(SYS_writev, record.fd, parts, 4) < 0) {
        _exit(74); // a record with holes would prove nothing
    }
}

void iofault_mark(const char *text)
{
    iofault_enter();
    iofault_note(IOFAULT_MARK, text, "", (iofault_record){0}, "");
    iofault_leave();
}
