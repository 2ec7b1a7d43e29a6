/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/skip_guard.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { REPORT_TO_ORDER = 2 }; /* steps from a report to the first order that rests on it */

void gidd_skip_guard_init(gidd_skip_guard *guard, const gidd_config *config)
{
    const int chosen = config->loss.skip_clean_rows == GIDD_CONFIG_SKIP_AUTO;
    const int exact = config->diffusion.process == GIDD_CONFIG_MDLM;
    const int near = !exact && gidd_config_clean_rows_weigh(config) == NULL;
    memset(guard, 0, sizeof *guard);
    guard->skips = config->loss.skip_clean_rows == GIDD_CONFIG_SKIP_ON || (chosen && (exact || near));
    guard->guarded = guard->skips && !exact;
    guard->may_end = guard->guarded && chosen;
    guard->end_step = GIDD_SKIP_FOREVER;
}

int gidd_skip_guard_skips(const gidd_skip_guard *guard, int64_t step)
{
    return guard->skips && step < guard->end_step;
}

// A sum that is not finite has no shares; a diverged run is another rule's business.
static double share(double part, double whole)
{
    return whole > 0 && isfinite(part) && isfinite(whole) ? part / whole : 0;
}

gidd_skip_verdict gidd_skip_guard_observe(gidd_skip_guard *guard, const gidd_loss_sums *eval, int64_t step)
{
    if (!guard->guarded || guard->end_step != GIDD_SKIP_FOREVER ||
        (share(eval->clean_loss, eval->loss) <= GIDD_SKIP_SHARE_MAX &&
         share(eval->clean_elbo, eval->elbo) <= GIDD_SKIP_SHARE_MAX)) {
        return GIDD_SKIP_FINE;
    }
    if (!guard->may_end) {
        return GIDD_SKIP_WARN;
    }
    guard->end_step = step + REPORT_TO_ORDER;
    return GIDD_SKIP_ENDS;
}

void gidd_skip_guard_describe(const gidd_loss_sums *eval, char *text, size_t size)
{
    (void)snprintf(text, size, "clean rows have %.3g of the loss and %.3g of the ELBO (at most %g), their smallest "
                   "probability is exp(%.4g)", share(eval->clean_loss, eval->loss), share(eval->clean_elbo, eval->elbo),
                   GIDD_SKIP_SHARE_MAX, eval->min_log_px);
}
