/* SPDX-License-Identifier: Apache-2.0
 *
 * Corpora: text as people have it, turned into documents, in parallel and always in the same order.
 *
 *     inputs ──gidd_corpus_deal (one rank)──> parts ──gidd_corpus_part_read (any rank)──> documents
 *
 * An input is a folder or a file. What a name stands for is decided by its ending; .gz, .xz and
 * .zst may follow it: .txt .md .rst (`suffixes`)   a document: the bytes of the file as they are, a
 * leading byte order mark and invalid UTF-8 included .jsonl                       a document a
 * line: the string under `json_key` .tar .tgz .txz .tzst .zip    an archive of all these, and of
 * archives (two levels in all) x.gz x.xz x.zst              an archive if its content is one
 * (OpenWebText's "..._data.xz") A folder gives the files whose ending is in `suffixes` (which may
 * name jsonl, tar ... too), at any depth, ordered by the bytes of their path below the folder; a
 * file named as an input is taken as text if its ending says nothing. Archives are streamed in
 * their own order and never extracted.
 *
 * A part is about shard_bytes of text: a run of consecutive pieces (files, ranges of a .jsonl,
 * members of an archive), self-contained except for files, which the reading rank opens itself. How
 * the input is cut depends on the input and the options alone. Each part becomes one shard.
 *
 * Bad input follows rules that depend on its bytes alone, and is counted by kind (gidd_corpus_counter); with
 * GIDD_CORPUS_STRICT the kinds marked (strict) end the job with CORRUPT instead. FORMAT.md has the table. A damaged or
 * truncated archive keeps what came before the damage, in its own part of a larger archive or of the job; the rest of
 * it is skipped, with a warning that names it. What cannot be read at all (IO) and a file that changes while the job
 * runs (CORRUPT) always end it.
 */
#ifndef GIDD_IO_CORPUS_H
#define GIDD_IO_CORPUS_H

#include "base/status.h"
#include "io/digest.h"

#include <stddef.h>
#include <stdint.h>

typedef enum gidd_corpus_counter {
    GIDD_CORPUS_DOCUMENTS,     /* documents given                                                */
    GIDD_CORPUS_TEXT_BYTES,    /* their bytes                                                    */
    GIDD_CORPUS_SKIPPED_EMPTY, /* documents of no byte, and blank lines                          */
    GIDD_CORPUS_SKIPPED_TOO_LARGE, /* (strict) documents or lines above document_bytes_max */
    GIDD_CORPUS_SKIPPED_SUFFIX, /* files and members whose ending is not taken                    */
    GIDD_CORPUS_SKIPPED_LINK,   /* (strict) links, devices, pipes                                 */
    GIDD_CORPUS_SKIPPED_PATH,   /* (strict) members with an absolute path or ".."                 */
    GIDD_CORPUS_SKIPPED_NESTED, /* (strict) archives more than two levels deep                    */
    GIDD_CORPUS_SKIPPED_JSON,   /* (strict) lines that are no JSON object                         */
    GIDD_CORPUS_SKIPPED_KEY,    /* (strict) JSON lines without a string under json_key            */
    GIDD_CORPUS_SKIPPED_DAMAGED, /* (strict) archives and compressed files, from their damage on  */
    GIDD_CORPUS_SKIPPED_BOMB,    /* (strict) the same that expand too much, from there on         */
    GIDD_CORPUS_COUNTERS,
} gidd_corpus_counter;

typedef struct gidd_corpus_counts {
    int64_t of[GIDD_CORPUS_COUNTERS];
} gidd_corpus_counts;

/* Name of a counter ("skipped_empty"). Local. */
const char *gidd_corpus_counter_name(gidd_corpus_counter counter);

/* Adds `more` to `counts`. Local. */
void gidd_corpus_counts_add(gidd_corpus_counts *counts, const gidd_corpus_counts *more);

typedef enum gidd_corpus_rule {
    GIDD_CORPUS_SKIP = 0, /* skip bad documents and count them */
    GIDD_CORPUS_STRICT,   /* refuse them                       */
} gidd_corpus_rule;

typedef struct gidd_corpus_options {
    const char *suffixes;      /* comma separated, without dots: "txt,md,rst"              */
    const char *json_key;      /* "text"                                                   */
    size_t document_bytes_max; /* 0: 64 MiB                                                */
    size_t shard_bytes;        /* 0: 4 to 64 MiB, so that there are about 64 parts or more */
    gidd_corpus_rule rule;
} gidd_corpus_options;

/* ------------------------------------------------------------------ dealing: one rank */

typedef struct gidd_corpus gidd_corpus;

/* Lists the inputs: sizes and names, no content. `options` is borrowed until close. Errors: MISSING
 * (an input is not there), CORRUPT (nothing to take, saying what was looked for), IO, NOMEM. Local.
 */
gidd_status gidd_corpus_open(const char *const *inputs, int64_t input_count,
                             const gidd_corpus_options *options, gidd_corpus **corpus_p);

/* NULL is ignored. Local. */
void gidd_corpus_close(gidd_corpus *corpus);

/* Bytes of the listed files on disk, and their number; for plans and progress. Local. */
int64_t gidd_corpus_file_bytes(const gidd_corpus *corpus);
int64_t gidd_corpus_file_count(const gidd_corpus *corpus);

typedef struct gidd_corpus_part {
    int64_t index;        /* 0, 1, ... in source order                              */
    int64_t disk_bytes;   /* of the listed files, consumed up to here: for progress */
    const uint8_t *bytes; /* encoded pieces: may be sent to any rank of the job     */
    size_t size;
} gidd_corpus_part;

/* Takes a part, which is borrowed for the call. Any status but OK ends the dealing with it; *stop_p
 * = 1 with OK ends it too, as if the corpus ended here. */
typedef gidd_status (*gidd_corpus_deliver)(void *context, const gidd_corpus_part *part,
                                           int *stop_p);

/* Goes through the whole corpus and delivers its parts in order. *counts_p gets what was skipped
 * here, before any part. Memory: one part. Errors: those of `deliver`, CORRUPT, IO, NOMEM. Local.
 */
gidd_status gidd_corpus_deal(gidd_corpus *corpus, gidd_corpus_deliver deliver, void *context,
                             gidd_corpus_counts *counts_p);

/* ------------------------------------------------------------------ reading a part: any rank */

/* Takes a document of bytes >= 1, which is borrowed for the call. Any status but OK ends the
 * reading. */
typedef gidd_status (*gidd_corpus_document)(void *context, const uint8_t *text, size_t bytes);

/* Gives the documents of a part in order. *counts_p gets the part's counts, `digest` the digest of
 * its input as stored (before decompression). Memory: one piece and one document. Errors: those of
 * `document`, CORRUPT (strict, or a file changed since it was listed), IO, MISSING, NOMEM. Local.
 */
gidd_status gidd_corpus_part_read(const gidd_corpus_part *part, const gidd_corpus_options *options,
                                  gidd_corpus_document document, void *context,
                                  gidd_corpus_counts *counts_p, char digest[GIDD_DIGEST_SIZE]);

/* The same digest without decompressing or parsing: whether a part is still the same. Local. */
gidd_status gidd_corpus_part_digest(const gidd_corpus_part *part,
                                    const gidd_corpus_options *options,
                                    char digest[GIDD_DIGEST_SIZE]);

#endif
