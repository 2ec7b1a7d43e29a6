/* SPDX-License-Identifier: Apache-2.0 */
#include "io/corpus_stream.h"

#include "io/corpus_gzip.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK_BYTES = 1 << 18 };

struct gidd_corpus_stream {
    struct archive *archive;
    gidd_corpus_stream *parent; // whose present member this stream reads, or NULL
    const void *memory;         // [memory_size] that it reads, until it is given out whole; or NULL
    size_t memory_size;
    int fd;                 // of the gzip file that it reads, or -1: libarchive opens all other files
    gidd_corpus_gzip *gzip; // between the source and libarchive, or NULL
    char *block;            // [BLOCK_BYTES] what the source gave last; libarchive or gzip reads from it
    size_t first_bytes;     // of the block: what the parent gave when it was looked at, not given out yet
    char *drain;                // [BLOCK_BYTES] where bytes go that nobody wants
    char *name;
    char *member; // name of the present member, for messages
    int format;
    int opened;    // the first header was read
    int in_member; // its data are not exhausted
    int64_t entry_count;
    int64_t bytes_out;
    gidd_corpus_stream_fault fault;
    gidd_error unopened; // code OK, or why libarchive found nothing to open
};

// Whether libarchive failed for a reason that says nothing about the bytes.
static gidd_status reading_failed(const gidd_corpus_stream *stream)
{
    switch (archive_errno(stream->archive)) {
    case ENOMEM:
        return GIDD_ERR_NOMEM;
    case EIO:
    case EACCES:
    case EBADF:
    case ENODEV:
    case ENXIO:
    case ESTALE:
    case ETIMEDOUT:
    case EREMOTEIO:
        return GIDD_ERR_IO;
    default:
        return GIDD_OK;
    }
}

static gidd_status fail_stream(gidd_corpus_stream *stream, const char *what)
{
    const char *reason = archive_error_string(stream->archive);
    int in_member = stream->member != NULL && stream->member[0] != '\0';
    gidd_status status = reading_failed(stream);
    if (status == GIDD_OK) {
        int parent_failed = stream->parent != NULL && stream->parent->fault != GIDD_CORPUS_STREAM_SOUND;
        stream->fault = parent_failed ? stream->fault : GIDD_CORPUS_STREAM_DAMAGED;
        status = GIDD_ERR_CORRUPT;
    }
    return gidd_fail(status, "%s%s%s: %s: %s", stream->name, in_member ? ": " : "", in_member ? stream->member : "", what,
                     reason != NULL ? reason : "no reason given");
}

static gidd_status fail_bomb(gidd_corpus_stream *stream, const char *what, int limit)
{
    stream->fault = GIDD_CORPUS_STREAM_BOMB;
    return gidd_fail(GIDD_ERR_CORRUPT, "%s %s %d %s: refused", stream->name, what, limit,
                     limit == GIDD_CORPUS_STREAM_RATIO_MAX ? "times" : "members");
}

gidd_corpus_stream_fault gidd_corpus_stream_fault_of(const gidd_corpus_stream *stream)
{
    return stream->fault;
}

