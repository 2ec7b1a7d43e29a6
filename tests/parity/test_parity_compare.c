/* SPDX-License-Identifier: Apache-2.0
 *
 * The tool that judges must itself be able to say no.
 */
#include "parity/parity.h"

#include <criterion/criterion.h>
#include <math.h>

Test(parity_compare, measures_differences)
{
    const float want[3] = {1.0f, -3.0f, 0.0f}, got[3] = {1.5f, -3.0f, 0.0f};
    cr_assert(parity_max_abs(got, want, 3) == 0.5);
    cr_assert(parity_max_rel(got, want, 3) == 0.25);
    cr_assert_float_eq(parity_rel_l2(got, want, 3), 0.5 / sqrt(10.0), 1e-15);
    cr_assert(parity_max_abs(want, want, 3) == 0.0);
    cr_assert(parity_mismatches((int32_t[]){1, 2, 3}, (int32_t[]){1, 5, 4}, 3) == 2.0);
}

Test(parity_compare, what_is_not_finite_differs)
{
    const float finite[2] = {1.0f, 2.0f}, nan[2] = {1.0f, NAN}, infinite[2] = {INFINITY, 2.0f};
    cr_assert(isinf(parity_max_abs(nan, finite, 2)) && isinf(parity_max_abs(finite, nan, 2)));
    cr_assert(isinf(parity_max_abs(nan, nan, 2)));
    cr_assert(isinf(parity_max_rel(infinite, finite, 2)));
    cr_assert(isinf(parity_rel_l2(nan, finite, 2)));
    cr_assert(parity_max_abs(infinite, infinite, 2) == 0.0);
    cr_assert(isinf(parity_max_abs(infinite, (float[]){-INFINITY, 2.0f}, 2)));
}

Test(parity_compare, counts_failures_and_keeps_the_worst)
{
    parity p = {.section = "test"};
    parity_check(&p, 0.5, 1.0, "half");
    cr_assert(p.checks == 1 && p.failures == 0);
    parity_check(&p, 1.0, 1.0, "full");
    cr_assert(p.failures == 0 && p.worst == 1.0);
    parity_check(&p, 1e-9, 0.0, "must be equal");
    cr_assert(p.failures == 1);
    parity_check(&p, (double)NAN, 1.0, "not a number");
    cr_assert(p.failures == 2 && p.checks == 4);
    cr_assert_str_eq(p.worst_text, "must be equal 1e-09 of 0"); // the first of the worst
}
