/* SPDX-License-Identifier: Apache-2.0 */
#include "iofault.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OP_OPEN, OP_READ, OP_WRITE, OP_FSYNC, OP_FTRUNCATE, OP_FALLOCATE, OP_CLOSE, OP_RENAME, OP_UNLINK, OP_MKDIR, OP_RMDIR, OPS };
enum { ERROR_SHORT = -1, ERROR_LATE = -2, ERROR_KILL = -3, ERROR_SPOIL = -4, ERROR_SLOW = -5, FDS = 4096, PATH_BYTES = 4608 };

static const char *const op_names[OPS] = {"open",  "read",   "write",  "fsync", "ftruncate", "fallocate",
                                          "close", "rename", "unlink", "mkdir", "rmdir"};
static const struct {
    const char *name;
    int value;
} errors[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC},     {"EINTR", EINTR},    {"EDQUOT", EDQUOT},   {"EACCES", EACCES},
              {"EROFS", EROFS},   {"EMFILE", EMFILE},     {"ESTALE", ESTALE},  {"short", ERROR_SHORT}, {"late", ERROR_LATE},
              {"kill", ERROR_KILL}, {"spoil", ERROR_SPOIL}, {"slow", ERROR_SLOW}};

// The shim is one piece of process-wide state by nature.
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct {
    int ready; // the environment was read
    char prefix[PATH_BYTES];
    unsigned ops;
    int error, forever, armed;
    long k, counted, struck;
    char last[PATH_BYTES + 16];
    int log; // of strikes, or -1
    char record_prefix[PATH_BYTES];
    int record; // or -1
    int64_t handles;
} shim = {.log = -1, .record = -1};
static struct {
    char *path;
    int64_t handle;
} files[FDS];

/* ---- steering ----------------------------------------------------------------------------------- */

static int parse_ops(const char *words)
{
    unsigned ops = 0;
    while (*words != '\0') {
        size_t length = strcspn(words, "+");
        unsigned before = ops;
        for (int op = 0; op < OPS; op++) {
            if ((strlen(op_names[op]) == length && strncmp(words, op_names[op], length) == 0) ||
                (length == 3 && strncmp(words, "any", 3) == 0)) {
                ops |= 1u << op;
            }
        }
        if (ops == before) {
            return -1;
        }
        words += length + (words[length] == '+');
    }
    shim.ops = ops;
    return 0;
}

static int parse_error(const char *word)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        if (strcmp(word, errors[i].name) == 0) {
            shim.error = errors[i].value;
            return 0;
        }
    }
    return -1;
}

static int parse_spec(const char *spec)
{
    char text[PATH_BYTES + 128], *save = NULL;
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    int bad = (size_t)snprintf(text, sizeof text, "%s", spec) >= sizeof text, applies = 1;
    shim.ops = 0, shim.error = EIO, shim.forever = 0, shim.k = 1;
    shim.prefix[0] = '\0';
    for (char *word = strtok_r(text, ",", &save); word != NULL; word = strtok_r(NULL, ",", &save)) {
        if (strncmp(word, "path=", 5) == 0) {
            (void)snprintf(shim.prefix, sizeof shim.prefix, "%s", word + 5);
        } else if (strncmp(word, "op=", 3) == 0) {
            bad |= parse_ops(word + 3);
        } else if (strncmp(word, "k=", 2) == 0) {
            shim.k = atol(word + 2);
        } else if (strncmp(word, "error=", 6) == 0) {
            bad |= parse_error(word + 6);
        } else if (strncmp(word, "rank=", 5) == 0) {
            applies = rank != NULL && atoi(rank) == atoi(word + 5);
        } else if (strcmp(word, "forever") == 0) {
            shim.forever = 1;
        } else {
            bad = 1;
        }
    }
    shim.armed = !bad && applies && shim.prefix[0] == '/' && shim.ops != 0;
    return bad || shim.prefix[0] != '/' || shim.ops == 0 ? -1 : 0;
}

int iofault_arm(const char *spec)
{
    (void)pthread_mutex_lock(&mutex);
    shim.ready = 1;
    shim.counted = shim.struck = shim.armed = 0;
    shim.last[0] = '\0';
    int result = spec != NULL ? parse_spec(spec) : 0;
    (void)pthread_mutex_unlock(&mutex);
    return result;
}

