/* SPDX-License-Identifier: Apache-2.0 */
#include "base/lr.h"

#include <math.h>

static double cosine(double progress)
{
    const double pi = 3.14159265358979323846;
    return 0.1 + 0.9 * (1.0 + cos(pi * progress)) / 2.0;
}

double gidd_lr_at(const gidd_lr_schedule *schedule, int64_t k)
{
    int64_t W = schedule->warmup_steps, S = schedule->total_steps;
    if (schedule->kind == GIDD_LR_CONSTANT) {
        return schedule->peak;
    }
    if (k < W) {
        return schedule->peak * (double)k / (double)W;
    }
    double progress = k < S ? (double)(k - W) / (double)(S - W) : 1.0;
    return schedule->peak * (schedule->kind == GIDD_LR_COSINE ? cosine(progress) : 1.0 - progress);
}

double gidd_adam_correction(double beta, int64_t j)
{
    return -expm1((double)j * log(beta)); // 1 - pow(beta, j) without its cancellation
}
