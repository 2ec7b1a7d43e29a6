/* SPDX-License-Identifier: Apache-2.0
 *
 * A batch for the losses' slots: on the host, where a test may change it, and then on the device.
 */
#ifndef GIDD_TESTS_KERNELS_LOSS_FIXTURE_H
#define GIDD_TESTS_KERNELS_LOSS_FIXTURE_H

#include "kernels/cases.h"
#include "kernels/harness.h"

typedef gidd_status (*loss_slot)(gidd_device *, const gidd_loss_args *);

typedef struct loss_fixture {
    gidd_device   *device;
    loss_slot      slot;
    loss_case      c;
    int64_t        B;
    int32_t        mask_id;
    int32_t       *x, *z, *mask, *list; /* [rows]; z, attention mask: NULL until the test gives them */
    gidd_seq_coef *coef;                /* [B] */
    double        *logits;              /* [rows][Vr] */
    buffer         dev_x, dev_z, dev_mask, dev_list, dev_coef, dev_logits, terms;
} loss_fixture;

/* x: of `tokens` ids; list: the rows in another order; coefficients: 0 but the row's weight, and that
 * is 0 for the last sequence of several, as the padding of an evaluation. Nothing is uploaded. */
loss_fixture loss_fixture_of(gidd_device *device, loss_slot slot, loss_case c, int64_t tokens);
/* All that the host has, in place of what was uploaded before; the terms become NaN. */
void loss_fixture_upload(loss_fixture *f);
void loss_fixture_release(loss_fixture *f);

void loss_fixture_run(loss_fixture *f, gidd_loss_mode mode, int with_list, double scale);

typedef struct loss_results {
    double *terms;    /* [rows][4] */
    double *gradient; /* [rows][Vr] */
} loss_results;

/* Evaluates, which must leave the logits as they are, then trains, which must give the same terms. */
loss_results loss_fixture_run_both(loss_fixture *f, int with_list, double scale);
void         loss_results_release(loss_results *gone);

#endif
