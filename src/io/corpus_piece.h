/* SPDX-License-Identifier: Apache-2.0
 *
 * Pieces: what a part consists of, as bytes that the dealing rank writes and any rank of the same
 * job reads (native byte order). A piece is a header, its name with a NUL, its payload, and padding
 * to 8.
 */
#ifndef GIDD_IO_CORPUS_PIECE_H
#define GIDD_IO_CORPUS_PIECE_H

#include "io/corpus.h"

typedef enum gidd_corpus_piece_type {
    GIDD_CORPUS_PIECE_FILE,     /* the file `name`, one text: the reading rank opens it           */
    GIDD_CORPUS_PIECE_RANGE,    /* the lines of .jsonl file `name` that begin in the given range  */
    GIDD_CORPUS_PIECE_DOCUMENT, /* payload: one text                                              */
    GIDD_CORPUS_PIECE_LINES,    /* payload: JSON lines                                            */
    GIDD_CORPUS_PIECE_PACKED,   /* payload: a compressed member of an archive of level `depth`    */
} gidd_corpus_piece_type;

typedef struct gidd_corpus_piece {
    uint32_t type;       /* gidd_corpus_piece_type                             */
    uint32_t kind;       /* gidd_corpus_kind of the content (FILE, PACKED)     */
    uint32_t compressed; /* FILE: 1 if it must be decompressed                 */
    uint32_t depth;      /* PACKED                                             */
    uint64_t first;      /* RANGE: offset in the file                          */
    uint64_t size;       /* bytes of the file, of the range or of the payload  */
    uint64_t name_size;  /* with its NUL                                       */
} gidd_corpus_piece;

/* Whether the piece carries its bytes itself. Local. */
static inline int gidd_corpus_piece_carries(const gidd_corpus_piece *piece)
{
    return piece->type >= GIDD_CORPUS_PIECE_DOCUMENT;
}

#endif
