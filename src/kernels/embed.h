/* SPDX-License-Identifier: Apache-2.0
 *
 * Token embedding: a gather forward, a deterministic sum of sorted chunks backward.
 */
#ifndef GIDD_KERNELS_EMBED_H
#define GIDD_KERNELS_EMBED_H

#include "diffusion/batch.h"
#include "kernels/device.h"

/* out[p] = table[id[p]]. Ids lie in [0, Vr) (the loader checked). Local; asynchronous. */
typedef struct gidd_embed_fwd_args {
    void          *out;   /* [rows][D] E  written */
    const void    *table; /* [Vr][D]   E          */
    const int32_t *ids;   /* [rows]               */
    int64_t        rows;
    int64_t        cols;  /* D                    */
} gidd_embed_fwd_args;

/* dtable[v] (+)= sum over positions p with id v, ascending, of dout[p]: chunk by chunk in the order of
 * the batch record, no atomics. Without `accumulate` every other row of dtable becomes 0. */
typedef struct gidd_embed_bwd_args {
    float                  *dtable; /* [Vr][D] fp32 written or added to    */
    const void             *dout;   /* [rows][D] E                         */
    const int32_t          *sorted; /* [rows]                              */
    const gidd_embed_chunk *chunks;
    int64_t                 chunk_count; /* or more: the kernels look in counts     */
    const int32_t          *counts;      /* the batch record's: counts[1] chunks are there; NULL: chunk_count */
    int64_t                 table_rows; /* Vr                              */
    int64_t                 cols;       /* D                               */
    int                     accumulate; /* 0: first micro-batch, writes    */
} gidd_embed_bwd_args;

#endif
