/* SPDX-License-Identifier: Apache-2.0
 *
 * One shard file. HDF5 lays it out in memory and its bytes are written here: HDF5 reports a full
 * disk late or not at all, and does not get over it (it crashes when the process ends). The bytes
 * depend on the documents alone: object times are off, the format bounds are fixed, and no host,
 * path or time is stored.
 */
#include "io/shard.h"

#include "io/shard_files.h"
#include "io/shard_hdf5.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_IDS = 32 * GIDD_SHARD_CHUNK_IDS };

struct gidd_shard_writer {
    char *path;
    char *temporary;
    hid_t file;
    hid_t tokens;
    gidd_digest *digest; // of the ids, then of the offsets
    uint64_t *offsets;   // [document_count + 1]
    int64_t offset_room; // entries allocated
    int64_t document_count;
    int64_t token_count; // appended; of these, the last `buffered` are still in the buffer
    int64_t buffered;
    void *image; // the laid out file, given up by HDF5 when it was closed
    int32_t vocab_size;
    char tokenizer_digest[GIDD_DIGEST_SIZE];
    uint16_t buffer[BUFFER_IDS];
};

// HDF5's memory driver asks these for the memory of the file, and gives it back at the close, when
// the file is complete (until then it is marked as being written). That is where it is kept.
static void *image_malloc(size_t size, H5FD_file_image_op_t op, void *context)
{
    (void)op;
    (void)context;
    return malloc(size);
}

static void *image_realloc(void *image, size_t size, H5FD_file_image_op_t op, void *context)
{
    (void)op;
    (void)context;
    return realloc(image, size);
}

static herr_t image_free(void *image, H5FD_file_image_op_t op, void *context)
{
    gidd_shard_writer *writer = context;
    if (op == H5FD_FILE_IMAGE_OP_FILE_CLOSE && writer->image == NULL) {
        writer->image = image;
    } else {
        free(image);
    }
    return 0;
}

static void *share_context(void *context)
{
    return context;
}

static herr_t forget_context(void *context)
{
    (void)context;
    return 0;
}

static hid_t create_file(gidd_shard_writer *writer)
{
    enum { GROWTH = 8 << 20, NOT_STORED = 0 };
    H5FD_file_image_callbacks_t callbacks = {.image_malloc = image_malloc,
                                             .image_realloc = image_realloc,
                                             .image_free = image_free,
                                             .udata_copy = share_context,
                                             .udata_free = forget_context,
                                             .udata = writer};
    hid_t file = -1;
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    hid_t create = H5Pcreate(H5P_FILE_CREATE);
    if (access >= 0 && create >= 0 && H5Pset_fapl_core(access, GROWTH, NOT_STORED) >= 0 &&
        H5Pset_file_image_callbacks(access, &callbacks) >= 0 &&
        H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0 &&
        H5Pset_obj_track_times(create, 0) >= 0) {
        file = H5Fcreate(writer->temporary, H5F_ACC_TRUNC, create, access);
    }
    if (create >= 0) {
        (void)H5Pclose(create);
    }
    if (access >= 0) {
        (void)H5Pclose(access);
    }
    return file;
}

// An empty one-dimensional dataset that can grow, with checksums.
static hid_t create_dataset(hid_t file, const char *name, hid_t type, hsize_t chunk)
{
    hid_t dataset = -1;
    hsize_t length = 0, unlimited = H5S_UNLIMITED;
    hid_t space = H5Screate_simple(1, &length, &unlimited);
    hid_t create = H5Pcreate(H5P_DATASET_CREATE);
    if (space >= 0 && create >= 0 && H5Pset_chunk(create, 1, &chunk) >= 0 &&
        H5Pset_fletcher32(create) >= 0 && H5Pset_obj_track_times(create, 0) >= 0) {
        dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
    }
    if (create >= 0) {
        (void)H5Pclose(create);
    }
    if (space >= 0) {
        (void)H5Sclose(space);
    }
    return dataset;
}

static herr_t extend_dataset(hid_t dataset, hid_t type, int64_t first, int64_t count,
                             const void *values)
{
    hsize_t start = (hsize_t)first, length = (hsize_t)count, total = start + length;
    if (H5Dset_extent(dataset, &total) < 0) {
        return -1;
    }
    herr_t result = -1;
    hid_t space = H5Dget_space(dataset);
    hid_t memory = H5Screate_simple(1, &length, NULL);
    if (space >= 0 && memory >= 0 &&
        H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, NULL, &length, NULL) >= 0) {
        result = H5Dwrite(dataset, type, memory, space, H5P_DEFAULT, values);
    }
    if (memory >= 0) {
        (void)H5Sclose(memory);
    }
    if (space >= 0) {
        (void)H5Sclose(space);
    }
    return result;
}

static herr_t write_attribute(hid_t file, const char *name, hid_t type, const void *value)
{
    herr_t result = -1;
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute =
        space >= 0 ? H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT) : -1;
    if (attribute >= 0) {
        result = H5Awrite(attribute, type, value);
        if (H5Aclose(attribute) < 0) {
            result = -1;
        }
    }
    if (space >= 0) {
        (void)H5Sclose(space);
    }
    return result;
}

