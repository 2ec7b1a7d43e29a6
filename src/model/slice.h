/* SPDX-License-Identifier: Apache-2.0
 *
 * A slice: the part of the parameters whose training state (fp32 masters, Adam's moments, averages) one
 * rank keeps and updates. Either everything, or piece r of every bucket (ZeRO-1). The state of a slice
 * lies in arrays of its own, the pieces one after another:
 *
 *   memory     |p0 p0 |p1 p1 |p2 ~~ |p0 |p1 |p2 |       two buckets on 3 ranks, ~ padding (params.h)
 *   slice 1           |p1 p1 |          |p1 |
 *   own        |p1 p1 |p1 |
 *
 * Weights of type E and gradients have the layout `memory` on every rank, whatever the slice.
 */
#ifndef GIDD_MODEL_SLICE_H
#define GIDD_MODEL_SLICE_H

#include "model/params.h"

/* What a slice has of one bucket. */
typedef struct gidd_slice_part {
    int64_t at;    /* first element in memory                                        */
    int64_t own;   /* first element in the slice's own arrays                        */
    int64_t count; /* elements, padding included                                     */
    int64_t used;  /* the first so many are parameters; possibly 0                   */
    int64_t flat;  /* the first parameter's place in the flat order (files)          */
    int64_t chunk; /* the first one's partial sum among those of the whole gradient  */
} gidd_slice_part;

typedef struct gidd_slice {
    gidd_slice_part *parts; /* owned: one a bucket, ascending                          */
    int64_t          part_count;
    int64_t          own_count;   /* elements of the slice's own arrays               */
    int64_t          chunk_count; /* partial sums of the norm of the whole gradient   */
    int              is_whole;    /* own == at in every part                          */
} gidd_slice;

/* Piece `piece` of `pieces` equal ones of every bucket: 1, or as many as the parameters were laid out for.
 * Release with gidd_slice_release. Local. */
gidd_status gidd_slice_init(gidd_slice *slice, const gidd_params *params, int64_t piece, int64_t pieces);
void        gidd_slice_release(gidd_slice *slice); /* NULL-safe. Local. */

#endif
