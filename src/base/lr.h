/* SPDX-License-Identifier: Apache-2.0
 *
 * Learning-rate schedules and AdamW's bias corrections (SPEC section 13), in float64.
 */
#ifndef GIDD_BASE_LR_H
#define GIDD_BASE_LR_H

#include <stdint.h>

typedef enum gidd_lr_kind {
    GIDD_LR_COSINE = 0, /* warm-up, then half a cosine down to 10 % of the peak */
    GIDD_LR_LINEAR,     /* warm-up, then a straight line down to 0 */
    GIDD_LR_CONSTANT,   /* the peak at every step: no warm-up */
} gidd_lr_kind;

typedef struct gidd_lr_schedule {
    gidd_lr_kind kind;
    double peak;
    int64_t warmup_steps; /* W >= 0 */
    int64_t total_steps;  /* S > W */
} gidd_lr_schedule;

/* Rate of step k = 0, 1, ... With a warm-up the first step's rate is 0. Steps beyond S keep the
 * rate of step S. Local. */
double gidd_lr_at(const gidd_lr_schedule *schedule, int64_t k);

/* 1 - beta^j, the correction of a moment after j = k + 1 updates. Local. */
double gidd_adam_correction(double beta, int64_t j);

#endif
