/* SPDX-License-Identifier: Apache-2.0
 *
 * How far a kernel's result may lie from the float64 reference, derived, not tuned.
 *
 * A kernel adds `terms` numbers in fp32 and rounds the result to its type. Each of the additions
 * rounds by at most 2^-24 of the running sum, which is of the size of the largest result of the
 * tensor; roundings have random signs, so they grow with sqrt(terms); 8 standard deviations (and
 * constant work around the sum: a product, an exponential, a division) are allowed. The final
 * rounding costs one unit roundoff of the stored value.
 */
#ifndef GIDD_TESTS_TOLERANCE_H
#define GIDD_TESTS_TOLERANCE_H

#include "kernels/device.h"

#include <math.h>

/* Largest relative error of rounding to nearest: half a unit in the last place. */
static inline double gidd_unit_roundoff(gidd_dtype dtype)
{
    return dtype == GIDD_BF16 ? 0x1p-8 : 0x1p-24;
}

typedef struct gidd_tolerance {
    gidd_dtype stored;  /* type of the result                                                  */
    double     terms;   /* numbers summed for one result (products of two sums: of the longer) */
    double     largest; /* largest absolute value among results and summands                   */
} gidd_tolerance;

/* Allowed absolute difference from the exact value `exact`. */
static inline double gidd_allowed(const gidd_tolerance *tolerance, double exact)
{
    return gidd_unit_roundoff(tolerance->stored) * fabs(exact) +
           8.0 * sqrt(tolerance->terms) * 0x1p-24 * tolerance->largest;
}

#endif
