/* SPDX-License-Identifier: Apache-2.0 */
#include "iofault_parts.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

/* ---- open and close ----------------------------------------------------------------------------------- */

static int open_at(int folder, const char *name, int flags, mode_t mode)
{
    char path[PATH_BYTES];
    iofault_resolve(folder, name, path);
    iofault_enter();
    int fault = iofault_strike(OP_OPEN, path);
    long fd = fault > 0 ? iofault_refuse(fault) : syscall(SYS_openat, folder, name, flags, mode);
    if (fd >= 0) {
        iofault_remember((int)fd, path);
        iofault_note(IOFAULT_OPEN, path, "", (iofault_record){.handle = iofault_handle_of((int)fd), .size = flags}, "");
    }
    if (fault == ERROR_LATE && fd >= 0) {
        (void)syscall(SYS_close, (int)fd);
    }
    fd = iofault_report(fault, fd);
    iofault_leave();
    return (int)fd;
}

#define MODE_OF(flags)                                                                             \
    mode_t mode = 0;                                                                               \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) {                               \
        va_list list;                                                                              \
        va_start(list, flags);                                                                     \
        mode = va_arg(list, mode_t);                                                               \
        va_end(list);                                                                              \
    }

int open(const char *name, int flags, ...)
{
    MODE_OF(flags)
    return open_at(AT_FDCWD, name, flags, mode);
}

int open64(const char *name, int flags, ...)
{
    MODE_OF(flags)
    return open_at(AT_FDCWD, name, flags | O_LARGEFILE, mode);
}

int openat(int folder, const char *name, int flags, ...)
{
    MODE_OF(flags)
    return open_at(folder, name, flags, mode);
}

int openat64(int folder, const char *name, int flags, ...)
{
    MODE_OF(flags)
    return open_at(folder, name, flags | O_LARGEFILE, mode);
}

int creat(const char *name, mode_t mode)
{
    return open_at(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int close(int fd)
{
    iofault_enter();
    int fault = iofault_strike(OP_CLOSE, iofault_path_of(fd));
    if (iofault_path_of(fd)[0] != '\0') {
        iofault_note(IOFAULT_CLOSE, iofault_path_of(fd), "", (iofault_record){.handle = iofault_handle_of(fd)}, "");
        iofault_forget(fd);
    }
    long result = syscall(SYS_close, fd); // also when it is to fail: Linux closes in every case
    result = fault > 0 ? iofault_refuse(fault) : iofault_report(fault, result);
    iofault_leave();
    return (int)result;
}

/* ---- names --------------------------------------------------------------------------------------------------- */

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    char path[PATH_BYTES], other[PATH_BYTES];
    iofault_resolve(from_folder, from, path);
    iofault_resolve(to_folder, to, other);
    iofault_enter();
    int fault = iofault_strike(OP_RENAME, path);
    long result = fault > 0 ? iofault_refuse(fault) : syscall(SYS_renameat2, from_folder, from, to_folder, to, 0);
    if (result == 0) {
        iofault_note(IOFAULT_RENAME, path, other, (iofault_record){0}, "");
    }
    result = iofault_report(fault, result);
    iofault_leave();
    return (int)result;
}

int rename(const char *from, const char *to)
{
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

static int remove_at(int op, uint32_t kind, int folder, const char *name, int flags)
{
    char path[PATH_BYTES];
    iofault_resolve(folder, name, path);
    iofault_enter();
    int fault = iofault_strike(op, path);
    long result = fault > 0 ? iofault_refuse(fault) : syscall(SYS_unlinkat, folder, name, flags);
    if (result == 0) {
        iofault_note(kind, path, "", (iofault_record){0}, "");
    }
    result = iofault_report(fault, result);
    iofault_leave();
    return (int)result;
}

int unlinkat(int folder, const char *name, int flags)
{
    int is_folder = (flags & AT_REMOVEDIR) != 0;
    return remove_at(is_folder ? OP_RMDIR : OP_UNLINK, is_folder ? IOFAULT_RMDIR : IOFAULT_UNLINK, folder, name, flags);
}

int unlink(const char *name)
{
    return unlinkat(AT_FDCWD, name, 0);
}

int rmdir(const char *name)
{
    return unlinkat(AT_FDCWD, name, AT_REMOVEDIR);
}

int mkdir(const char *name, mode_t mode)
{
    char path[PATH_BYTES];
    iofault_resolve(AT_FDCWD, name, path);
    iofault_enter();
    int fault = iofault_strike(OP_MKDIR, path);
    long result = fault > 0 ? iofault_refuse(fault) : syscall(SYS_mkdirat, AT_FDCWD, name, mode);
    if (result == 0) {
        iofault_note(IOFAULT_MKDIR, path, "", (iofault_record){0}, "");
    }
    result = iofault_report(fault, result);
    iofault_leave();
    return (int)result;
}