static herr_t write_number(hid_t file, const char *name, int64_t value)
{
    return write_attribute(file, name, H5T_STD_I64LE, &value);
}

static herr_t write_text(hid_t file, const char *name, const char *value)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type < 0) {
        return -1;
    }
    herr_t result = -1;
    if (H5Tset_size(type, strlen(value)) >= 0 && H5Tset_strpad(type, H5T_STR_NULLPAD) >= 0) {
        result = write_attribute(file, name, type, value);
    }
    (void)H5Tclose(type);
    return result;
}

static gidd_status start_file(gidd_shard_writer *writer)
{
    writer->file = create_file(writer);
    if (writer->file < 0) {
        return gidd_hdf5_fail(GIDD_ERR_NOMEM, "cannot lay out %s", writer->temporary);
    }
    writer->tokens = create_dataset(writer->file, "tokens", H5T_STD_U16LE, GIDD_SHARD_CHUNK_IDS);
    if (writer->tokens < 0) {
        return gidd_hdf5_fail(GIDD_ERR_NOMEM, "cannot create the dataset of %s", writer->temporary);
    }
    return GIDD_OK;
}

gidd_status gidd_shard_writer_create(const char *path, const char *tokenizer_digest,
                                     int32_t vocab_size, gidd_shard_writer **writer_p)
{
    if (!gidd_digest_valid(tokenizer_digest) || vocab_size < 1 || vocab_size > 65536) {
        return gidd_fail(GIDD_ERR_ARG, "no digest, or a vocabulary of %d ids", vocab_size);
    }
    gidd_shard_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to write %s", path);
    }
    gidd_status status = GIDD_OK;
    size_t size = strlen(path) + sizeof ".tmp";
    writer->file = -1;
    writer->tokens = -1;
    writer->vocab_size = vocab_size;
    memcpy(writer->tokenizer_digest, tokenizer_digest, GIDD_DIGEST_SIZE);
    writer->path = strdup(path);
    writer->temporary = malloc(size);
    writer->digest = gidd_digest_create();
    writer->offset_room = 1024;
    writer->offsets = calloc((size_t)writer->offset_room, sizeof *writer->offsets);
    if (writer->path == NULL || writer->temporary == NULL || writer->digest == NULL ||
        writer->offsets == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "no memory to write %s", path);
        goto out;
    }
    (void)snprintf(writer->temporary, size, "%s.tmp", path);
    GIDD_TRY_GOTO(gidd_file_write(writer->temporary, "", 0)); // whether it can be created
    gidd_hdf5_lock();
    status = start_file(writer);
    gidd_hdf5_unlock();
out:
    if (status != GIDD_OK) {
        gidd_shard_writer_destroy(writer);
        return status;
    }
    *writer_p = writer;
    return GIDD_OK;
}

static gidd_status flush_tokens(gidd_shard_writer *writer)
{
    gidd_status status = GIDD_OK;
    int64_t first = writer->token_count - writer->buffered;
    if (writer->buffered == 0) {
        return GIDD_OK;
    }
    gidd_hdf5_lock();
    if (extend_dataset(writer->tokens, H5T_NATIVE_UINT16, first, writer->buffered, writer->buffer) <
        0) {
        status =
            gidd_hdf5_fail(GIDD_ERR_NOMEM, "cannot lay out the tokens of %s", writer->temporary);
    }
    gidd_hdf5_unlock();
    writer->buffered = 0;
    return status;
}

static gidd_status add_offset(gidd_shard_writer *writer)
{
    if (writer->document_count + 1 == writer->offset_room) {
        int64_t room = writer->offset_room * 2;
        uint64_t *grown = realloc(writer->offsets, (size_t)room * sizeof *grown);
        if (grown == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for the offsets of %s", writer->path);
        }
        writer->offsets = grown;
        writer->offset_room = room;
    }
    writer->document_count++;
    writer->offsets[writer->document_count] = (uint64_t)writer->token_count;
    return GIDD_OK;
}

gidd_status gidd_shard_writer_append(gidd_shard_writer *writer, const uint16_t *ids, int64_t count)
{
    if (count < 1) {
        return gidd_fail(GIDD_ERR_ARG, "a document of %lld ids", (long long)count);
    }
    for (int64_t i = 0; i < count; i++) {
        if (ids[i] >= writer->vocab_size) {
            return gidd_fail(GIDD_ERR_ARG, "id %u does not fit a vocabulary of %d", ids[i],
                             writer->vocab_size);
        }
    }
    gidd_digest_update(writer->digest, ids, (size_t)count * sizeof *ids);
    while (count > 0) {
        int64_t room = BUFFER_IDS - writer->buffered;
        int64_t part = count < room ? count : room;
        memcpy(writer->buffer + writer->buffered, ids, (size_t)part * sizeof *ids);
        writer->buffered += part;
        writer->token_count += part;
        ids += part;
        count -= part;
        if (writer->buffered == BUFFER_IDS) {
            GIDD_TRY(flush_tokens(writer));
        }
    }
    return add_offset(writer);
}

