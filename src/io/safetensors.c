/* SPDX-License-Identifier: Apache-2.0 */
#include "io/safetensors.h"

#include "base/half.h"
#include "io/safetensors_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LENGTH_BYTES = 8, CHUNK_BYTES = 64 << 10 };

struct gidd_safetensors {
    char                   *path;
    int                     descriptor; /* -1: in memory */
    const char             *memory;     /* borrowed */
    int64_t                 size;       /* of the file, in bytes */
    int64_t                 data_at;    /* first byte of the data */
    gidd_safetensors_header header;
    uint64_t                chunk[CHUNK_BYTES / sizeof(uint64_t)]; /* before conversion; aligned for all types */
};

// All of [at, at + bytes), or a story.
static gidd_status read_bytes(gidd_safetensors *file, int64_t at, void *bytes, size_t count)
{
    char *to = bytes;
    if (file->memory != NULL) {
        memcpy(to, file->memory + at, count);
        return GIDD_OK;
    }
    while (count > 0) {
        ssize_t got = pread(file->descriptor, to, count, at);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return gidd_fail(GIDD_ERR_IO, "cannot read %s: %s", file->path, strerror(errno));
        }
        if (got == 0) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s has become shorter while it was read", file->path);
        }
        to += got;
        at += got;
        count -= (size_t)got;
    }
    return GIDD_OK;
}

static gidd_status read_header(gidd_safetensors *file)
{
    unsigned char word[LENGTH_BYTES];
    uint64_t      bytes = 0;
    if (file->size < LENGTH_BYTES) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s has %" PRId64 " bytes: not a safetensors file", file->path, file->size);
    }
    GIDD_TRY(read_bytes(file, 0, word, sizeof word));
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) {
        bytes = bytes << 8 | word[i];
    }
    if (bytes > GIDD_SAFETENSORS_HEADER_MAX) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: its header has %" PRIu64 " bytes, at most %d are taken: not a safetensors file?",
                         file->path, bytes, GIDD_SAFETENSORS_HEADER_MAX);
    }
    if ((int64_t)bytes > file->size - LENGTH_BYTES) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: its header of %" PRIu64 " bytes goes beyond the end of the file: it is cut off",
                         file->path, bytes);
    }
    char *text = malloc((size_t)bytes + 1);
    if (text == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the header of %s", file->path);
    }
    file->data_at = LENGTH_BYTES + (int64_t)bytes;
    gidd_status status = read_bytes(file, LENGTH_BYTES, text, (size_t)bytes);
    if (status == GIDD_OK) {
        status = gidd_safetensors_header_decode(file->path, text, (size_t)bytes, file->size - file->data_at, &file->header);
    }
    free(text);
    return status;
}

static gidd_status open_descriptor(gidd_safetensors *file)
{
    struct stat about;
    file->descriptor = open(file->path, O_RDONLY | O_CLOEXEC);
    if (file->descriptor < 0) {
        return gidd_fail(errno == ENOENT || errno == ENOTDIR ? GIDD_ERR_MISSING : GIDD_ERR_IO, "cannot open %s: %s", file->path,
                         strerror(errno));
    }
    if (fstat(file->descriptor, &about) != 0 || !S_ISREG(about.st_mode)) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s is not a regular file", file->path);
    }
    file->size = about.st_size;
    return GIDD_OK;
}

static gidd_status create_reader(const char *name, gidd_safetensors **file_p)
{
    gidd_safetensors *file = calloc(1, sizeof *file);
    char             *path = strdup(name);
    if (file == NULL || path == NULL) {
        free(file);
        free(path);
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to open %s", name);
    }
    file->path = path;
    file->descriptor = -1;
    *file_p = file;
    return GIDD_OK;
}

gidd_status gidd_safetensors_open(const char *path, gidd_safetensors **file_p)
{
    gidd_safetensors *file = NULL;
    GIDD_TRY(create_reader(path, &file));
    gidd_status status = open_descriptor(file);
    if (status == GIDD_OK) {
        status = read_header(file);
    }
    if (status != GIDD_OK) {
        gidd_safetensors_close(file);
        return status;
    }
    *file_p = file;
    return GIDD_OK;
}

gidd_status gidd_safetensors_open_memory(const char *name, const void *bytes, size_t size, gidd_safetensors **file_p)
{
    gidd_safetensors *file = NULL;
    GIDD_TRY(create_reader(name, &file));
    file->memory = bytes;
    file->size = (int64_t)size;
    gidd_status status = read_header(file);
    if (status != GIDD_OK) {
        gidd_safetensors_close(file);
        return status;
    }
    *file_p = file;
    return GIDD_OK;
}

