/* SPDX-License-Identifier: Apache-2.0
 *
 * Reverse steps (SPEC section 9): the numbers that a step t -> s, s <= t, needs, and the
 * categorical draw. The rows themselves are computed by the kernel slot sample_step, whose
 * arguments have fields of the same names.
 */
#ifndef GIDD_DIFFUSION_POSTERIOR_H
#define GIDD_DIFFUSION_POSTERIOR_H

#include "diffusion/schedule.h"

#include <stdint.h>

/* GIDD uses the first six, MDLM the last two; the others are 0. */
typedef struct gidd_posterior {
    double t, s;
    double alpha_s, alpha_t;
    double beta_other_s, beta_other_t;
    double beta_mask_s, beta_mask_t;
    double move_s, move_t;
} gidd_posterior;

/* The step from time t to time s. Local. */
gidd_posterior gidd_posterior_at(const gidd_schedule *schedule, double t, double s);

/* Step i = n-1 .. 0 of a generation in n steps: from tau_i to tau_max(0,i-1). Local. */
gidd_posterior gidd_posterior_step(const gidd_schedule *schedule, int64_t n, int64_t i);

/* The posterior of one position in float64: out[j], j < width, from the network's xhat[width] (mask
 * column 0) and the current token z. GIDD has width V and its row sums to 1. MDLM may have width V
 * or Vr; the row is meant for masked positions. What sample_step computes, spelled out. Local. */
void gidd_posterior_row(const gidd_posterior *posterior, const gidd_schedule *schedule,
                        const double *xhat, int64_t width, int32_t z, double *out);

/* The first j with p[0] + ... + p[j] > u, the last one taking what is missing (SPEC section 8): the
 * running sum is not normalised and its last entry counts as 1.0001. 0 <= u < 1, count >= 1. Local.
 */
int64_t gidd_categorical_draw(const double *p, int64_t count, double u);

#endif
