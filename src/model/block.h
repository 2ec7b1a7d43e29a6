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

/* A product y = x W^T (+ bias) over all positions of the batch. Local. */
typedef struct gidd_product {
    const void          *x;
    void                *y, *pre;
    int64_t              w, bias; /* places of the parameters; bias is read where the epilogue asks */
    int64_t              N, K;
    gidd_linear_epilogue epilogue;
} gidd_product;

gidd_status gidd_product_fwd(gidd_model *model, const gidd_product *product);

/* Its gradients: of W and bias, then of x. Local. */
typedef struct gidd_product_gradients {
    const void *dy, *x;
    void       *dx;
    const void *pre;  /* x = GELU(pre): dx is then the gradient of pre; NULL: no GELU */
    int64_t     w;    /* places of the parameters */
    int64_t     bias; /* -1: none */
    int64_t     N, K;
} gidd_product_gradients;

gidd_status gidd_product_bwd(gidd_model *model, const gidd_product_gradients *product, int accumulate);

/* From block->qkv to block->attn and lse. Local. */
gidd_status gidd_attention_of_block_fwd(gidd_model *model, const gidd_block *block, gidd_attention_kind kind);
/* From activations->du to activations->wide, the gradient of qkv. Local. */
gidd_status gidd_attention_of_block_bwd(gidd_model *model, const gidd_block *block, gidd_attention_kind kind);

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
