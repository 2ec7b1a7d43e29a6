/* SPDX-License-Identifier: Apache-2.0 */
#include "diffusion/time.h"

#include "base/rng.h"

#include <math.h>

int64_t gidd_time_rank(int64_t i, int64_t G)
{
    int64_t rank = 0;
    for (int64_t bit = 1; bit <= i; bit <<= 1) {
        if ((i & bit) != 0) {
            int64_t low = i & (bit - 1);
            rank += (G - low + 2 * bit - 1) / (2 * bit);
        }
    }
    return rank;
}

float gidd_time_on_grid(int64_t k, int64_t G, double r, double t_eps)
{
    double shifted = (double)k / (double)G + r;
    return (float)((1.0 - 2.0 * t_eps) * (shifted - floor(shifted)) + t_eps);
}

double gidd_time_offset(uint64_t seed, int64_t step)
{
    return gidd_uniform(seed, GIDD_STREAM_TIME, (uint64_t)step, 0, 0);
}

double gidd_time_eval_offset(uint64_t eval_seed, int64_t draw)
{
    return gidd_uniform(eval_seed, GIDD_STREAM_EVAL_TIME, (uint64_t)draw, 0, 0);
}
