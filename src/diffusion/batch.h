/* SPDX-License-Identifier: Apache-2.0
 *
 * The batch record: everything that a micro-batch needs to know, built on the host as a pure function
 * of (seed, step, sample index), and read by the kernels. No kernel draws noise.
 *
 *   ids        x, z, attention_mask  [B][T]          one row a sequence
 *   per row    coef                  [B]             time and the coefficients of SPEC sections 4-6
 *   rows       positions b*T+t whose token was noised, ascending (for loss.skip_clean_rows), then
 *              GIDD_NO_POSITION to the end: a kernel may be given more of the list than there is
 *   chunks     positions sorted by (z id, position), cut where the id changes and after 64 rows:
 *              the embedding gradient sums each chunk in order, so it needs no atomics
 *
 * All arrays lie in one allocation (`memory`, `bytes`), so that a device copies it with one call.
 * Offsets are the same for equal (B, T): gidd_batch_layout().
 */
#ifndef GIDD_DIFFUSION_BATCH_H
#define GIDD_DIFFUSION_BATCH_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

enum { GIDD_EMBED_CHUNK_ROWS = 64 };

#define GIDD_NO_POSITION INT32_MAX /* what follows the listed positions in `rows` */

/* Coefficients of one sequence at its time t. Computed in float64, rounded to float32 once.
 * Kept: z = x. Masked: z = mask. Other: z is a wrong token. (SPEC sections 4, 5; for MDLM section 6:
 * w_mask = omega_mask = 1/tc, the other weights 0. Without noise: omega_keep = 1, and w_keep = positions
 * of the step over those that predict a token, so that the mean over all is the mean over these.)  */
typedef struct gidd_seq_coef {
    float t;          /* conditioning time                                        */
    float alpha;      /* weight of the clean token's one-hot in q and r           */
    float beta_other; /* beta(t)[j], j < V, j not the mask                        */
    float beta_mask;  /* beta(t)[mask]                                            */
    float w_keep;     /* loss weights after loss.weighting                        */
    float w_mask;
    float w_other;
    float omega_keep; /* ELBO weights                                             */
    float omega_mask;
    float omega_other;
    float row_weight; /* 1, or 0 for the rows that pad an evaluation's last batch */
    float reserved;
} gidd_seq_coef;

typedef struct gidd_embed_chunk {
    int32_t id;    /* the token id of every row of the chunk                   */
    int32_t first; /* index into `sorted`                                      */
    int32_t count; /* 1..GIDD_EMBED_CHUNK_ROWS                                 */
    int32_t head;  /* 1: first chunk of its id                                 */
} gidd_embed_chunk;

typedef struct gidd_batch {
    int64_t           B, T;
    int32_t          *x;              /* [B][T] clean ids                                    */
    int32_t          *z;              /* [B][T] noised ids                                   */
    int32_t          *attention_mask; /* [B][T] 1 real token, 0 padding; for metrics only. Without noise
                                         (autoregressive): 1 where a real token predicts the next one,
                                         so 0 in the last column                              */
    gidd_seq_coef    *coef;           /* [B]                                                 */
    int32_t          *rows;           /* [B*T] row_count positions, then GIDD_NO_POSITION      */
    int32_t          *sorted;         /* [B*T] positions by (z id, position)                 */
    gidd_embed_chunk *chunks;         /* [B*T] the first chunk_count are filled              */
    int32_t          *counts;         /* [4] row_count, chunk_count, 0, 0: as the device reads them */
    int64_t           row_count;
    int64_t           chunk_count;
    int64_t           first_sample;   /* global sample number of row 0 (n = step*G + i)      */
    void             *memory;         /* the one allocation behind all arrays                */
    size_t            bytes;
} gidd_batch;

/* Bytes of a batch record of B sequences of T tokens. Local. */
size_t gidd_batch_bytes(int64_t B, int64_t T);

/* Points a batch's arrays into `memory` (borrowed; gidd_batch_bytes() bytes, 64-byte aligned). Local. */
void gidd_batch_layout(gidd_batch *batch, int64_t B, int64_t T, void *memory);

/* Fills rows, sorted, chunks and counts from x and z. `scratch`: B*T int32. Linear time. Local. */
void gidd_batch_index(gidd_batch *batch, int64_t vocab_size, int32_t *scratch);

#endif