void gidd_safetensors_close(gidd_safetensors *file)
{
    if (file == NULL) {
        return;
    }
    if (file->descriptor >= 0) {
        (void)close(file->descriptor);
    }
    gidd_safetensors_header_release(&file->header);
    free(file->path);
    free(file);
}

const char *gidd_safetensors_path(const gidd_safetensors *file)
{
    return file->path;
}

int64_t gidd_safetensors_count(const gidd_safetensors *file)
{
    return file->header.count;
}

const gidd_safetensors_tensor *gidd_safetensors_at(const gidd_safetensors *file, int64_t index)
{
    GIDD_ASSERT(index >= 0 && index < file->header.count);
    return &file->header.tensors[index];
}

const gidd_safetensors_tensor *gidd_safetensors_find(const gidd_safetensors *file, const char *name)
{
    for (int64_t i = 0; i < file->header.count; i++) {
        if (strcmp(file->header.tensors[i].name, name) == 0) {
            return &file->header.tensors[i];
        }
    }
    return NULL;
}

const char *gidd_safetensors_metadata(const gidd_safetensors *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header.root, "__metadata__"), key));
}

static void format_shape(int dims, const int64_t *shape, char *text, size_t capacity)
{
    size_t used = (size_t)snprintf(text, capacity, "[");
    for (int d = 0; d < dims && used < capacity; d++) {
        used += (size_t)snprintf(text + used, capacity - used, "%s%" PRId64, d > 0 ? ", " : "", shape[d]);
    }
    if (used < capacity) {
        (void)snprintf(text + used, capacity - used, "]");
    }
}

gidd_status gidd_safetensors_expect(const gidd_safetensors *file, const char *name, int dims, const int64_t *shape,
                                    const gidd_safetensors_tensor **tensor_p)
{
    const gidd_safetensors_tensor *tensor = gidd_safetensors_find(file, name);
    if (tensor == NULL) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: tensor %s is missing", file->path, name);
    }
    if (tensor->dtype == GIDD_SAFETENSORS_OTHER) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: tensor %s has dtype %s, must be F32, BF16, F16 or F64", file->path, name,
                         tensor->dtype_name);
    }
    if (tensor->dims != dims || memcmp(tensor->shape, shape, (size_t)dims * sizeof *shape) != 0) {
        char found[192], wanted[192];
        format_shape(tensor->dims, tensor->shape, found, sizeof found);
        format_shape(dims, shape, wanted, sizeof wanted);
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: tensor %s has shape %s, must be %s", file->path, name, found, wanted);
    }
    *tensor_p = tensor;
    return GIDD_OK;
}

static void convert(gidd_safetensors_dtype dtype, const void *from, int64_t count, float *to)
{
    const uint16_t *half = from;
    const double   *wide = from;
    if (dtype == GIDD_SAFETENSORS_BF16) {
        for (int64_t i = 0; i < count; i++) {
            to[i] = gidd_bf16_to_float(half[i]);
        }
    } else if (dtype == GIDD_SAFETENSORS_F16) {
        for (int64_t i = 0; i < count; i++) {
            to[i] = gidd_fp16_to_float(half[i]);
        }
    } else {
        for (int64_t i = 0; i < count; i++) {
            to[i] = (float)wide[i];
        }
    }
}

gidd_status gidd_safetensors_read(gidd_safetensors *file, const gidd_safetensors_tensor *tensor, int64_t first,
                                  int64_t count, float *values)
{
    if (tensor->dtype == GIDD_SAFETENSORS_OTHER) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: tensor %s has dtype %s, which holds no floating-point numbers", file->path,
                         tensor->name, tensor->dtype_name);
    }
    GIDD_ASSERT(first >= 0 && count >= 0 && count <= tensor->count - first);
    const int64_t width = gidd_safetensors_element_bytes(tensor->dtype);
    int64_t       at = file->data_at + tensor->first + first * width;
    if (tensor->dtype == GIDD_SAFETENSORS_F32) {
        return read_bytes(file, at, values, (size_t)(count * width));
    }
    for (int64_t done = 0, part = CHUNK_BYTES / width; done < count; done += part) {
        part = part < count - done ? part : count - done;
        GIDD_TRY(read_bytes(file, at + done * width, file->chunk, (size_t)(part * width)));
        convert(tensor->dtype, file->chunk, part, values + done);
    }
    return GIDD_OK;
}
