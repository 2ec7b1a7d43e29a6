/* SPDX-License-Identifier: Apache-2.0
 *
 * Goes through a stream and hands what it finds to a sink: whole texts, runs of JSON lines, and
 * members that are compressed themselves. The dealing rank keeps the last as they are and passes
 * them on; the reading rank opens them.
 */
#ifndef GIDD_IO_CORPUS_WALK_H
#define GIDD_IO_CORPUS_WALK_H

#include "io/corpus.h"
#include "io/corpus_kind.h"
#include "io/corpus_stream.h"

#define GIDD_CORPUS_UNIT_BYTES ((size_t)4 << 20)  /* lines are handed on in runs of about this */
#define GIDD_CORPUS_MEMBER_MAX ((size_t)32 << 20) /* a compressed member passed on whole; larger: unpacked by the dealer */
#define GIDD_CORPUS_PART_TEXT_MAX ((size_t)256 << 20) /* what the compressed pieces of a part may expand to */
#define GIDD_CORPUS_DEPTH_MAX 2

typedef struct gidd_corpus_walk {
    const gidd_corpus_options *options;
    gidd_corpus_counts *counts;
    void *context; /* of the three below; memory is borrowed for the call */
    /* one document */
    gidd_status (*text)(void *context, const char *name, const uint8_t *bytes, size_t size);
    /* whole lines; the last may lack its newline at the end of the input */
    gidd_status (*lines)(void *context, const char *name, const uint8_t *bytes, size_t size);
    /* a compressed member of archive level `depth`; NULL: open it here */
    gidd_status (*packed)(void *context, const char *name, gidd_corpus_kind kind, int depth,
                          const uint8_t *bytes, size_t size);
} gidd_corpus_walk;

/* Walks a stream that holds `kind`: one compressed text or .jsonl (RAW), an archive of level
 * `depth`, or whichever of them it turns out to be (PACKED, EITHER; `bare` is what it is if no
 * archive). Local. */
gidd_status gidd_corpus_walk_stream(const gidd_corpus_walk *walk, gidd_corpus_stream *stream,
                                    gidd_corpus_kind kind, gidd_corpus_kind bare, int depth);

/* After a stream failed with `status`: where its own bytes are to blame, counts it as DAMAGED or BOMB and warns, so
 * that what lies beside it goes on (OK); else, and under GIDD_CORPUS_STRICT, returns `status`. Call it before the
 * stream is closed. Local. */
gidd_status gidd_corpus_forgive(const gidd_corpus_options *options, gidd_corpus_counts *counts,
                                const gidd_corpus_stream *stream, gidd_status status);

/* Format to open a compressed `kind` with. Local. */
gidd_corpus_stream_format gidd_corpus_format_of(gidd_corpus_kind kind);

#endif
