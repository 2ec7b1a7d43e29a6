/* SPDX-License-Identifier: Apache-2.0
 *
 * loss.skip_clean_rows: whether a step leaves the rows whose token was not noised (z = x) out of head and
 * loss, half of the head's work.
 *
 *   MDLM                              their weight is exactly 0: nothing changes, `auto` leaves them out
 *   GIDD, p_u = 0                     a row's loss is w/xhat_x, w about 1e-13: 1e-5 at xhat_x = 1e-8, 1e-3 at
 *                                     1e-10. An approximation that holds while the model finds clean tokens
 *                                     likely, and these rows are what keeps it there: `auto` leaves them out
 *                                     under guard
 *   GIDD, p_u > 0 or min_weight > 0   they teach the model to see wrong tokens, or weigh as others do: `auto`
 *                                     computes them, `on` is refused (gidd_config_check)
 *
 * The guard: every evaluation computes all rows. If their share of the loss or of the ELBO exceeds
 * GIDD_SKIP_SHARE_MAX, the run warns, and `auto` leaves out nothing from the order on that rests on that report:
 * a pure function of the reports, kept in the checkpoint as the step at which leaving out ends.
 */
#ifndef GIDD_COORDINATOR_SKIP_GUARD_H
#define GIDD_COORDINATOR_SKIP_GUARD_H

#include "base/config.h"
#include "kernels/loss.h"

#define GIDD_SKIP_SHARE_MAX 1e-4 /* of clean rows in an evaluation's loss or ELBO */
#define GIDD_SKIP_FOREVER INT64_MAX

typedef struct gidd_skip_guard {
    int     skips;    /* the configuration leaves clean rows out                                     */
    int     guarded;  /* and that is an approximation                                                */
    int     may_end;  /* and it was the program's choice                                             */
    int64_t end_step; /* first step that computes all rows; GIDD_SKIP_FOREVER: none has been decided */
} gidd_skip_guard;

typedef enum gidd_skip_verdict {
    GIDD_SKIP_FINE = 0,
    GIDD_SKIP_WARN, /* the share is too large, and it was the user's choice          */
    GIDD_SKIP_ENDS, /* the share is too large: end_step has just been set             */
} gidd_skip_verdict;

/* Local, all of them. */
void gidd_skip_guard_init(gidd_skip_guard *guard, const gidd_config *config);
int  gidd_skip_guard_skips(const gidd_skip_guard *guard, int64_t step);

/* Judges an evaluation over all ranks that was reported with step `step`; the first order that can rest on it
 * is that of step + 2. Local. */
gidd_skip_verdict gidd_skip_guard_observe(gidd_skip_guard *guard, const gidd_loss_sums *eval, int64_t step);

/* "clean rows have 0.0021 of the loss and 0.0007 of the ELBO ...": what was found. Local. */
void gidd_skip_guard_describe(const gidd_loss_sums *eval, char *text, size_t size);

#endif
