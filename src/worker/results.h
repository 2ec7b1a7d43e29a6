/* SPDX-License-Identifier: Apache-2.0
 *
 * What a step found, on its way from the device to the host: sent behind the step's work, taken when the next
 * step's work has been issued, so that the device never waits for the host. At most two are on their way.
 * Local, all of it.
 */
#ifndef GIDD_WORKER_RESULTS_H
#define GIDD_WORKER_RESULTS_H

#include "kernels/stream.h"
#include "model/model.h"
#include "worker/optimizer.h"

typedef struct gidd_result {
    gidd_update_state update; /* norm of the gradient; skip: it was not finite, nothing was changed */
    gidd_loss_sums    train;
} gidd_result;

typedef struct gidd_results gidd_results;

/* model and optimizer are borrowed. */
gidd_status gidd_results_create(gidd_model *model, gidd_optimizer *optimizer, gidd_results **results_p);
void        gidd_results_destroy(gidd_results *results); /* NULL-safe */

/* Issues the copies of what the step's work will have found. */
gidd_status gidd_results_send(gidd_results *results);

/* The oldest that was sent and not taken; waits for its step. */
gidd_status gidd_results_take(gidd_results *results, gidd_result *result);

#endif
