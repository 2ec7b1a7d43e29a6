/* SPDX-License-Identifier: Apache-2.0 */
#include "io/shard_hdf5.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// Guards a library that is itself one piece of process-wide state.
static pthread_mutex_t hdf5_mutex = PTHREAD_MUTEX_INITIALIZER;

void gidd_hdf5_lock(void)
{
    (void)pthread_mutex_lock(&hdf5_mutex); // fails only for misuse
    (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void gidd_hdf5_unlock(void)
{
    (void)pthread_mutex_unlock(&hdf5_mutex);
}

// H5Ewalk2 from the innermost error outwards: the first is the cause.
static herr_t keep_innermost(unsigned depth, const H5E_error2_t *error, void *user)
{
    char *text = user;
    if (depth == 0 && error->desc != NULL) {
        (void)snprintf(text, 512, "%s", error->desc);
    }
    return 0;
}

gidd_status gidd_hdf5_fail_at(gidd_status code, const char *file, int line, const char *func,
                              const char *format, ...)
{
    char reason[512] = "no reason given";
    char text[512];
    va_list args;
    (void)H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, reason);
    (void)H5Eclear2(H5E_DEFAULT);
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return gidd_fail_at(code, file, line, func, "%s (HDF5: %s)", text, reason);
}

static gidd_status check_attribute(hid_t file, const char *name, const char *attribute, hid_t type,
                                   size_t size, void *value)
{
    gidd_status status = GIDD_OK;
    hid_t id = H5Aopen(file, attribute, H5P_DEFAULT);
    hid_t space = id >= 0 ? H5Aget_space(id) : -1;
    hid_t stored = id >= 0 ? H5Aget_type(id) : -1;
    if (id < 0 || space < 0 || stored < 0) {
        status = gidd_hdf5_fail(GIDD_ERR_CORRUPT, "%s: no attribute %s", name, attribute);
    } else if (H5Tequal(stored, type) <= 0 || H5Sget_simple_extent_npoints(space) != 1 ||
               H5Tget_size(stored) != size) {
        status = gidd_fail(GIDD_ERR_CORRUPT, "%s: attribute %s has another type", name, attribute);
    } else if (H5Aread(id, type, value) < 0) {
        status = gidd_hdf5_fail(GIDD_ERR_CORRUPT, "%s: cannot read attribute %s", name, attribute);
    }
    if (stored >= 0) {
        (void)H5Tclose(stored);
    }
    if (space >= 0) {
        (void)H5Sclose(space);
    }
    if (id >= 0) {
        (void)H5Aclose(id);
    }
    return status;
}

static gidd_status check_number(hid_t file, const char *name, const char *attribute,
                                int64_t expected)
{
    int64_t value = 0;
    GIDD_TRY(check_attribute(file, name, attribute, H5T_STD_I64LE, sizeof value, &value));
    if (value != expected) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: %s is %lld, expected %lld", name, attribute,
                         (long long)value, (long long)expected);
    }
    return GIDD_OK;
}

static gidd_status check_text(hid_t file, const char *name, const char *attribute,
                              const char *expected)
{
    char value[64] = "";
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type < 0 || H5Tset_size(type, strlen(expected)) < 0 ||
        H5Tset_strpad(type, H5T_STR_NULLPAD) < 0) {
        return gidd_hdf5_fail(GIDD_ERR_NOMEM, "%s: no string type", name);
    }
    gidd_status status = check_attribute(file, name, attribute, type, strlen(expected), value);
    (void)H5Tclose(type);
    GIDD_TRY(status);
    if (strcmp(value, expected) != 0) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: %s is %.32s, expected %s", name, attribute, value,
                         expected);
    }
    return GIDD_OK;
}

// One dimension, the type and the checksum filter are part of the format, not only habits of the
// writer.
static gidd_status check_dataset(hid_t dataset, const char *name, const char *what, hid_t type,
                                 int64_t *length_p)
{
    hid_t space = H5Dget_space(dataset);
    hid_t stored = H5Dget_type(dataset);
    hid_t plist = H5Dget_create_plist(dataset);
    hsize_t length = 0;
    int good = space >= 0 && stored >= 0 && plist >= 0 && H5Sget_simple_extent_ndims(space) == 1 &&
               H5Sget_simple_extent_dims(space, &length, NULL) == 1 && H5Tequal(stored, type) > 0 &&
               H5Pget_layout(plist) == H5D_CHUNKED && H5Pget_nfilters(plist) == 1;
    if (good) {
        unsigned flags = 0, config = 0;
        size_t values = 0;
        good = H5Pget_filter2(plist, 0, &flags, &values, NULL, 0, NULL, &config) ==
               H5Z_FILTER_FLETCHER32;
    }
    if (plist >= 0) {
        (void)H5Pclose(plist);
    }
    if (stored >= 0) {
        (void)H5Tclose(stored);
    }
    if (space >= 0) {
        (void)H5Sclose(space);
    }
    if (!good || length > INT64_MAX) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: dataset %s has another type, shape or filter", name,
                         what);
    }
    *length_p = (int64_t)length;
    return GIDD_OK;
}

// Random windows never come back to a chunk soon, and thousands of files may stay open: no cache of chunks.
static hid_t open_dataset(hid_t file, const char *what)
{
    hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
    if (access < 0 || H5Pset_chunk_cache(access, 0, 0, 1.0) < 0) {
        return -1;
    }
    hid_t dataset = H5Dopen2(file, what, access);
    (void)H5Pclose(access);
    return dataset;
}

