/* SPDX-License-Identifier: Apache-2.0
 *
 * Ancestral sampling from an autoregressive model: BOS, then token after token from the distribution of the
 * next one, with the keys and values of earlier positions kept (cache.h). A sequence ends with EOS; PAD
 * follows. The mask id, which no text contains, is never drawn.
 *
 * The uniform of a token is a function of (seed, global sample number, position) alone, as in sampler.h.
 */
#ifndef GIDD_MODEL_ANCESTRAL_H
#define GIDD_MODEL_ANCESTRAL_H

#include "model/model.h"

typedef struct gidd_ancestral_args {
    gidd_model *model;       /* borrowed; autoregressive, of either mode                       */
    int64_t     T;           /* tokens of a sequence, <= model->max_T, < 2^20                   */
    double      temperature; /* logits are divided by it                                       */
    double      min_p;       /* probabilities below it are dropped; 0: none                    */
    uint64_t    seed;
    /* Called after each position with the ids of the running batch, `step` of `steps` done; NULL: not. */
    void (*progress)(void *context, int64_t step, int64_t steps, const int32_t *ids, int64_t B);
    void *context;
} gidd_ancestral_args;

typedef struct gidd_ancestral gidd_ancestral; /* opaque: cache and scratch */

/* GIDD_ERR_ARG: sizes that the model does not have; GIDD_ERR_NOMEM. Local. */
gidd_status gidd_ancestral_create(const gidd_ancestral_args *args, gidd_ancestral **ancestral_p);
void        gidd_ancestral_destroy(gidd_ancestral *ancestral); /* NULL-safe. Local. */

/* Sequences first_sample ... + count - 1 into ids [count][T]. `given` [count][T] holds tokens that are taken
 * instead of drawn ones, and -1 where one is to be drawn (later tokens are not foreseen: a prefix makes a
 * continuation); NULL: none is given. `entropy` [count][T-1], or NULL: of the prediction of positions 1 ... T-1
 * in nats, at the sampler's temperature; 0 where the token was given or comes after EOS. Local. */
gidd_status gidd_ancestral_generate(gidd_ancestral *ancestral, int64_t first_sample, int64_t count,
                                    const int32_t *given, int32_t *ids, double *entropy);

#endif
