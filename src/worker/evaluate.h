/* SPDX-License-Identifier: Apache-2.0
 *
 * Evaluation over (a part of) the validation split (SPEC section 11): the same forward and loss as in
 * training, noise and times from evaluation's own streams. A document's numbers do not depend on the
 * batch it is in or on the rank that computes it.
 */
#ifndef GIDD_WORKER_EVALUATE_H
#define GIDD_WORKER_EVALUATE_H

#include "io/loader.h"
#include "model/model.h"

typedef struct gidd_evaluate_args {
    gidd_model        *model;  /* TRAIN or INFER; its loaded batch changes */
    const gidd_loader *loader;
    gidd_batch        *batch;  /* laid out for B rows; overwritten         */
    int64_t            examples; /* the first so many of the validation split */
    int64_t            draws;    /* noise draws of each                       */
    int                rank, ranks; /* this rank takes its contiguous share   */
    int64_t           *histogram; /* [V] counts of real tokens of the windows, added to; NULL: none */
    void (*progress)(void *context, int64_t done, int64_t count); /* after each batch; may be NULL */
    void              *context;
} gidd_evaluate_args;

/* Sums of this rank's share into *sums (added up over ranks by the caller). Local. */
gidd_status gidd_evaluate(const gidd_evaluate_args *args, gidd_loss_sums *sums);

#endif