static gidd_status open_file(const char *path, hid_t *file_p)
{
    gidd_status status = GIDD_OK;
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    // Some parallel file systems refuse locks, and shards never change once they have their name.
    hid_t file = access >= 0 && H5Pset_file_locking(access, 0, 1) >= 0
                     ? H5Fopen(path, H5F_ACC_RDONLY, access)
                     : -1;
    if (file < 0) { // at once: the next call that succeeds forgets the reason
        status = gidd_hdf5_fail(GIDD_ERR_CORRUPT, "%s is damaged or no shard", path);
    } else {
        *file_p = file;
    }
    if (access >= 0) {
        (void)H5Pclose(access);
    }
    return status;
}

static gidd_status check_contents(gidd_shard_file *file, const char *name,
                                  const char *tokenizer_digest, int32_t vocab_size)
{
    int64_t offset_count = 0;
    GIDD_TRY(check_text(file->file, name, "format", "gidd-shard"));
    GIDD_TRY(check_number(file->file, name, "version", GIDD_SHARD_VERSION));
    GIDD_TRY(check_text(file->file, name, "tokenizer_digest", tokenizer_digest));
    GIDD_TRY(check_number(file->file, name, "vocab_size", vocab_size));
    file->tokens = open_dataset(file->file, "tokens");
    if (file->tokens < 0) {
        return gidd_hdf5_fail(GIDD_ERR_CORRUPT, "%s: cannot open dataset tokens", name);
    }
    file->offsets = open_dataset(file->file, "offsets");
    if (file->offsets < 0) {
        return gidd_hdf5_fail(GIDD_ERR_CORRUPT, "%s: cannot open dataset offsets", name);
    }
    GIDD_TRY(check_dataset(file->tokens, name, "tokens", H5T_STD_U16LE, &file->token_count));
    GIDD_TRY(check_dataset(file->offsets, name, "offsets", H5T_STD_U64LE, &offset_count));
    if (offset_count < 1) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: dataset offsets is empty", name);
    }
    file->document_count = offset_count - 1;
    GIDD_TRY(check_number(file->file, name, "document_count", file->document_count));
    return check_number(file->file, name, "token_count", file->token_count);
}

gidd_status gidd_shard_file_open(const char *path, const char *name, const char *tokenizer_digest,
                                 int32_t vocab_size, gidd_shard_file *file_p)
{
    gidd_shard_file file = GIDD_SHARD_FILE_CLOSED;
    if (access(path, R_OK) != 0) {
        return gidd_fail(errno == ENOENT ? GIDD_ERR_MISSING : GIDD_ERR_IO,
                         "cannot open shard %s: %s", path, strerror(errno));
    }
    GIDD_TRY(open_file(path, &file.file));
    gidd_status status = check_contents(&file, name, tokenizer_digest, vocab_size);
    if (status != GIDD_OK) {
        gidd_shard_file_close(&file);
        return status;
    }
    *file_p = file;
    return GIDD_OK;
}

void gidd_shard_file_close(gidd_shard_file *file)
{
    if (file->offsets >= 0) {
        (void)H5Dclose(file->offsets); // read-only: nothing can be lost
    }
    if (file->tokens >= 0) {
        (void)H5Dclose(file->tokens);
    }
    if (file->file >= 0) {
        (void)H5Fclose(file->file);
    }
    *file = GIDD_SHARD_FILE_CLOSED;
}

struct extent {
    hid_t dataset;
    hid_t type;
    const char *what;
    int64_t first;
    int64_t count;
};

static gidd_status read_extent(const struct extent *extent, const char *name, void *values)
{
    gidd_status status = GIDD_OK;
    hsize_t start = (hsize_t)extent->first, length = (hsize_t)extent->count;
    hid_t space = H5Dget_space(extent->dataset);
    hid_t memory = H5Screate_simple(1, &length, NULL);
    if (space < 0 || memory < 0 ||
        H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, NULL, &length, NULL) < 0 ||
        H5Dread(extent->dataset, extent->type, memory, space, H5P_DEFAULT, values) < 0) {
        status = gidd_hdf5_fail(GIDD_ERR_CORRUPT, "%s: dataset %s is damaged in %lld to %lld", name,
                                extent->what, (long long)extent->first,
                                (long long)(extent->first + extent->count));
    }
    if (memory >= 0) {
        (void)H5Sclose(memory);
    }
    if (space >= 0) {
        (void)H5Sclose(space);
    }
    return status;
}

gidd_status gidd_shard_file_offsets(const gidd_shard_file *file, const char *name,
                                    uint64_t *offsets)
{
    int64_t count = file->document_count;
    const struct extent all = {file->offsets, H5T_NATIVE_UINT64, "offsets", 0, count + 1};
    GIDD_TRY(read_extent(&all, name, offsets));
    if (offsets[0] != 0 || offsets[count] != (uint64_t)file->token_count) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: dataset offsets covers %llu to %llu of %lld tokens",
                         name, (unsigned long long)offsets[0], (unsigned long long)offsets[count],
                         (long long)file->token_count);
    }
    for (int64_t d = 0; d < count; d++) {
        if (offsets[d + 1] <= offsets[d]) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s: dataset offsets does not rise at document %lld",
                             name, (long long)d);
        }
    }
    return GIDD_OK;
}

gidd_status gidd_shard_file_tokens(const gidd_shard_file *file, const char *name, int64_t first,
                                   int64_t count, uint16_t *ids)
{
    const struct extent window = {file->tokens, H5T_NATIVE_UINT16, "tokens", first, count};
    return count > 0 ? read_extent(&window, name, ids) : GIDD_OK;
}
