/* SPDX-License-Identifier: Apache-2.0
 *
 * What one kind of network does differently from another: a table of functions, chosen once by
 * shape.type. Everything else (life, parameters in memory, head and loss, order of the passes) is shared:
 *
 *     pass.c     forward, head, backward: the order of things, the output matrix and the loss
 *     dit.c      the diffusion network: embedding, time conditioning, adaLN blocks     (block.c)
 *     decoder.c  the autoregressive network: embedding, causal blocks without conditioning
 *
 * Private to the model room.
 */
#ifndef GIDD_MODEL_ARCHITECTURE_H
#define GIDD_MODEL_ARCHITECTURE_H

#include "model/activations.h"

typedef struct gidd_architecture {
    /* Finds the places of the parameters and lists the buffers (gidd_activations_add). */
    void (*plan)(gidd_activations *activations, const gidd_model *model);

    /* INFER: points what all blocks share into the few buffers that there are. */
    void (*share)(gidd_activations *activations, int64_t L);

    /* Embedding and blocks of the loaded batch. */
    gidd_status (*forward)(gidd_model *model);

    /* u_final from what the last block left; `listed`: of the batch's listed rows only. */
    gidd_status (*final_norm_fwd)(gidd_model *model, int listed);

    /* From activations->du, the gradient of u_final, to the gradients of everything below the output
     * matrix; announces every completion group with gidd_announce, the last one is group_count - 1. */
    gidd_status (*backward)(gidd_model *model, int listed, const gidd_backward_args *args);
} gidd_architecture;

extern const gidd_architecture gidd_architecture_dit, gidd_architecture_decoder;

/* TRAIN with recomputation: points what a block does not keep into activations->turns. Local. */
void gidd_dit_take_turns(gidd_activations *activations, int64_t L);

/* The network of a shape. Local. */
const gidd_architecture *gidd_architecture_of(const gidd_model_shape *shape);

/* The batch's z through the embedding into block 0's x1; its gradient from dx. Local. */
gidd_status gidd_embedding_fwd(gidd_model *model);
gidd_status gidd_embedding_bwd(gidd_model *model, int accumulate);

/* Attention of the loaded batch's one position to those in activations->cache (cache.h). Local. */
gidd_status gidd_cache_attend(gidd_model *model, int64_t layer);

/* Gradients of `group` are complete. Local. */
void gidd_announce(const gidd_backward_args *args, int64_t group);

/* Where the listed rows are, for a norm; all rows where `listed` is 0. */
static inline const int32_t *gidd_listed_rows(const gidd_model *model, int listed, int64_t *count_p)
{
    *count_p = listed ? model->listed_rows : model->batch.B * model->batch.T;
    return listed ? model->batch.rows : NULL;
}

#endif
