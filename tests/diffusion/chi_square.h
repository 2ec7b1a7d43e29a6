/* SPDX-License-Identifier: Apache-2.0
 *
 * Pearson's statistic and its distance from what chance gives, for tests of random numbers. Seeds
 * are fixed, so a test passes always or never; the bound says how surprised we would be by its
 * seed.
 */
#ifndef GIDD_TESTS_DIFFUSION_CHI_SQUARE_H
#define GIDD_TESTS_DIFFUSION_CHI_SQUARE_H

#include <math.h>
#include <stdint.h>

/* Standard deviations by which the statistic of `count` cells lies above its mean (Wilson and
 * Hilferty's cube root): beyond 4.5 once in 300000. Cells of expectation 0 must be empty: else
 * infinity. */
static inline double chi_square_sigmas(const int64_t *seen, const double *expected, int64_t count,
                                       int64_t constraints)
{
    double sum = 0.0;
    int64_t cells = 0;
    for (int64_t i = 0; i < count; i++) {
        if (expected[i] <= 0.0) {
            if (seen[i] != 0) {
                return HUGE_VAL;
            }
            continue;
        }
        double d = (double)seen[i] - expected[i];
        sum += d * d / expected[i];
        cells++;
    }
    double freedom = (double)(cells - constraints);
    double spread = 2.0 / (9.0 * freedom);
    return (cbrt(sum / freedom) - (1.0 - spread)) / sqrt(spread);
}

#endif