static gidd_status create_stream(const char *name, gidd_corpus_stream_format format,
                                 gidd_corpus_stream **stream_p)
{
    gidd_corpus_stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to open %s", name);
    }
    stream->format = (int)format;
    stream->fd = -1;
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
        gidd_corpus_gzip_destroy(stream->gzip);
        if (stream->fd >= 0) {
            (void)close(stream->fd); // reading: nothing to lose
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

void gidd_corpus_stream_blame(gidd_corpus_stream *stream, gidd_corpus_stream_fault fault)
{
    stream->fault = fault;
}

/* ------------------------------------------------------------------ sources */

static gidd_status pull_file(gidd_corpus_stream *stream, size_t *got_p)
{
    ssize_t got;
    do {
        got = read(stream->fd, stream->block, BLOCK_BYTES);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        return gidd_fail(GIDD_ERR_IO, "cannot read %s: %s", stream->name, strerror(errno));
    }
    *got_p = (size_t)got;
    return GIDD_OK;
}

// The next bytes as they are stored, from wherever they come; *got_p = 0 at the end.
static gidd_status pull_stored(void *context, const void **bytes_p, size_t *got_p)
{
    gidd_corpus_stream *stream = context;
    *bytes_p = stream->block;
    *got_p = stream->first_bytes;
    if (stream->first_bytes > 0) {
        stream->first_bytes = 0;
        return GIDD_OK;
    }
    if (stream->parent != NULL) {
        return gidd_corpus_stream_read(stream->parent, stream->block, BLOCK_BYTES, got_p);
    }
    if (stream->fd >= 0) {
        return pull_file(stream, got_p);
    }
    *bytes_p = stream->memory;
    *got_p = stream->memory_size;
    stream->memory_size = 0;
    return GIDD_OK;
}

// libarchive's source of bytes.
static la_ssize_t pull(struct archive *archive, void *context, const void **bytes)
{
    gidd_corpus_stream *stream = context;
    size_t got = 0;
    gidd_status status = stream->gzip != NULL ? gidd_corpus_gzip_read(stream->gzip, bytes, &got)
                                              : pull_stored(stream, bytes, &got);
    if (status != GIDD_OK) {
        archive_set_error(archive,
                          status == GIDD_ERR_CORRUPT ? EILSEQ
                          : status == GIDD_ERR_NOMEM ? ENOMEM
                                                     : EIO,
                          "%s", gidd_error_last()->text);
        return -1;
    }
    return (la_ssize_t)got;
}

static gidd_status open_gzip(gidd_corpus_stream *stream)
{
    GIDD_TRY(gidd_corpus_gzip_create(pull_stored, stream, &stream->gzip));
    return archive_read_open(stream->archive, stream, NULL, pull, NULL) == ARCHIVE_OK
               ? GIDD_OK
               : fail_stream(stream, "cannot be opened");
}

static gidd_status open_file(gidd_corpus_stream *stream, const char *path)
{
    char magic[2] = "";
    stream->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (stream->fd < 0) {
        return gidd_fail(errno == ENOENT ? GIDD_ERR_MISSING : GIDD_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    }
    ssize_t got = pread(stream->fd, magic, sizeof magic, 0);
    if (got < 0) {
        return gidd_fail(GIDD_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    }
    if (gidd_corpus_gzip_begins(magic, (size_t)got)) {
        return open_gzip(stream);
    }
    (void)close(stream->fd);
    stream->fd = -1;
    return archive_read_open_filename(stream->archive, path, BLOCK_BYTES) == ARCHIVE_OK
               ? GIDD_OK
               : fail_stream(stream, "cannot be opened");
}

static gidd_status open_memory(gidd_corpus_stream *stream)
{
    if (gidd_corpus_gzip_begins(stream->memory, stream->memory_size)) {
        return open_gzip(stream);
    }
    return archive_read_open_memory(stream->archive, stream->memory, stream->memory_size) == ARCHIVE_OK
               ? GIDD_OK
               : fail_stream(stream, "cannot be opened");
}

static gidd_status open_member(gidd_corpus_stream *stream)
{
    GIDD_TRY(gidd_corpus_stream_read(stream->parent, stream->block, BLOCK_BYTES, &stream->first_bytes));
    if (gidd_corpus_gzip_begins(stream->block, stream->first_bytes)) {
        return open_gzip(stream);
    }
    return archive_read_open(stream->archive, stream, NULL, pull, NULL) == ARCHIVE_OK
               ? GIDD_OK
               : fail_stream(stream, "cannot be opened");
}

// Hands over the opened stream, or closes it. libarchive looks at the first bytes already: where these are damaged,
// that is what the first member's reading will say, so that there is one place for damage.
static gidd_status finish_open(gidd_corpus_stream *stream, gidd_status status, gidd_corpus_stream **stream_p)
{
    if (status == GIDD_ERR_CORRUPT && stream->fault != GIDD_CORPUS_STREAM_SOUND) {
        stream->unopened = *gidd_error_last();
        status = GIDD_OK;
    }
    if (status != GIDD_OK) {
        gidd_corpus_stream_close(stream);
        return status;
    }
    *stream_p = stream;
    return GIDD_OK;
}

gidd_status gidd_corpus_stream_open_file(const char *path, const char *name,
                                         gidd_corpus_stream_format format,
                                         gidd_corpus_stream **stream_p)
{
    gidd_corpus_stream *stream = NULL;
    GIDD_TRY(create_stream(name, format, &stream));
    return finish_open(stream, open_file(stream, path), stream_p);
}

gidd_status gidd_corpus_stream_open_memory(const void *bytes, size_t size, const char *name,
                                           gidd_corpus_stream_format format,
                                           gidd_corpus_stream **stream_p)
{
    gidd_corpus_stream *stream = NULL;
    GIDD_TRY(create_stream(name, format, &stream));
    stream->memory = bytes;
    stream->memory_size = size;
    return finish_open(stream, open_memory(stream), stream_p);
}

gidd_status gidd_corpus_stream_open_member(gidd_corpus_stream *parent, const char *name,
                                           gidd_corpus_stream_format format,
                                           gidd_corpus_stream **stream_p)
{
    gidd_corpus_stream *stream = NULL;
    GIDD_TRY(create_stream(name, format, &stream));
    stream->parent = parent;
    return finish_open(stream, open_member(stream), stream_p);
}

int64_t gidd_corpus_stream_consumed(const gidd_corpus_stream *stream)
{
    return stream->gzip != NULL ? gidd_corpus_gzip_consumed(stream->gzip)
                                : archive_filter_bytes(stream->archive, -1);
}

static int is_compressed(const gidd_corpus_stream *stream)
{
    return stream->gzip != NULL || archive_filter_code(stream->archive, 0) != ARCHIVE_FILTER_NONE;
}

int gidd_corpus_stream_is_raw(const gidd_corpus_stream *stream)
{
    int format = archive_format(stream->archive);
    return format == ARCHIVE_FORMAT_RAW || format == ARCHIVE_FORMAT_EMPTY;
}

// The bomb rule, on what this stream gave out against what it took in.
static gidd_status check_ratio(gidd_corpus_stream *stream)
{
    int64_t in = gidd_corpus_stream_consumed(stream);
    if (stream->bytes_out > (int64_t)128 << 20 &&
        stream->bytes_out / GIDD_CORPUS_STREAM_RATIO_MAX > in) {
        return fail_bomb(stream, "expands more than", GIDD_CORPUS_STREAM_RATIO_MAX);
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
    if (archive_filter_count(stream->archive) > (stream->gzip != NULL ? 1 : 2)) {
        stream->fault = GIDD_CORPUS_STREAM_DAMAGED;
        return gidd_fail(GIDD_ERR_CORRUPT, "%s is compressed more than once: refused",
                         stream->name);
    }
    if (gidd_corpus_stream_is_raw(stream) && !is_compressed(stream)) {
        stream->fault = GIDD_CORPUS_STREAM_DAMAGED;
        return gidd_fail(GIDD_ERR_CORRUPT, "%s is neither gzip, xz nor zstd, as its name says",
                         stream->name);
    }
    return GIDD_OK;
}

// A tar ends with blocks of zeros. One that was cut between two members ends without them, and libarchive does not
// mind: then the end is where the next header would have been.
static gidd_status check_end_mark(gidd_corpus_stream *stream)
{
    int is_tar = (archive_format(stream->archive) & ARCHIVE_FORMAT_BASE_MASK) == ARCHIVE_FORMAT_TAR;
    if (is_tar && archive_filter_bytes(stream->archive, 0) <= archive_read_header_position(stream->archive)) {
        stream->fault = GIDD_CORPUS_STREAM_DAMAGED;
        return gidd_fail(GIDD_ERR_CORRUPT, "%s ends without the end mark of a tar: truncated", stream->name);
    }
    return GIDD_OK;
}

// The gzip goes on behind what libarchive wanted of it: its checksum stands at its very end.
static gidd_status check_end(gidd_corpus_stream *stream)
{
    const void *rest = NULL;
    size_t got = 1;
    GIDD_TRY(check_end_mark(stream));
    while (stream->gzip != NULL && got > 0) {
        gidd_status status = gidd_corpus_gzip_read(stream->gzip, &rest, &got);
        if (status == GIDD_ERR_CORRUPT) {
            char story[sizeof gidd_error_last()->text];
            memcpy(story, gidd_error_last()->text, sizeof story);
            stream->fault = GIDD_CORPUS_STREAM_DAMAGED;
            return gidd_fail(status, "%s: %.900s", stream->name, story);
        }
        GIDD_TRY(status);
        stream->bytes_out += (int64_t)got;
        GIDD_TRY(check_ratio(stream));
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
    if (stream->unopened.code != GIDD_OK) {
        gidd_error_restore(&stream->unopened);
        return stream->unopened.code;
    }
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
        return check_end(stream);
    }
    if (++stream->entry_count > GIDD_CORPUS_STREAM_ENTRIES_MAX) {
        return fail_bomb(stream, "has more than", GIDD_CORPUS_STREAM_ENTRIES_MAX);
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
