/* SPDX-License-Identifier: Apache-2.0
 *
 * The three schedules at points that can be worked out by hand.
 */
#include "base/lr.h"

#include <criterion/criterion.h>
#include <math.h>

static const gidd_lr_schedule cosine = {GIDD_LR_COSINE, 5e-4, 100, 1100};

static void expect_near(double value, double want)
{
    cr_expect(fabs(value - want) <= 1e-15 + 1e-12 * fabs(want), "%.17g instead of %.17g", value, want);
}

Test(lr, cosine)
{
    expect_near(gidd_lr_at(&cosine, 0), 0);
    expect_near(gidd_lr_at(&cosine, 50), 2.5e-4);
    expect_near(gidd_lr_at(&cosine, 100), 5e-4);
    expect_near(gidd_lr_at(&cosine, 600), 5e-4 * (0.1 + 0.45));
    expect_near(gidd_lr_at(&cosine, 1100), 5e-5);
    expect_near(gidd_lr_at(&cosine, 99999), 5e-5);
}

Test(lr, linear)
{
    gidd_lr_schedule linear = cosine;
    linear.kind = GIDD_LR_LINEAR;
    expect_near(gidd_lr_at(&linear, 25), 1.25e-4);
    expect_near(gidd_lr_at(&linear, 600), 2.5e-4);
    expect_near(gidd_lr_at(&linear, 1100), 0);
    expect_near(gidd_lr_at(&linear, 2000), 0);
}

Test(lr, constant_has_no_warmup)
{
    gidd_lr_schedule constant = cosine;
    constant.kind = GIDD_LR_CONSTANT;
    expect_near(gidd_lr_at(&constant, 0), 5e-4);
    expect_near(gidd_lr_at(&constant, 5000), 5e-4);
}

Test(lr, no_warmup_starts_at_the_peak)
{
    gidd_lr_schedule schedule = cosine;
    schedule.warmup_steps = 0;
    expect_near(gidd_lr_at(&schedule, 0), 5e-4);
}

Test(lr, adam_correction)
{
    expect_near(gidd_adam_correction(0.9, 1), 0.1);
    expect_near(gidd_adam_correction(0.99, 2), 1 - 0.99 * 0.99);
    expect_near(gidd_adam_correction(0.9, 100000), 1);
}