int iofault_start_record(const char *prefix, const char *log)
{
    (void)pthread_mutex_lock(&mutex);
    shim.ready = 1;
    if (shim.record >= 0) {
        (void)syscall(SYS_close, shim.record);
    }
    shim.record = -1;
    if (prefix != NULL) {
        (void)snprintf(shim.record_prefix, sizeof shim.record_prefix, "%s", prefix);
        shim.record = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    }
    int result = prefix == NULL || shim.record >= 0 ? 0 : -1;
    (void)pthread_mutex_unlock(&mutex);
    return result;
}

// Under the mutex, once: what the environment says.
static void read_environment(void)
{
    const char *spec = getenv("IOFAULT"), *log = getenv("IOFAULT_LOG"), *record = getenv("IOFAULT_RECORD");
    shim.ready = 1;
    if (spec != NULL && parse_spec(spec) != 0) {
        (void)fprintf(stderr, "IOFAULT is not understood: %s\n", spec);
        _exit(64);
    }
    if (log != NULL) {
        shim.log = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    }
    if (record != NULL) {
        size_t length = strcspn(record, ",");
        (void)snprintf(shim.record_prefix, sizeof shim.record_prefix, "%.*s", (int)length, record);
        shim.record = (int)syscall(SYS_openat, AT_FDCWD, record + length + (record[length] == ','),
                                   O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    }
}

// While a record is kept, an operation and its entry are one for all processes: what another one can see is
// in the record before it can act on it.
static void enter(void)
{
    (void)pthread_mutex_lock(&mutex);
    if (!shim.ready) {
        read_environment();
    }
    if (shim.record >= 0) {
        (void)flock(shim.record, LOCK_EX);
    }
}

static void leave(void)
{
    if (shim.record >= 0) {
        (void)flock(shim.record, LOCK_UN);
    }
    (void)pthread_mutex_unlock(&mutex);
}

long iofault_counted(void)
{
    enter();
    long count = shim.counted;
    leave();
    return count;
}

long iofault_struck(void)
{
    enter();
    long count = shim.struck;
    leave();
    return count;
}

const char *iofault_last(void)
{
    return shim.last;
}

/* ---- paths ---------------------------------------------------------------------------------------- */

static int begins(const char *path, const char *prefix)
{
    return prefix[0] != '\0' && strncmp(path, prefix, strlen(prefix)) == 0;
}

// The absolute path of `name` below `folder` (an open directory, or AT_FDCWD).
static void resolve(int folder, const char *name, char path[PATH_BYTES])
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

static const char *path_of(int fd)
{
    return fd >= 0 && fd < FDS && files[fd].path != NULL ? files[fd].path : "";
}

static int is_watched(const char *path)
{
    return begins(path, shim.prefix) || (shim.record >= 0 && begins(path, shim.record_prefix));
}

static void remember(int fd, const char *path)
{
    if (fd >= 0 && fd < FDS) {
        free(files[fd].path);
        files[fd].path = is_watched(path) ? strdup(path) : NULL;
        files[fd].handle = ((int64_t)getpid() << 32) + ++shim.handles;
    }
}

/* ---- striking --------------------------------------------------------------------------------------- */

// Under the mutex. 0: the operation goes on; else the errno to report, or one of ERROR_*.
static int strike(int op, const char *path)
{
    if (!shim.armed || !(shim.ops >> op & 1) || !begins(path, shim.prefix)) {
        return 0;
    }
    shim.counted++;
    if (shim.counted < shim.k || (shim.counted > shim.k && !shim.forever)) {
        return 0;
    }
    if ((shim.error == ERROR_SHORT && op != OP_WRITE && op != OP_READ) || (shim.error == ERROR_SPOIL && op != OP_WRITE)) {
        return 0;
    }
    shim.struck++;
    (void)snprintf(shim.last, sizeof shim.last, "%s %s", op_names[op], path);
    if (shim.log >= 0) {
        char line[PATH_BYTES + 128];
        const char *rank = getenv("OMPI_COMM_WORLD_RANK");
        int bytes = snprintf(line, sizeof line, "%s %s %d\n", rank != NULL ? rank : "-", shim.last, shim.error);
        (void)syscall(SYS_write, shim.log, line, bytes);
    }
    if (shim.error == ERROR_KILL) {
        (void)syscall(SYS_kill, getpid(), SIGKILL);
    }
    return shim.error;
}

// Under the mutex.
static void note(uint32_t kind, const char *path, const char *other, iofault_record r, const void *data)
{
    if (shim.record < 0 || (kind != IOFAULT_MARK && !begins(path, shim.record_prefix))) {
        return;
    }
    r.kind = kind;
    r.path_bytes = (uint32_t)strlen(path);
    r.other_bytes = (uint32_t)strlen(other);
    struct iovec parts[] = {{&r, sizeof r},
                            {(void *)(uintptr_t)path, r.path_bytes},
                            {(void *)(uintptr_t)other, r.other_bytes},
                            {(void *)(uintptr_t)data, r.data_bytes}};
    if (syscall(SYS_writev, shim.record, parts, 4) < 0) {
        _exit(74); // a record with holes would prove nothing
    }
}

void iofault_mark(const char *text)
{
    enter();
    note(IOFAULT_MARK, text, "", (iofault_record){0}, "");
    leave();
}

static long refuse(int error)
{
    errno = error;
    return -1;
}

// What the caller is told: `result` of the operation that was done, unless it was to be reported failed.
static long report(int fault, long result)
{
    return fault == ERROR_LATE && result >= 0 ? refuse(EIO) : result;
}

/* ---- open and close ----------------------------------------------------------------------------------- */

static int open_at(int folder, const char *name, int flags, mode_t mode)
{
    char path[PATH_BYTES];
    resolve(folder, name, path);
    enter();
    int fault = strike(OP_OPEN, path);
    long fd = fault > 0 ? refuse(fault) : syscall(SYS_openat, folder, name, flags, mode);
    if (fd >= 0) {
        remember((int)fd, path);
        note(IOFAULT_OPEN, path, "", (iofault_record){.handle = fd < FDS ? files[fd].handle : 0, .size = flags}, "");
    }
    if (fault == ERROR_LATE && fd >= 0) {
        (void)syscall(SYS_close, (int)fd);
    }
    fd = report(fault, fd);
    leave();
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
    enter();
    int fault = strike(OP_CLOSE, path_of(fd));
    if (fd >= 0 && fd < FDS && files[fd].path != NULL) {
        note(IOFAULT_CLOSE, files[fd].path, "", (iofault_record){.handle = files[fd].handle}, "");
        free(files[fd].path);
        files[fd].path = NULL;
    }
    long result = syscall(SYS_close, fd); // also when it is to fail: Linux closes in every case
    result = fault > 0 ? refuse(fault) : report(fault, result);
    leave();
    return (int)result;
}

/* ---- data ------------------------------------------------------------------------------------------------ */

static ssize_t read_at(int fd, void *data, size_t bytes, const off_t *offset)
{
    enter();
    int fault = bytes > 0 ? strike(OP_READ, path_of(fd)) : 0;
    leave(); // a read may wait, on a pipe for example
    if (fault > 0) {
        return refuse(fault);
    }
    bytes = fault == ERROR_SHORT && bytes > 1 ? bytes / 2 : bytes;
    long result = offset != NULL ? syscall(SYS_pread64, fd, data, bytes, *offset) : syscall(SYS_read, fd, data, bytes);
    return report(fault, result);
}

// All of the bytes but one bit; claims to have written what was asked for.
static long write_spoilt(int fd, const void *data, size_t bytes, const off_t *offset)
{
    char *copy = malloc(bytes + 1);
    if (copy == NULL) {
        return refuse(ENOMEM);
    }
    memcpy(copy, data, bytes);
    copy[bytes / 2] = (char)(copy[bytes / 2] ^ 1);
    long result = offset != NULL ? syscall(SYS_pwrite64, fd, copy, bytes, *offset) : syscall(SYS_write, fd, copy, bytes);
    free(copy);
    return result;
}

static ssize_t write_at(int fd, const void *data, size_t bytes, const off_t *offset)
{
    if (path_of(fd)[0] == '\0') { // not watched: without the mutex, for it may wait
        return offset != NULL ? syscall(SYS_pwrite64, fd, data, bytes, *offset) : syscall(SYS_write, fd, data, bytes);
    }
    enter();
    int fault = strike(OP_WRITE, path_of(fd));
    bytes = fault == ERROR_SHORT && bytes > 1 ? bytes / 2 : bytes;
    long result = fault > 0              ? refuse(fault)
                  : fault == ERROR_SPOIL ? write_spoilt(fd, data, bytes, offset)
                  : offset != NULL       ? syscall(SYS_pwrite64, fd, data, bytes, *offset)
                                         : syscall(SYS_write, fd, data, bytes);
    if (result > 0) {
        off_t at = offset != NULL ? *offset : lseek(fd, 0, SEEK_CUR) - result;
        note(IOFAULT_WRITE, path_of(fd), "",
             (iofault_record){.handle = files[fd].handle, .offset = at, .data_bytes = (uint32_t)result}, data);
    }
    result = report(fault, result);
    leave();
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
    return path_of(fd)[0] == '\0' ? syscall(SYS_writev, fd, parts, count) : write_parts(fd, parts, count, NULL);
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
    enter();
    (void)snprintf(path, sizeof path, "%s", path_of(fd));
    iofault_record r = {.handle = fd >= 0 && fd < FDS ? files[fd].handle : 0};
    int fault = strike(OP_FSYNC, path);
    if (fault <= 0 && path[0] != '\0') {
        note(IOFAULT_SYNC, path, "", r, "");
    }
    leave();
    if (fault > 0) {
        return (int)refuse(fault);
    }
    if (fault == ERROR_SLOW) {
        (void)sleep(1);
    }
    long result = syscall(number, fd);
    if (result == 0 && path[0] != '\0') {
        enter();
        r.size = 1;
        note(IOFAULT_SYNC, path, "", r, "");
        leave();
    }
    return (int)report(fault, result);
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
    enter();
    int fault = strike(op, path_of(fd));
    (void)fstat(fd, &before);
    long result = fault > 0             ? refuse(fault)
                  : op == OP_FTRUNCATE ? syscall(SYS_ftruncate, fd, size)
                                       : syscall(SYS_fallocate, fd, mode, offset, size);
    off_t length = op == OP_FTRUNCATE ? size : offset + size > before.st_size ? offset + size : before.st_size;
    if (result == 0 && path_of(fd)[0] != '\0') {
        note(IOFAULT_TRUNCATE, path_of(fd), "", (iofault_record){.handle = files[fd].handle, .size = length}, "");
    }
    result = report(fault, result);
    leave();
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

/* ---- names --------------------------------------------------------------------------------------------------- */

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    char path[PATH_BYTES], other[PATH_BYTES];
    resolve(from_folder, from, path);
    resolve(to_folder, to, other);
    enter();
    int fault = strike(OP_RENAME, path);
    long result = fault > 0 ? refuse(fault) : syscall(SYS_renameat2, from_folder, from, to_folder, to, 0);
    if (result == 0) {
        note(IOFAULT_RENAME, path, other, (iofault_record){0}, "");
    }
    result = report(fault, result);
    leave();
    return (int)result;
}

int rename(const char *from, const char *to)
{
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

static int remove_at(int op, uint32_t kind, int folder, const char *name, int flags)
{
    char path[PATH_BYTES];
    resolve(folder, name, path);
    enter();
    int fault = strike(op, path);
    long result = fault > 0 ? refuse(fault) : syscall(SYS_unlinkat, folder, name, flags);
    if (result == 0) {
        note(kind, path, "", (iofault_record){0}, "");
    }
    result = report(fault, result);
    leave();
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
    resolve(AT_FDCWD, name, path);
    enter();
    int fault = strike(OP_MKDIR, path);
    long result = fault > 0 ? refuse(fault) : syscall(SYS_mkdirat, AT_FDCWD, name, mode);
    if (result == 0) {
        note(IOFAULT_MKDIR, path, "", (iofault_record){0}, "");
    }
    result = report(fault, result);
    leave();
    return (int)result;
}
