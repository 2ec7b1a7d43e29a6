/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside the loader: from an example's number to the ids of its row (SPEC section 12), in each of the three window
 * modes. Not for other rooms.
 */
#ifndef GIDD_IO_LOADER_ROWS_H
#define GIDD_IO_LOADER_ROWS_H

#include "base/rng.h"
#include "io/loader.h"

/* What rows are made like. */
typedef struct gidd_row_shape {
    gidd_vocab vocab;
    int64_t T;
    int64_t max_add_padding;
    gidd_window_mode window;
} gidd_row_shape;

/* A contiguous range of documents of a source and the examples that they make. */
typedef struct gidd_split {
    const gidd_source *source; /* borrowed */
    int64_t first_document;
    int64_t documents;
    int64_t examples;
    int64_t *rows_before; /* [units + 1] examples before a unit; NULL in mode DOCUMENT */
    int64_t units;        /* PADDED: documents; PACKED: groups of 1024 */
    gidd_ranges left_out; /* examples with ids of documents that are left out */
} gidd_split;

/* Where a row's random numbers come from. */
typedef struct gidd_row_key {
    uint64_t seed;
    gidd_rng_stream crop, noise;
    uint64_t index;
} gidd_row_key;

/* Where a row goes, and where it was cut. */
typedef struct gidd_row {
    int32_t *x;              /* [T] */
    int32_t *attention_mask; /* [T] */
    int64_t start;           /* asked for and used; -1: drawn, or nothing was cut */
    int64_t bound;           /* of start, exclusive; 0: nothing was cut */
} gidd_row;

/* Counts the examples of `documents` documents from `first` on; reads their lengths in the modes PADDED and PACKED.
 * The caller releases it, also after a failure. Errors: the source's, CORRUPT (an empty document; all are left out),
 * NOMEM. Local. */
gidd_status gidd_split_open(const gidd_row_shape *shape, const gidd_source *source, int64_t first, int64_t documents,
                            gidd_split *of);
void gidd_split_release(gidd_split *of);

/* The example that stands in for `example`: itself, unless it is left out. Local. */
int64_t gidd_split_whole(const gidd_split *of, int64_t example);

/* Writes example `example` of a split. Errors: the source's, CORRUPT (an empty document, an id out of range), ARG
 * (out->start is not below its bound). Local. */
gidd_status gidd_row_fill(const gidd_row_shape *shape, const gidd_split *of, int64_t example, gidd_row_key key,
                          gidd_row *out);

/* Ids of that row before padding, without reading them. Errors: the source's, CORRUPT (an empty document). Local. */
gidd_status gidd_row_count(const gidd_row_shape *shape, const gidd_split *of, int64_t example, gidd_row_key key,
                           int64_t *ids_p);

/* Masks of a row with `filled` ids, and PAD behind them. Local. */
void gidd_row_pad(const gidd_row_shape *shape, int64_t filled, int32_t *x, int32_t *attention_mask);

#endif
