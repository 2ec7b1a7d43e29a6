/* SPDX-License-Identifier: Apache-2.0
 *
 * The parameter tensors of a model: one table is the single truth for names, shapes, sizes, initial
 * values, order in memory, checkpoint and export. (SPEC sections 2 and 3.)
 *
 * Flat order = order in which backward completes gradients:
 *
 *   output_layer.linear.{weight,bias}, output_layer.norm_final.weight          group 0      "head"
 *   blocks L-1 ... 0: mlp.2.{weight,bias}, mlp.0.{weight,bias}, norm2.weight,
 *                     attn_out.weight, attn_qkv.weight, norm1.weight            group 1 .. L
 *   all modulations: one stacked matrix [6DL+2D][C] (block 0 ... L-1, output),
 *                    then one stacked bias [6DL+2D]                             group L+1
 *   sigma_map.mlp.{0,2}.{weight,bias}                                           group L+1
 *   vocab_embed.embedding                                                       group L+2
 *
 * The stacked matrix appears in the table under the reference's names: blocks.i.adaLN_modulation.weight
 * is rows 6Di .. 6D(i+1) of it, output_layer.adaLN_modulation.weight the last 2D; they are consecutive
 * in the flat order, so a tensor is always one range. Names and shapes are the reference's state dict.
 *
 * An autoregressive model's table has the names and shapes of Hugging Face's Llama, its groups without
 * conditioning: lm_head.weight, model.norm.weight (0); layers L-1 ... 0: mlp.down_proj, mlp.{gate,up}_proj,
 * post_attention_layernorm, self_attn.o_proj, self_attn.{q,k,v}_proj, input_layernorm (1 .. L);
 * model.embed_tokens (L+1). gate and up, and q, k and v, are consecutive and so one matrix each. Rows V ... Vr-1
 * of embedding and output matrix are never used: they keep their initial values but for weight decay.
 *
 * In memory the flat order is cut into buckets (whole groups) and each bucket is padded, so that every rank
 * owns an equal piece of it. `offset` is the place in the unpadded flat order (files), `at` in memory.
 */
#ifndef GIDD_MODEL_PARAMS_H
#define GIDD_MODEL_PARAMS_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef enum gidd_model_type {
    GIDD_MODEL_DIFFUSION = 0,
    GIDD_MODEL_AUTOREGRESSIVE,
} gidd_model_type;

typedef struct gidd_model_shape {
    gidd_model_type type;
    int64_t D, L, H, C; /* hidden size, blocks, heads, conditioning width (diffusion) */
    int64_t T;          /* longest sequence                               */
    int64_t V, Vr;      /* vocabulary, and rounded up to a multiple of 128 */
    int32_t mask_id;    /* V - 1 */
} gidd_model_shape;

typedef enum gidd_init {
    GIDD_INIT_ZERO = 0,
    GIDD_INIT_ONE,
    GIDD_INIT_UNIFORM, /* U(-bound, bound) */
    GIDD_INIT_NORMAL,  /* N(0, bound^2)    */
} gidd_init;

typedef struct gidd_tensor {
    char      name[64];
    int64_t   shape[2]; /* [rows][cols]; vectors: shape[1] == 1 and dims == 1 */
    int       dims;
    int64_t   count;
    int64_t   offset; /* first element in the unpadded flat order */
    int64_t   at;     /* first element in memory                  */
    int32_t   group;  /* completion group, ascending              */
    gidd_init init;
    double    bound;  /* of GIDD_INIT_UNIFORM and GIDD_INIT_NORMAL */
    int64_t   exact_at; /* first element among the tensors that the network reads in fp32 whatever E is
                           (norm gains, time map, modulations); -1: it reads them as E */
} gidd_tensor;

/* A range of whole groups that is reduced at once. */
typedef struct gidd_param_bucket {
    int32_t first_group, group_count;
    int64_t at;           /* first element in memory                        */
    int64_t count;        /* elements that are parameters                   */
    int64_t padded_count; /* a piece for each rank: a multiple of pieces * GIDD_NORM_CHUNK */
} gidd_param_bucket;

typedef struct gidd_params {
    gidd_model_shape   shape;
    gidd_tensor       *tensors; /* owned; in flat order                     */
    int64_t            tensor_count;
    gidd_param_bucket *buckets; /* owned */
    int64_t            bucket_count;
    int64_t            group_count;
    int64_t            count;        /* parameters                          */
    int64_t            memory_count; /* elements in memory, padding included */
    int64_t            exact_count;  /* of the tensors that are read in fp32 */
} gidd_params;

/* The table for a shape. Memory is cut into buckets of at most `bucket_bytes` of fp32 gradients (a larger
 * group is a bucket of its own), each padded to a multiple of `pieces` (ranks) times GIDD_NORM_CHUNK
 * elements, so that a rank's piece is whole chunks of the gradient norm; where the cuts lie in the flat
 * order does not depend on `pieces`. D and C are multiples of 8, so every tensor
 * starts on 16 bytes even in bf16. GIDD_ERR_CONFIG: impossible shape (named). The result is released
 * with gidd_params_release. Local. */
gidd_status gidd_params_init(gidd_params *params, const gidd_model_shape *shape, size_t bucket_bytes,
                             int64_t pieces);
void        gidd_params_release(gidd_params *params); /* NULL-safe. Local. */

/* Width of a block's MLP: 4D. Local. */
static inline int64_t gidd_model_mlp_width(const gidd_model_shape *shape)
{
    return 4 * shape->D;
}

/* The tensor called `name`, or NULL. Local. */
const gidd_tensor *gidd_params_find(const gidd_params *params, const char *name);

/* Initial values of memory elements [first, first + count) into `values` (SPEC section 3): element e of
 * tensor i (its index in this table) is a pure function of (seed, i, e), Philox with the key seed, the
 * stream PARAM and the index i << 40 | e/4 (normal values: e/2), so any rank can fill any range. Padding is
 * 0. Local. */
void gidd_params_fill(const gidd_params *params, uint64_t seed, int64_t first, int64_t count,
                      float *values);

/* Where memory element `at` of a tensor that is read in fp32 lies among those tensors. Local. */
int64_t gidd_params_exact_place(const gidd_params *params, int64_t at);

/* Number of parameters inside the blocks ("non-embedding" in the paper's tables); all of them:
 * params->count. Local. */
int64_t gidd_params_block_count(const gidd_params *params);

#endif
