/* SPDX-License-Identifier: Apache-2.0 */
#include "io/safetensors.h"

#include "base/half.h"
#include "io/checkpoint_dir.h"
#include "io/safetensors_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK_ELEMENTS = 32 << 10, HEADER_ALIGN = 8 };

struct gidd_safetensors_writer {
    char                   *path, *temporary;
    FILE                   *stream;
    int64_t                 count; /* of entries */
    gidd_safetensors_dtype *dtypes; /* [count] */
    int64_t                *left;   /* [count] elements that are still to come */
    int64_t                 current;
    uint16_t                chunk[CHUNK_ELEMENTS];
};

static gidd_status no_memory(const char *path)
{
    return gidd_fail(GIDD_ERR_NOMEM, "no memory to write %s", path);
}

/* ---- the header ------------------------------------------------------------------------------------- */

// One tensor's entry, its bytes starting at *at_p, which moves behind them. NULL: out of memory or a bad name.
static json_t *build_entry(const gidd_safetensors_entry *entry, int64_t elements, int64_t *at_p)
{
    json_t *shape = json_array();
    int64_t first = *at_p;
    for (int d = 0; d < entry->dims; d++) {
        (void)json_array_append_new(shape, json_integer(entry->shape[d]));
    }
    *at_p += elements * gidd_safetensors_element_bytes(entry->dtype);
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", entry->dtype == GIDD_SAFETENSORS_BF16 ? "BF16" : "F32", "shape", shape,
                     "data_offsets", (json_int_t)first, (json_int_t)*at_p);
}

static gidd_status count_elements(const gidd_safetensors_entry *entry, int64_t *elements_p)
{
    int64_t elements = 1;
    int     good = entry->dims >= 0 && entry->dims <= GIDD_SAFETENSORS_DIMS_MAX &&
               (entry->dtype == GIDD_SAFETENSORS_F32 || entry->dtype == GIDD_SAFETENSORS_BF16);
    for (int d = 0; good && d < entry->dims; d++) {
        good = entry->shape[d] >= 1 && elements <= ((int64_t)1 << 42) / entry->shape[d];
        elements *= good ? entry->shape[d] : 1;
    }
    *elements_p = elements;
    return good ? GIDD_OK : gidd_fail(GIDD_ERR_ARG, "tensor %s has a dtype or shape that is not written", entry->name);
}

static gidd_status build_header(gidd_safetensors_writer *writer, const gidd_safetensors_entry *entries, json_t **root_p)
{
    json_t     *root = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    int64_t     at = 0;
    gidd_status status = root != NULL ? GIDD_OK : no_memory(writer->path);
    for (int64_t i = 0; status == GIDD_OK && i < writer->count; i++) {
        status = count_elements(&entries[i], &writer->left[i]);
        writer->dtypes[i] = entries[i].dtype;
        if (status == GIDD_OK && json_object_get(root, entries[i].name) != NULL) {
            status = gidd_fail(GIDD_ERR_ARG, "%s: tensor %s comes twice", writer->path, entries[i].name);
        }
        if (status == GIDD_OK &&
            json_object_set_new(root, entries[i].name, build_entry(&entries[i], writer->left[i], &at)) != 0) {
            status = gidd_fail(GIDD_ERR_ARG, "%s: the name of tensor %" PRId64 " is not UTF-8", writer->path, i);
        }
    }
    if (status != GIDD_OK) {
        json_decref(root);
        return status;
    }
    *root_p = root;
    return GIDD_OK;
}

static gidd_status put(gidd_safetensors_writer *writer, const void *bytes, size_t count)
{
    if (fwrite(bytes, 1, count, writer->stream) != count) {
        return gidd_fail(GIDD_ERR_IO, "cannot write %s: %s", writer->temporary, strerror(errno));
    }
    return GIDD_OK;
}

// The length, the text, and spaces up to where the data are aligned.
static gidd_status put_header(gidd_safetensors_writer *writer, const char *text)
{
    static const char spaces[HEADER_ALIGN] = {' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '};
    unsigned char     word[8];
    size_t            bytes = strlen(text), padding = (HEADER_ALIGN - bytes % HEADER_ALIGN) % HEADER_ALIGN;
    if (bytes + padding > GIDD_SAFETENSORS_HEADER_MAX) {
        return gidd_fail(GIDD_ERR_ARG, "%s: a header of %zu bytes is more than is read back", writer->path, bytes);
    }
    for (int i = 0; i < 8; i++) {
        word[i] = (unsigned char)((bytes + padding) >> 8 * i & 0xff);
    }
    GIDD_TRY(put(writer, word, sizeof word));
    GIDD_TRY(put(writer, text, bytes));
    return put(writer, spaces, padding);
}

