/* SPDX-License-Identifier: Apache-2.0
 *
 * Compressed files and archives as streams of members, through libarchive within limits: tar and
 * zip only, at most one layer of gzip, xz or zstd, members read in order and never extracted, an
 * expansion of at most GIDD_CORPUS_STREAM_RATIO_MAX, at most GIDD_CORPUS_STREAM_ENTRIES_MAX
 * members. gzip's own checksum is compared here (corpus_gzip.h), which libarchive 3.6 leaves out; a tar that ends
 * without its end mark counts as truncated.
 */
#ifndef GIDD_IO_CORPUS_STREAM_H
#define GIDD_IO_CORPUS_STREAM_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#define GIDD_CORPUS_STREAM_RATIO_MAX 1000
#define GIDD_CORPUS_STREAM_ENTRIES_MAX 100000000

typedef enum gidd_corpus_stream_format {
    GIDD_CORPUS_STREAM_ARCHIVE, /* tar or zip */
    GIDD_CORPUS_STREAM_RAW,    /* one compressed file; it must be compressed                      */
    GIDD_CORPUS_STREAM_EITHER, /* by content: an archive, or else one compressed file             */
} gidd_corpus_stream_format;

typedef enum gidd_corpus_stream_entry_type {
    GIDD_CORPUS_STREAM_FILE,
    GIDD_CORPUS_STREAM_FOLDER,
    GIDD_CORPUS_STREAM_SPECIAL, /* symbolic or hard link, device, pipe ... */
} gidd_corpus_stream_entry_type;

typedef struct gidd_corpus_stream_entry {
    const char *name; /* valid until the next entry; "" for a raw stream */
    gidd_corpus_stream_entry_type type;
    int64_t size; /* -1: not known in advance */
} gidd_corpus_stream_entry;

typedef struct gidd_corpus_stream gidd_corpus_stream;

/* Opens a file, a piece of memory or the present member of another stream (all borrowed until
 * close; the parent must not be moved on meanwhile). `name` is what messages call it. Damage shows at the first
 * gidd_corpus_stream_next. Errors: MISSING, IO, NOMEM, those of the parent. Local. */
gidd_status gidd_corpus_stream_open_file(const char *path, const char *name,
                                         gidd_corpus_stream_format format,
                                         gidd_corpus_stream **stream_p);
gidd_status gidd_corpus_stream_open_memory(const void *bytes, size_t size, const char *name,
                                           gidd_corpus_stream_format format,
                                           gidd_corpus_stream **stream_p);
gidd_status gidd_corpus_stream_open_member(gidd_corpus_stream *parent, const char *name,
                                           gidd_corpus_stream_format format,
                                           gidd_corpus_stream **stream_p);

/* NULL is ignored. Local. */
void gidd_corpus_stream_close(gidd_corpus_stream *stream);

/* What messages call it. Local. */
const char *gidd_corpus_stream_name(const gidd_corpus_stream *stream);

/* Moves to the next member; *end_p = 1 and no entry at the end. Errors: CORRUPT. Local. */
gidd_status gidd_corpus_stream_next(gidd_corpus_stream *stream, gidd_corpus_stream_entry *entry,
                                    int *end_p);

/* After the first gidd_corpus_stream_next: 1 if the stream is no archive but one compressed file.
 * Local.
 */
int gidd_corpus_stream_is_raw(const gidd_corpus_stream *stream);

/* Fills bytes[0 .. size) from the present member; *got_p < size only at its end. Errors: CORRUPT.
 * Local. */
gidd_status gidd_corpus_stream_read(gidd_corpus_stream *stream, void *bytes, size_t size,
                                    size_t *got_p);

/* What is wrong with the stream's own bytes, after a call returned CORRUPT: only then may the rest of it be skipped.
 * Not set by failures to read them (IO) or of the parent. Local. */
typedef enum gidd_corpus_stream_fault {
    GIDD_CORPUS_STREAM_SOUND = 0,
    GIDD_CORPUS_STREAM_DAMAGED,
    GIDD_CORPUS_STREAM_BOMB,
} gidd_corpus_stream_fault;

gidd_corpus_stream_fault gidd_corpus_stream_fault_of(const gidd_corpus_stream *stream);

/* Says that the stream's bytes are to blame for what happens next to what was read from it. Local. */
void gidd_corpus_stream_blame(gidd_corpus_stream *stream, gidd_corpus_stream_fault fault);

/* Bytes of the stream's own source taken so far. Local. */
int64_t gidd_corpus_stream_consumed(const gidd_corpus_stream *stream);

#endif
