/* SPDX-License-Identifier: Apache-2.0
 *
 * One transformer block (SPEC section 2, steps 1-7) and its mirror. The residual stream's additions
 * are made by the norm that reads their sum, so a block ends with a branch output that is still to be
 * gated and added:
 *
 *   x1 = x2' + gate_m' mlp_y'     (' : the block before; block 0: x1 = embedding)
 *   x1 --norm1--> u1 --W_qkv--> qkv --attention--> attn --W_out--> attn_y
 *   x2 = x1 + gate_a attn_y
 *   x2 --norm2--> u2 --W_1--> fc1 --GELU--> gelu --W_2--> mlp_y
 *
 * Private to the model room.
 */
#ifndef GIDD_MODEL_BLOCK_H
#define GIDD_MODEL_BLOCK_H

#include "model/activations.h"

/* Block `index` of the loaded batch; block 0 reads the embedding in its x1. Local. */
gidd_status gidd_block_fwd(gidd_model *model, int64_t index);

/* On entry activations->branch holds the gradient of mlp_y and activations->dx that of x2 through the
 * residual stream above; on return branch holds the gradient of the previous block's mlp_y (block 0:
 * undefined) and dx that of its x2 (block 0: of the embedding). Local. */
gidd_status gidd_block_bwd(gidd_model *model, int64_t index, int accumulate);

/* A norm with the addition before it: what it reads and writes. */
typedef struct gidd_norm {
    int64_t          gain;       /* place of its weight                                             */
    void            *x_out;      /* the sum; where y is NULL it is x itself                         */
    void            *u;
    float           *mean, *rstd;
    const void      *x, *y;      /* y NULL: nothing to add                                          */
    gidd_mod_offsets at;
    const int32_t   *row_list;   /* NULL: u has all rows                                            */
    int64_t          u_rows;
} gidd_norm;

/* The norm before block `index`'s attention; index L is the final norm. Local. */
gidd_norm gidd_norm_before(const gidd_model *model, int64_t index);

gidd_status gidd_norm_fwd(gidd_model *model, const gidd_norm *norm);

/* From activations->du and dx_out (NULL: nothing came through the residual stream) to dx and, where the
 * norm has a y, branch. Local. */
gidd_status gidd_norm_bwd(gidd_model *model, const gidd_norm *norm, const void *dx_out,
                          int accumulate);

#endif
