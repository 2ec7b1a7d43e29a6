/* SPDX-License-Identifier: Apache-2.0
 *
 * Self-correction's decisions (SPEC section 10), on the host: which positions of a sequence to
 * change after the kernel slot correct_step has proposed and scored, and when to stop.
 */
#ifndef GIDD_DIFFUSION_CORRECT_H
#define GIDD_DIFFUSION_CORRECT_H

#include <stdint.h>

/* Takes over the k proposals of highest score: z[i] = proposal[i]. Positions with score 0 are never
 * chosen; of equal scores the lower position wins. `chosen` ([k], or NULL) gets the positions in
 * descending order of score. Returns how many were chosen, 0..k. O(T k). Local. */
int64_t gidd_correct_select(const double *score, const int32_t *proposal, int64_t T, int64_t k,
                            int32_t *z, int32_t *chosen);

typedef enum gidd_correct_verdict {
    GIDD_CORRECT_ADOPT = 0, /* keep the new z and go on */
    GIDD_CORRECT_STALLED,   /* patience is over: keep the old z and stop */
    GIDD_CORRECT_CONVERGED, /* nothing changed: stop */
} gidd_correct_verdict;

/* Start with {.max_patience = 32}. */
typedef struct gidd_correct_patience {
    double best; /* highest accuracy so far */
    int64_t since_best;
    int64_t max_patience;
} gidd_correct_patience;

/* What to do after a step: `accuracy` is the share of positions where the new z equals the most
 * probable token, `changed` the number of positions where it differs from the old z. Local. */
gidd_correct_verdict gidd_correct_judge(gidd_correct_patience *patience, double accuracy,
                                        int64_t changed);

#endif