static gidd_status write_header(gidd_safetensors_writer *writer, const gidd_safetensors_entry *entries)
{
    json_t *root = NULL;
    GIDD_TRY(build_header(writer, entries, &root));
    char *text = json_dumps(root, JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(root);
    if (text == NULL) {
        return no_memory(writer->path);
    }
    gidd_status status = put_header(writer, text);
    free(text);
    return status;
}

/* ---- the data --------------------------------------------------------------------------------------- */

static gidd_status prepare(gidd_safetensors_writer *writer, const char *path, int64_t count)
{
    writer->count = count;
    writer->path = strdup(path);
    writer->dtypes = calloc((size_t)count + 1, sizeof *writer->dtypes);
    writer->left = calloc((size_t)count + 1, sizeof *writer->left);
    if (writer->path == NULL || writer->dtypes == NULL || writer->left == NULL ||
        asprintf(&writer->temporary, "%s.tmp-%ld", path, (long)getpid()) < 0) {
        writer->temporary = NULL;
        return no_memory(path);
    }
    writer->stream = fopen(writer->temporary, "we");
    if (writer->stream == NULL) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot create %s: %s", writer->temporary, strerror(errno));
    }
    return GIDD_OK;
}

gidd_status gidd_safetensors_writer_create(const char *path, const gidd_safetensors_entry *entries, int64_t count,
                                           gidd_safetensors_writer **writer_p)
{
    gidd_safetensors_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL) {
        return no_memory(path);
    }
    gidd_status status = prepare(writer, path, count);
    if (status == GIDD_OK) {
        status = write_header(writer, entries);
    }
    if (status != GIDD_OK) {
        gidd_safetensors_writer_destroy(writer);
        return status;
    }
    *writer_p = writer;
    return GIDD_OK;
}

// A piece that lies within one tensor.
static gidd_status put_piece(gidd_safetensors_writer *writer, const float *values, int64_t count)
{
    if (writer->dtypes[writer->current] == GIDD_SAFETENSORS_F32) {
        return put(writer, values, (size_t)count * sizeof *values);
    }
    for (int64_t done = 0, part = CHUNK_ELEMENTS; done < count; done += part) {
        part = part < count - done ? part : count - done;
        for (int64_t i = 0; i < part; i++) {
            writer->chunk[i] = gidd_bf16_from_float(values[done + i]);
        }
        GIDD_TRY(put(writer, writer->chunk, (size_t)part * sizeof *writer->chunk));
    }
    return GIDD_OK;
}

gidd_status gidd_safetensors_write(gidd_safetensors_writer *writer, const float *values, int64_t count)
{
    while (count > 0) {
        while (writer->current < writer->count && writer->left[writer->current] == 0) {
            writer->current++;
        }
        if (writer->current == writer->count) {
            return gidd_fail(GIDD_ERR_ARG, "%s: %" PRId64 " elements too many", writer->path, count);
        }
        int64_t part = count < writer->left[writer->current] ? count : writer->left[writer->current];
        GIDD_TRY(put_piece(writer, values, part));
        writer->left[writer->current] -= part;
        values += part;
        count -= part;
    }
    return GIDD_OK;
}

static gidd_status sync_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    char       *parent = slash == NULL ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (parent == NULL) {
        return no_memory(path);
    }
    gidd_status status = gidd_checkpoint_sync_dir(parent);
    free(parent);
    return status;
}

gidd_status gidd_safetensors_writer_commit(gidd_safetensors_writer *writer)
{
    for (int64_t i = writer->current; i < writer->count; i++) {
        if (writer->left[i] > 0) {
            return gidd_fail(GIDD_ERR_ARG, "%s: tensor %" PRId64 " lacks %" PRId64 " elements", writer->path, i,
                             writer->left[i]);
        }
    }
    int bad = fflush(writer->stream) != 0 || fsync(fileno(writer->stream)) != 0;
    bad |= fclose(writer->stream) != 0;
    writer->stream = NULL;
    if (bad) {
        return gidd_fail(GIDD_ERR_IO, "cannot write %s: %s", writer->temporary, strerror(errno));
    }
    if (rename(writer->temporary, writer->path) != 0) {
        return gidd_fail(GIDD_ERR_IO, "cannot rename %s: %s", writer->temporary, strerror(errno));
    }
    free(writer->temporary);
    writer->temporary = NULL; // nothing to remove any more
    return sync_parent(writer->path);
}

void gidd_safetensors_writer_destroy(gidd_safetensors_writer *writer)
{
    if (writer == NULL) {
        return;
    }
    if (writer->stream != NULL) {
        (void)fclose(writer->stream);
    }
    if (writer->temporary != NULL) {
        (void)unlink(writer->temporary);
    }
    free(writer->temporary);
    free(writer->path);
    free(writer->dtypes);
    free(writer->left);
    free(writer);
}
