/* SPDX-License-Identifier: Apache-2.0
 *
 * One update of all parameters (SPEC section 13): norm of the summed gradient, clipping, AdamW with decay
 * on every parameter. The moments lie beside the parameters: m[i] and v[i] belong to master[i].
 *
 *     gidd_optimizer_set(optimizer, k, lr);        // this step's numbers, to the device
 *     gidd_optimizer_update(optimizer, model);     // kernels only
 *     gidd_optimizer_read(optimizer, &norm, &skipped);     // waits
 *
 * The squared norm is the sum, in order, of partial sums over 65536 elements each; they start anew with
 * each bucket and leave padding out, so they do not depend on the number of ranks.
 */
#ifndef GIDD_WORKER_OPTIMIZER_H
#define GIDD_WORKER_OPTIMIZER_H

#include "model/model.h"

typedef struct gidd_optimizer_args {
    gidd_device       *device; /* borrowed                                          */
    const gidd_params *params; /* borrowed                                          */
    double             beta1, beta2, epsilon, weight_decay;
    double             clip; /* largest norm of the gradient; <= 0: no clipping     */
} gidd_optimizer_args;

typedef struct gidd_optimizer {
    gidd_optimizer_args args;
    float              *m, *v;    /* [params->memory_count] on the device; start at 0 */
    double             *partials; /* [partial_count] on the device                    */
    int64_t             partial_count;
    gidd_update_state  *state;    /* on the device                                    */
    gidd_update_state   next;     /* what set() sends there                           */
} gidd_optimizer;

/* Allocates and zeroes the moments. GIDD_ERR_NOMEM. Local. */
gidd_status gidd_optimizer_create(const gidd_optimizer_args *args, gidd_optimizer **optimizer_p);
void        gidd_optimizer_destroy(gidd_optimizer *optimizer); /* NULL-safe. Local. */

/* Sends the numbers of step k = 0, 1, ... to the device: lr, and Adam's bias corrections with count k + 1,
 * whether or not earlier updates were skipped. Local. */
gidd_status gidd_optimizer_set(gidd_optimizer *optimizer, int64_t k, double lr);

/* Updates model->master and model->weights from model->grads, which are complete. Local; asynchronous on
 * the device's stream. */
gidd_status gidd_optimizer_update(gidd_optimizer *optimizer, gidd_model *model);

/* set, then update. Local. */
gidd_status gidd_optimizer_step(gidd_optimizer *optimizer, gidd_model *model, int64_t k, double lr);

/* What the last update found, after waiting for it: the gradient's L2 norm before clipping, and 1 if that
 * was not finite, so that nothing was changed. Local. */
gidd_status gidd_optimizer_read(gidd_optimizer *optimizer, double *norm_p, int *skipped_p);

#endif
