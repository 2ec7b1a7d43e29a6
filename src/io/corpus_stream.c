/* SPDX-License-Identifier: Apache-2.0 */
#include "io/corpus_stream.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK_BYTES = 1 << 18 };

struct gidd_corpus_stream {
    struct archive *archive;
    gidd_corpus_stream *parent; // whose present member this stream reads, or NULL
    char *block;                // [BLOCK_BYTES] what the parent gave last; libarchive reads from it
    char *drain;                // [BLOCK_BYTES] where bytes go that nobody wants
    char *name;
    char *member; // name of the present member, for messages
    int format;
    int opened;    // the first header was read
    int in_member; // its data are not exhausted
    int64_t entry_count;
    int64_t bytes_out;
};

static gidd_status fail_stream(const gidd_corpus_stream *stream, const char *what)
{
    const char *reason = archive_error_string(stream->archive);
    int in_member = stream->member != NULL && stream->member[0] != '\0';
    return gidd_fail(GIDD_ERR_CORRUPT, "%s%s%s: %s: %s", stream->name, in_member ? ": " : "",
                     in_member ? stream->member : "", what,
                     reason != NULL ? reason : "no reason given");
}

static gidd_status create_stream(const char *name, gidd_corpus_stream_format format,
                                 gidd_corpus_stream **stream_p)
{
    gidd_corpus_stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to open %s", name);
    }
    stream->format = (int)format;
    stream->name = strdup(name);
    stream->block = malloc(BLOCK_BYTES);
    stream->drain = malloc(BLOCK_BYTES);
    stream->archive = archive_read_new();
    struct archive *archive = stream->archive;
    int good = stream->name != NULL && stream->block != NULL && stream->drain != NULL &&
               archive != NULL && archive_read_support_filter_gzip(archive) >= ARCHIVE_WARN &&
               archive_read_support_filter_xz(archive) >= ARCHIVE_WARN &&
               archive_read_support_filter_zstd(archive) >= ARCHIVE_WARN;
    if (good && format != GIDD_CORPUS_STREAM_RAW) {
        good = archive_read_support_format_tar(archive) == ARCHIVE_OK &&
               archive_read_support_format_zip(archive) == ARCHIVE_OK;
    }
    if (good && format != GIDD_CORPUS_STREAM_ARCHIVE) {
        good = archive_read_support_format_raw(archive) == ARCHIVE_OK &&
               archive_read_support_format_empty(archive) == ARCHIVE_OK;
    }
    if (!good) {
        gidd_corpus_stream_close(stream);
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to open %s", name);
    }
    *stream_p = stream;
    return GIDD_OK;
}

void gidd_corpus_stream_close(gidd_corpus_stream *stream)
{
    if (stream != NULL) {
        if (stream->archive != NULL) {
            (void)archive_read_free(stream->archive); // reading: nothing to lose
        }
        free(stream->block);
        free(stream->drain);
        free(stream->member);
        free(stream->name);
        free(stream);
    }
}

const char *gidd_corpus_stream_name(const gidd_corpus_stream *stream)
{
    return stream->name;
}

gidd_status gidd_corpus_stream_open_file(const char *path, const char *name,
                                         gidd_corpus_stream_format format,
                                         gidd_corpus_stream **stream_p)
{
    gidd_corpus_stream *stream = NULL;
    if (access(path, R_OK) != 0) {
        return gidd_fail(errno == ENOENT ? GIDD_ERR_MISSING : GIDD_ERR_IO, "cannot open %s: %s",
                         path, strerror(errno));
    }
    GIDD_TRY(create_stream(name, format, &stream));
    if (archive_read_open_filename(stream->archive, path, BLOCK_BYTES) != ARCHIVE_OK) {
        gidd_status status = fail_stream(stream, "cannot be opened");
        gidd_corpus_stream_close(stream);
        return status;
    }
    *stream_p = stream;
    return GIDD_OK;
}

gidd_status gidd_corpus_stream_open_memory(const void *bytes, size_t size, const char *name,
                                           gidd_corpus_stream_format format,
                                           gidd_corpus_stream **stream_p)
{
    gidd_corpus_stream *stream = NULL;
    GIDD_TRY(create_stream(name, format, &stream));
    if (archive_read_open_memory(stream->archive, bytes, size) != ARCHIVE_OK) {
        gidd_status status = fail_stream(stream, "cannot be opened");
        gidd_corpus_stream_close(stream);
        return status;
    }
    *stream_p = stream;
    return GIDD_OK;
}

// libarchive's source of bytes: the present member of the parent.
static la_ssize_t pull_from_parent(struct archive *archive, void *context, const void **bytes)
{
    gidd_corpus_stream *stream = context;
    size_t got = 0;
    if (gidd_corpus_stream_read(stream->parent, stream->block, BLOCK_BYTES, &got) != GIDD_OK) {
        archive_set_error(archive, EIO, "%s", gidd_error_last()->text);
        return -1;
    }
    *bytes = stream->block;
    return (la_ssize_t)got;
}

gidd_status gidd_corpus_stream_open_member(gidd_corpus_stream *parent, const char *name,
                                           gidd_corpus_stream_format format,
                                           gidd_corpus_stream **stream_p)
{
    gidd_corpus_stream *stream = NULL;
    GIDD_TRY(create_stream(name, format, &stream));
    stream->parent = parent;
    if (archive_read_open(stream->archive, stream, NULL, pull_from_parent, NULL) != ARCHIVE_OK) {
        gidd_status status = fail_stream(stream, "cannot be opened");
        gidd_corpus_stream_close(stream);
        return status;
    }
    *stream_p = stream;
    return GIDD_OK;
}

