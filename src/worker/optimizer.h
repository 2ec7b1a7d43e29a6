/* SPDX-License-Identifier: Apache-2.0
 *
 * One update of the parameters of a slice (SPEC section 13): norm of the summed gradient, clipping, AdamW
 * with decay on every parameter. The moments have the slice's own layout (model/slice.h).
 *
 *     gidd_optimizer_set(optimizer, k, lr);        // this step's numbers, to the device
 *     gidd_optimizer_norm(optimizer, model);       // partial sums of the slice's gradients
 *     ... with a slice that is not whole: the ranks' partial sums become one array (worker/replicate.h)
 *     gidd_optimizer_apply(optimizer, model);      // the norm; AdamW on the slice
 *     gidd_optimizer_read(optimizer, &norm, &skipped);     // waits
 *
 * The squared norm is the sum, in order, of partial sums over GIDD_NORM_CHUNK elements each; they start anew
 * with each bucket and leave padding out, so they depend neither on the number of ranks nor on the slice.
 */
#ifndef GIDD_WORKER_OPTIMIZER_H
#define GIDD_WORKER_OPTIMIZER_H

#include "model/model.h"

typedef struct gidd_optimizer_args {
    gidd_device       *device; /* borrowed                                          */
    const gidd_params *params; /* borrowed                                          */
    const gidd_slice  *slice;  /* borrowed; NULL: a whole one                       */
    double             beta1, beta2, epsilon, weight_decay;
    double             clip; /* largest norm of the gradient; <= 0: no clipping     */
    double             ema_decay; /* of the running average; 0: none is kept           */
} gidd_optimizer_args;

typedef struct gidd_optimizer {
    gidd_optimizer_args args;
    gidd_slice          whole;    /* owned: the slice where none was given            */
    const gidd_slice   *slice;
    float              *m, *v;    /* [slice->own_count] on the device; start at 0     */
    float              *average;  /* [slice->own_count] on the device; NULL without one */
    double             *partials; /* [slice->chunk_count] on the device               */
    gidd_update_state  *state;    /* on the device                                    */
    gidd_update_state  *sent;     /* pinned: what set() sent there for the last steps */
    int64_t             sent_count;
} gidd_optimizer;

/* Allocates and zeroes the moments. GIDD_ERR_NOMEM. Local. */
gidd_status gidd_optimizer_create(const gidd_optimizer_args *args, gidd_optimizer **optimizer_p);
void        gidd_optimizer_destroy(gidd_optimizer *optimizer); /* NULL-safe. Local. */

/* Makes the running average, if there is one, the masters as they are: at the start, and where a run begins to
 * keep one. Local. */
gidd_status gidd_optimizer_start_average(gidd_optimizer *optimizer, const gidd_model *model);

/* Sends the numbers of step k = 0, 1, ... to the device: lr, and Adam's bias corrections with count k + 1,
 * whether or not earlier updates were skipped. Local. */
gidd_status gidd_optimizer_set(gidd_optimizer *optimizer, int64_t k, double lr);

/* Partial sums of the slice's part of model->grads, which is complete; those of other slices become 0.
 * Local; asynchronous on the device's stream. */
gidd_status gidd_optimizer_norm(gidd_optimizer *optimizer, gidd_model *model);

/* From all partial sums the norm, then AdamW on the slice: its masters, moments, average and part of the E copy
 * (what else follows from the masters: gidd_model_refresh_exact). Local; asynchronous likewise. */
gidd_status gidd_optimizer_apply(gidd_optimizer *optimizer, gidd_model *model);

/* With a whole slice: set, norm, apply. Local. */
gidd_status gidd_optimizer_step(gidd_optimizer *optimizer, gidd_model *model, int64_t k, double lr);

/* What the last update found, after waiting for it: the gradient's L2 norm before clipping, and 1 if that
 * was not finite, so that nothing was changed. Local. */
gidd_status gidd_optimizer_read(gidd_optimizer *optimizer, double *norm_p, int *skipped_p);

#endif
