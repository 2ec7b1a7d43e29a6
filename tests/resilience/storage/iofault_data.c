/* SPDX-License-Identifier: Apache-2.0 */
#include "iofault_parts.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>

static ssize_t read_at(int fd, void *data, size_t bytes, const off_t *offset)
{
    iofault_enter();
    int fault = bytes > 0 ? iofault_strike(OP_READ, iofault_path_of(fd)) : 0;
    iofault_leave(); // a read may wait, on a pipe for example
    if (fault > 0) {
        return iofault_refuse(fault);
    }
    bytes = fault == ERROR_SHORT && bytes > 1 ? bytes / 2 : bytes;
    long result = offset != NULL ? syscall(SYS_pread64, fd, data, bytes, *offset) : syscall(SYS_read, fd, data, bytes);
    return iofault_report(fault, result);
}

// All of the bytes but one bit; claims to have written what was asked for.
static long write_spoilt(int fd, const void *data, size_t bytes, const off_t *offset)
{
    char *copy = malloc(bytes + 1);
    if (copy == NULL) {
        return iofault_refuse(ENOMEM);
    }
    memcpy(copy, data, bytes);
    copy[bytes / 2] = (char)(copy[bytes / 2] ^ 1);
    long result = offset != NULL ? syscall(SYS_pwrite64, fd, copy, bytes, *offset) : syscall(SYS_write, fd, copy, bytes);
    free(copy);
    return result;
}

static ssize_t write_at(int fd, const void *data, size_t bytes, const off_t *offset)
{
    if (iofault_path_of(fd)[0] == '\0') { // not watched: without the mutex, for it may wait
        return offset != NULL ? syscall(SYS_pwrite64, fd, data, bytes, *offset) : syscall(SYS_write, fd, data, bytes);
    }
    iofault_enter();
    int fault = iofault_strike(OP_WRITE, iofault_path_of(fd));
    bytes = fault == ERROR_SHORT && bytes > 1 ? bytes / 2 : bytes;
    long result = fault > 0              ? iofault_refuse(fault)
                  : fault == ERROR_SPOIL ? write_spoilt(fd, data, bytes, offset)
                  : offset != NULL       ? syscall(SYS_pwrite64, fd, data, bytes, *offset)
                                         : syscall(SYS_write, fd, data, bytes);
    if (result > 0) {
        off_t at = offset != NULL ? *offset : lseek(fd, 0, SEEK_CUR) - result;
        iofault_note(IOFAULT_WRITE, iofault_path_of(fd), "",
             (iofault_record){.handle = iofault_handle_of(fd), .offset = at, .data_bytes = (uint32_t)result}, data);
    }
    result = iofault_report(fault, result);
    iofault_leave();
    return result;
}

ssize_t read(int fd, void *data, size_t bytes)
{
    return read_at(fd, data, bytes, NULL);
}

ssize_t pread(int fd, void *data, size_t bytes, off_t offset)
{
    return read_at(fd, data, bytes, &offset);
}

ssize_t pread64(int fd, void *data, size_t bytes, off64_t offset)
{
    return read_at(fd, data, bytes, &offset);
}

ssize_t write(int fd, const void *data, size_t bytes)
{
    return write_at(fd, data, bytes, NULL);
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
    return write_at(fd, data, bytes, &offset);
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t offset)
{
    return write_at(fd, data, bytes, &offset);
}

// As a row of single writes, which a caller of these has to be ready for.
static ssize_t write_parts(int fd, const struct iovec *parts, int count, const off_t *offset)
{
    ssize_t done = 0;
    for (int i = 0; i < count; i++) {
        off_t at = offset != NULL ? *offset + done : 0;
        ssize_t put = write_at(fd, parts[i].iov_base, parts[i].iov_len, offset != NULL ? &at : NULL);
        if (put < 0) {
            return done > 0 ? done : put;
        }
        done += put;
        if ((size_t)put < parts[i].iov_len) {
            break;
        }
    }
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    return iofault_path_of(fd)[0] == '\0' ? syscall(SYS_writev, fd, parts, count) : write_parts(fd, parts, count, NULL);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    return write_parts(fd, parts, count, &offset);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    return write_parts(fd, parts, count, &offset);
}

static int sync_fd(int fd, long number)
{
    char path[PATH_BYTES];
    iofault_enter();
    (void)snprintf(path, sizeof path, "%s", iofault_path_of(fd));
    iofault_record r = {.handle = iofault_handle_of(fd)};
    int fault = iofault_strike(OP_FSYNC, path);
    if (fault <= 0 && path[0] != '\0') {
        iofault_note(IOFAULT_SYNC, path, "", r, "");
    }
    iofault_leave();
    if (fault > 0) {
        return (int)iofault_refuse(fault);
    }
    if (fault == ERROR_SLOW) {
        (void)sleep(1);
    }
    long result = syscall(number, fd);
    if (result == 0 && path[0] != '\0') {
        iofault_enter();
        r.size = 1;
        iofault_note(IOFAULT_SYNC, path, "", r, "");
        iofault_leave();
    }
    return (int)iofault_report(fault, result);
}

int fsync(int fd)
{
    return sync_fd(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return sync_fd(fd, SYS_fdatasync);
}

static int set_length(int op, int fd, off_t size, int mode, off_t offset)
{
    struct stat before = {0};
    iofault_enter();
    int fault = iofault_strike(op, iofault_path_of(fd));
    (void)fstat(fd, &before);
    long result = fault > 0             ? iofault_refuse(fault)
                  : op == OP_FTRUNCATE ? syscall(SYS_ftruncate, fd, size)
                                       : syscall(SYS_fallocate, fd, mode, offset, size);
    off_t length = op == OP_FTRUNCATE ? size : offset + size > before.st_size ? offset + size : before.st_size;
    if (result == 0 && iofault_path_of(fd)[0] != '\0') {
        iofault_note(IOFAULT_TRUNCATE, iofault_path_of(fd), "", (iofault_record){.handle = iofault_handle_of(fd), .size = length}, "");
    }
    result = iofault_report(fault, result);
    iofault_leave();
    return (int)result;
}

int ftruncate(int fd, off_t size)
{
    return set_length(OP_FTRUNCATE, fd, size, 0, 0);
}

int ftruncate64(int fd, off64_t size)
{
    return set_length(OP_FTRUNCATE, fd, size, 0, 0);
}

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    return set_length(OP_FALLOCATE, fd, size, mode, offset);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t size)
{
    return set_length(OP_FALLOCATE, fd, size, mode, offset);
}

int posix_fallocate(int fd, off_t offset, off_t size)
{
    return set_length(OP_FALLOCATE, fd, size, 0, offset) == 0 ? 0 : errno;
}

int posix_fallocate64(int fd, off64_t offset, off64_t size)
{
    return set_length(OP_FALLOCATE, fd, size, 0, offset) == 0 ? 0 : errno;
}