static gidd_status write_rest(gidd_shard_writer *writer)
{
    hid_t offsets =
        create_dataset(writer->file, "offsets", H5T_STD_U64LE, GIDD_SHARD_CHUNK_OFFSETS);
    if (offsets < 0) {
        return gidd_hdf5_fail(GIDD_ERR_NOMEM, "cannot create the offsets of %s", writer->temporary);
    }
    gidd_status status = GIDD_OK;
    if (extend_dataset(offsets, H5T_NATIVE_UINT64, 0, writer->document_count + 1, writer->offsets) <
        0) {
        status =
            gidd_hdf5_fail(GIDD_ERR_NOMEM, "cannot lay out the offsets of %s", writer->temporary);
    }
    // What the write left in a cache fails here or nowhere.
    if (H5Dclose(offsets) < 0 && status == GIDD_OK) {
        status =
            gidd_hdf5_fail(GIDD_ERR_NOMEM, "cannot finish the offsets of %s", writer->temporary);
    }
    GIDD_TRY(status);
    if (write_text(writer->file, "format", "gidd-shard") < 0 ||
        write_number(writer->file, "version", GIDD_SHARD_VERSION) < 0 ||
        write_text(writer->file, "tokenizer_digest", writer->tokenizer_digest) < 0 ||
        write_number(writer->file, "vocab_size", writer->vocab_size) < 0 ||
        write_number(writer->file, "document_count", writer->document_count) < 0 ||
        write_number(writer->file, "token_count", writer->token_count) < 0) {
        return gidd_hdf5_fail(GIDD_ERR_NOMEM, "cannot write the attributes of %s",
                              writer->temporary);
    }
    return GIDD_OK;
}

// Closes both handles whatever happens; the first failure is the one reported.
static gidd_status close_file(gidd_shard_writer *writer)
{
    gidd_status status = GIDD_OK;
    if (writer->tokens >= 0 && H5Dclose(writer->tokens) < 0) {
        status =
            gidd_hdf5_fail(GIDD_ERR_NOMEM, "cannot finish the tokens of %s", writer->temporary);
    }
    writer->tokens = -1;
    if (writer->file >= 0 && H5Fclose(writer->file) < 0 && status == GIDD_OK) {
        status = gidd_hdf5_fail(GIDD_ERR_NOMEM, "cannot close %s", writer->temporary);
    }
    writer->file = -1;
    return status;
}

// Lays out the rest and closes; *size_p is the size of writer->image.
static gidd_status finish_image(gidd_shard_writer *writer, size_t *size_p)
{
    GIDD_TRY(write_rest(writer));
    hid_t tokens = writer->tokens;
    writer->tokens = -1;
    if (H5Dclose(tokens) < 0) {
        return gidd_hdf5_fail(GIDD_ERR_NOMEM, "cannot finish the tokens of %s", writer->temporary);
    }
    ssize_t size = H5Fflush(writer->file, H5F_SCOPE_GLOBAL) < 0
                       ? -1
                       : H5Fget_file_image(writer->file, NULL, 0);
    if (size <= 0) {
        return gidd_hdf5_fail(GIDD_ERR_NOMEM, "cannot finish %s", writer->temporary);
    }
    GIDD_TRY(close_file(writer));
    if (writer->image == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "HDF5 kept the bytes of %s", writer->temporary);
    }
    *size_p = (size_t)size;
    return GIDD_OK;
}

gidd_status gidd_shard_writer_commit(gidd_shard_writer *writer, gidd_shard_entry *entry_p)
{
    gidd_shard_entry entry = {.document_count = writer->document_count,
                              .token_count = writer->token_count};
    size_t size = 0;
    GIDD_TRY(flush_tokens(writer));
    gidd_hdf5_lock();
    gidd_status status = finish_image(writer, &size);
    gidd_hdf5_unlock();
    GIDD_TRY(status);
    GIDD_TRY(gidd_file_write(writer->temporary, writer->image, size));
    gidd_digest_update(writer->digest, writer->offsets,
                       (size_t)(writer->document_count + 1) * sizeof *writer->offsets);
    gidd_digest_text(writer->digest, entry.digest);
    GIDD_TRY(gidd_digest_file(writer->temporary, entry.file_digest, &size));
    entry.file_bytes = (int64_t)size;
    GIDD_TRY(gidd_shard_file_verify(writer->temporary, &entry, writer->tokenizer_digest,
                                    writer->vocab_size, NULL));
    GIDD_TRY(gidd_file_commit(writer->temporary, writer->path));
    *entry_p = entry;
    return GIDD_OK;
}

void gidd_shard_writer_destroy(gidd_shard_writer *writer)
{
    if (writer == NULL) {
        return;
    }
    gidd_hdf5_lock();
    if (close_file(writer) != GIDD_OK) {
        // The file is being thrown away.
    }
    gidd_hdf5_unlock();
    if (writer->temporary != NULL) {
        (void)unlink(writer->temporary); // gone already when it was committed
    }
    gidd_digest_destroy(writer->digest);
    free(writer->image);
    free(writer->offsets);
    free(writer->temporary);
    free(writer->path);
    free(writer);
}