int64_t gidd_corpus_stream_consumed(const gidd_corpus_stream *stream)
{
    return archive_filter_bytes(stream->archive, -1);
}

static int is_compressed(const gidd_corpus_stream *stream)
{
    return archive_filter_code(stream->archive, 0) != ARCHIVE_FILTER_NONE;
}

int gidd_corpus_stream_is_raw(const gidd_corpus_stream *stream)
{
    int format = archive_format(stream->archive);
    return format == ARCHIVE_FORMAT_RAW || format == ARCHIVE_FORMAT_EMPTY;
}

// The bomb rule, on what this stream gave out against what it took in.
static gidd_status check_ratio(const gidd_corpus_stream *stream)
{
    int64_t in = gidd_corpus_stream_consumed(stream);
    if (stream->bytes_out > (int64_t)128 << 20 &&
        stream->bytes_out / GIDD_CORPUS_STREAM_RATIO_MAX > in) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s expands more than %d times: refused", stream->name,
                         GIDD_CORPUS_STREAM_RATIO_MAX);
    }
    return GIDD_OK;
}

// Skipping inside libarchive would unpack any bomb to its end; in plain archives it is a seek.
static gidd_status drain_member(gidd_corpus_stream *stream)
{
    size_t got = BLOCK_BYTES;
    while (stream->in_member && got == BLOCK_BYTES) {
        GIDD_TRY(gidd_corpus_stream_read(stream, stream->drain, BLOCK_BYTES, &got));
    }
    return GIDD_OK;
}

// Once, when libarchive has looked at the content: what it found must be what was asked for.
static gidd_status check_opened(gidd_corpus_stream *stream)
{
    stream->opened = 1;
    if (archive_filter_count(stream->archive) > 2) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s is compressed more than once: refused",
                         stream->name);
    }
    if (gidd_corpus_stream_is_raw(stream) && !is_compressed(stream)) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s is neither gzip, xz nor zstd, as its name says",
                         stream->name);
    }
    return GIDD_OK;
}

static gidd_status describe_entry(gidd_corpus_stream *stream, struct archive_entry *found,
                                  gidd_corpus_stream_entry *entry)
{
    const char *name = archive_entry_pathname(found);
    if (name == NULL) {
        name = archive_entry_pathname_utf8(found); // a name the locale cannot express
    }
    if (name == NULL || gidd_corpus_stream_is_raw(stream)) {
        name = "";
    }
    free(stream->member);
    stream->member = strdup(name);
    if (stream->member == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to read %s", stream->name);
    }
    entry->name = stream->member;
    entry->size = archive_entry_size_is_set(found) ? archive_entry_size(found) : -1;
    entry->type = GIDD_CORPUS_STREAM_SPECIAL;
    if (archive_entry_hardlink(found) == NULL && archive_entry_symlink(found) == NULL) {
        if (archive_entry_filetype(found) == AE_IFREG) {
            entry->type = GIDD_CORPUS_STREAM_FILE;
        } else if (archive_entry_filetype(found) == AE_IFDIR) {
            entry->type = GIDD_CORPUS_STREAM_FOLDER;
        }
    }
    stream->in_member = entry->type == GIDD_CORPUS_STREAM_FILE;
    return GIDD_OK;
}

gidd_status gidd_corpus_stream_next(gidd_corpus_stream *stream, gidd_corpus_stream_entry *entry,
                                    int *end_p)
{
    struct archive_entry *found = NULL;
    int result = ARCHIVE_RETRY;
    if (stream->opened && is_compressed(stream)) {
        GIDD_TRY(drain_member(stream));
    }
    for (int tries = 0; tries < 10 && result == ARCHIVE_RETRY; tries++) {
        result = archive_read_next_header(stream->archive, &found);
    }
    if (result < ARCHIVE_WARN && result != ARCHIVE_EOF) {
        return fail_stream(stream,
                           stream->opened ? "damaged or truncated" : "no archive that can be read");
    }
    if (!stream->opened) {
        GIDD_TRY(check_opened(stream));
    }
    if (result == ARCHIVE_EOF) {
        *end_p = 1;
        return GIDD_OK;
    }
    if (++stream->entry_count > GIDD_CORPUS_STREAM_ENTRIES_MAX) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s has more than %d members: refused", stream->name,
                         GIDD_CORPUS_STREAM_ENTRIES_MAX);
    }
    *end_p = 0;
    return describe_entry(stream, found, entry);
}

gidd_status gidd_corpus_stream_read(gidd_corpus_stream *stream, void *bytes, size_t size,
                                    size_t *got_p)
{
    size_t done = 0;
    while (stream->in_member && done < size) {
        la_ssize_t got = archive_read_data(stream->archive, (char *)bytes + done, size - done);
        if (got == ARCHIVE_RETRY) {
            continue;
        }
        if (got < 0) {
            return fail_stream(stream, "damaged or truncated");
        }
        if (got == 0) {
            stream->in_member = 0;
        }
        done += (size_t)got;
        stream->bytes_out += got;
    }
    *got_p = done;
    return check_ratio(stream);
}
