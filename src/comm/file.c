/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/file.h"

#include "comm/comm_mpi.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

// One MPI call moves at most this much: its counts are ints, and some file systems stop at 2 GiB.
#define CHUNK_BYTES ((size_t)1 << 30)

struct gidd_file {
    MPI_File mpi;
    char path[]; // for messages
};

enum { TEXT_SIZE = MPI_MAX_ERROR_STRING + 128 };

// What MPI says, and the system's reason, which MPI's text often hides: errno as the failed call
// left it, if the caller had set it to 0 before.
static const char *mpi_text(int code, char text[TEXT_SIZE])
{
    int length = 0, reason = errno;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) {
        length = snprintf(text, MPI_MAX_ERROR_STRING, "MPI error %d", code);
    }
    if (reason != 0) {
        (void)snprintf(text + length, (size_t)(TEXT_SIZE - length), " (%s)", strerror(reason));
    }
    return text;
}

// Bytes free for this user where `path` is, -1 if unknown. A hint for messages, never a proof.
static long long free_bytes(const char *path)
{
    struct statvfs info;
    return statvfs(path, &info) == 0 ? (long long)info.f_bavail * (long long)info.f_frsize : -1;
}

// Reserving space finds most full disks before anything is written. File systems that cannot
// reserve say so; that is no failure. Not posix_fallocate: where the file system cannot, it reads
// and rewrites a byte of every block, beside the other ranks' writes.
static gidd_status reserve(const char *path, int64_t bytes)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot create %s: %s", path, strerror(errno));
    }
    gidd_status status = GIDD_OK;
    int code = 0;
    do {
        code = fallocate(fd, 0, 0, (off_t)bytes) == 0 ? 0 : errno;
    } while (code == EINTR);
    if (code == ENOSPC || code == EDQUOT || code == EFBIG || code == EIO) {
        status = gidd_fail(GIDD_ERR_IO, "cannot reserve %lld bytes for %s (%lld free): %s",
                           (long long)bytes, path, free_bytes(path), strerror(code));
    } else if (ftruncate(fd, (off_t)bytes) != 0) {
        status = gidd_fail(GIDD_ERR_IO, "cannot make %s %lld bytes long (%lld free): %s", path,
                           (long long)bytes, free_bytes(path), strerror(errno));
    }
    if (close(fd) != 0 && status == GIDD_OK) {
        status = gidd_fail(GIDD_ERR_IO, "cannot close %s: %s", path, strerror(errno));
    }
    return status;
}

static gidd_status open_mpi(const char *path, int mode, gidd_status refusal, gidd_file **out_p)
{
    size_t length = strlen(path) + 1;
    gidd_file *file = malloc(sizeof *file + length);
    if (file == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for file %s", path);
    }
    memcpy(file->path, path, length);
    errno = 0;
    int code = MPI_File_open(MPI_COMM_SELF, file->path, mode, MPI_INFO_NULL, &file->mpi);
    if (code != MPI_SUCCESS) {
        char text[TEXT_SIZE];
        int class = MPI_ERR_OTHER;
        (void)MPI_Error_class(code, &class);
        free(file);
        return gidd_fail(class == MPI_ERR_NO_SUCH_FILE ? GIDD_ERR_MISSING : refusal,
                         "cannot open %s: %s", path, mpi_text(code, text));
    }
    *out_p = file;
    return GIDD_OK;
}

gidd_status gidd_file_create(const char *path, int64_t bytes, gidd_file **out_p)
{
    if (bytes > 0) {
        GIDD_TRY(reserve(path, bytes));
    }
    return open_mpi(path, MPI_MODE_CREATE | MPI_MODE_RDWR, GIDD_ERR_OUTPUT, out_p);
}

gidd_status gidd_file_open(const char *path, gidd_file **out_p)
{
    return open_mpi(path, MPI_MODE_RDONLY, GIDD_ERR_IO, out_p);
}

gidd_status gidd_file_write_at(gidd_file *file, int64_t offset, const void *data, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        size_t chunk = bytes - done < CHUNK_BYTES ? bytes - done : CHUNK_BYTES;
        MPI_Status mpi_status;
        int count = 0;
        errno = 0;
        int code = MPI_File_write_at(file->mpi, (MPI_Offset)offset + (MPI_Offset)done,
                                     (const char *)data + done, (int)chunk, MPI_BYTE, &mpi_status);
        char text[TEXT_SIZE] = "short write";
        // The code alone proves nothing: a full disk has been reported as success with a short
        // count.
        if (code != MPI_SUCCESS || MPI_Get_count(&mpi_status, MPI_BYTE, &count) != MPI_SUCCESS ||
            (size_t)count != chunk) {
            return gidd_fail(GIDD_ERR_IO,
                             "cannot write %s at %lld: wrote %d of %zu bytes, %zu needed in all, "
                             "%lld free: %s",
                             file->path, (long long)offset + (long long)done, count, chunk,
                             bytes - done, free_bytes(file->path),
                             code != MPI_SUCCESS ? mpi_text(code, text) : text);
        }
        done += chunk;
    }
    return GIDD_OK;
}

gidd_status gidd_file_read_at(gidd_file *file, int64_t offset, void *data, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        size_t chunk = bytes - done < CHUNK_BYTES ? bytes - done : CHUNK_BYTES;
        MPI_Status mpi_status;
        int count = 0;
        errno = 0;
        int code = MPI_File_read_at(file->mpi, (MPI_Offset)offset + (MPI_Offset)done,
                                    (char *)data + done, (int)chunk, MPI_BYTE, &mpi_status);
        if (code != MPI_SUCCESS || MPI_Get_count(&mpi_status, MPI_BYTE, &count) != MPI_SUCCESS) {
            char text[TEXT_SIZE];
            return gidd_fail(GIDD_ERR_IO, "cannot read %s at %lld: %s", file->path,
                             (long long)offset + (long long)done, mpi_text(code, text));
        }
        if ((size_t)count != chunk) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s ends too early: %d of %zu bytes at %lld",
                             file->path, count, chunk, (long long)offset + (long long)done);
        }
        done += chunk;
    }
    return GIDD_OK;
}

gidd_status gidd_file_size(gidd_file *file, int64_t *bytes_p)
{
    MPI_Offset size = 0;
    errno = 0;
    int code = MPI_File_get_size(file->mpi, &size);
    if (code != MPI_SUCCESS) {
        char text[TEXT_SIZE];
        return gidd_fail(GIDD_ERR_IO, "cannot tell the size of %s: %s", file->path,
                         mpi_text(code, text));
    }
    *bytes_p = (int64_t)size;
    return GIDD_OK;
}

gidd_status gidd_file_sync(gidd_file *file)
{
    errno = 0;
    int code = MPI_File_sync(file->mpi);
    if (code != MPI_SUCCESS) {
        char text[TEXT_SIZE];
        return gidd_fail(GIDD_ERR_IO, "cannot sync %s (%lld free): %s", file->path,
                         free_bytes(file->path), mpi_text(code, text));
    }
    return GIDD_OK;
}

gidd_status gidd_file_close(gidd_file **file_p)
{
    gidd_file *file = *file_p;
    if (file == NULL) {
        return GIDD_OK;
    }
    *file_p = NULL;
    gidd_status status = GIDD_OK;
    errno = 0;
    int code = MPI_File_close(&file->mpi);
    if (code != MPI_SUCCESS) {
        char text[TEXT_SIZE];
        status = gidd_fail(GIDD_ERR_IO, "cannot close %s: %s", file->path, mpi_text(code, text));
    }
    free(file);
    return status;
}
