/* SPDX-License-Identifier: Apache-2.0 */
#include "diffusion/correct.h"

#include <stddef.h>

// The next position in the order (score descending, position ascending) after position `last`,
// whose score is `bound`; -1: none is left. last = -1 starts.
static int64_t next_best(const double *score, int64_t T, double bound, int64_t last)
{
    int64_t best = -1;
    for (int64_t i = 0; i < T; i++) {
        int after_last = last < 0 || score[i] < bound || (score[i] == bound && i > last);
        if (after_last && score[i] > 0.0 && (best < 0 || score[i] > score[best])) {
            best = i;
        }
    }
    return best;
}

int64_t gidd_correct_select(const double *score, const int32_t *proposal, int64_t T, int64_t k,
                            int32_t *z, int32_t *chosen)
{
    int64_t last = -1;
    for (int64_t n = 0; n < k; n++) {
        int64_t i = next_best(score, T, last < 0 ? 0.0 : score[last], last);
        if (i < 0) {
            return n;
        }
        z[i] = proposal[i];
        if (chosen != NULL) {
            chosen[n] = (int32_t)i;
        }
        last = i;
    }
    return k;
}

gidd_correct_verdict gidd_correct_judge(gidd_correct_patience *patience, double accuracy,
                                        int64_t changed)
{
    if (accuracy > patience->best) {
        patience->best = accuracy;
        patience->since_best = 0;
    } else {
        patience->since_best++;
        if (patience->since_best > patience->max_patience) {
            return GIDD_CORRECT_STALLED;
        }
    }
    return changed == 0 ? GIDD_CORRECT_CONVERGED : GIDD_CORRECT_ADOPT;
}
