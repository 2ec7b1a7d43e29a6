/* SPDX-License-Identifier: Apache-2.0
 *
 * Dense sweeps against long double. Errors in units of the last place of the exact result, at least
 * the smallest denormal.
 */
#include "base/vmath.h"

#include "kernels/bf16.h"

#include <criterion/criterion.h>
#include <float.h>
#include <math.h>

static double ulps_float(float value, long double exact)
{
    if ((float)exact == value) {
        return 0.0;
    }
    int exponent;
    (void)frexpl(exact, &exponent);
    long double unit = ldexpl(1.0L, exponent - 24 < -149 ? -149 : exponent - 24);
    return (double)(fabsl((long double)value - exact) / unit);
}

Test(vmath, expf_sweep)
{
    double worst = 0.0, worst_small = 0.0;
    for (int64_t i = 0; i < 3000000; i++) {
        float       x = -110.0f + (float)i * (200.0f / 3000000.0f);
        long double exact = expl((long double)x);
        double      error = exact > (long double)FLT_MAX ? (double)(gidd_expf(x) != INFINITY)
                                                         : ulps_float(gidd_expf(x), exact);
        if (exact < (long double)FLT_MIN) {
            worst_small = fmax(worst_small, error);
        } else {
            worst = fmax(worst, error);
        }
    }
    cr_assert(worst <= 1.1, "%g ulp", worst);
    cr_assert(worst_small <= 1.1, "%g ulp among denormals", worst_small);
}

Test(vmath, expf_extremes)
{
    cr_assert(gidd_expf(0.0f) == 1.0f && gidd_expf(-0.0f) == 1.0f);
    cr_assert(gidd_expf(INFINITY) == INFINITY && gidd_expf(-INFINITY) == 0.0f);
    cr_assert(gidd_expf(FLT_MAX) == INFINITY && gidd_expf(-FLT_MAX) == 0.0f);
    cr_assert(isnan(gidd_expf(NAN)));
    cr_assert(gidd_expf(0x1p-149f) == 1.0f && gidd_expf(-FLT_MIN) == 1.0f);
    cr_assert(isfinite(gidd_expf(88.72283f)) && isinf(gidd_expf(88.72284f)));
    cr_assert(gidd_expf(-103.9f) == 0x1p-149f && gidd_expf(-104.1f) == 0.0f);
}

Test(vmath, exp_sweep)
{
    double worst = 0.0;
    for (int64_t i = 0; i < 1000000; i++) {
        double      x = -707.0 + (double)i * (1416.0 / 1000000.0);
        long double exact = expl((long double)x);
        int         exponent;
        (void)frexpl(exact, &exponent);
        double error =
            (double)(fabsl((long double)gidd_exp(x) - exact) / ldexpl(1.0L, exponent - 53));
        worst = fmax(worst, error);
    }
    cr_assert(worst <= 1.1, "%g ulp", worst);
    cr_assert(gidd_exp(0.0) == 1.0 && gidd_exp(HUGE_VAL) == HUGE_VAL && gidd_exp(-HUGE_VAL) == 0.0);
    cr_assert(isinf(gidd_exp(709.79)) && isfinite(gidd_exp(709.78)));
    cr_assert(gidd_exp(-745.0) == 0x1p-1074 && gidd_exp(-746.0) == 0.0 &&
              isnan(gidd_exp((double)NAN)));
}

// A loop that is vectorised must give what the scalar call gives.
Test(vmath, expf_in_a_loop)
{
    enum { COUNT = 1003 };
    float in[COUNT], out[COUNT];
    for (int i = 0; i < COUNT; i++) {
        in[i] = i == 500   ? NAN
                : i == 501 ? INFINITY
                : i == 502 ? -INFINITY
                           : (float)(i - 800) * 0.1f;
    }
    for (int i = 0; i < COUNT; i++) {
        out[i] = gidd_expf(in[i]);
    }
    for (int i = 0; i < COUNT; i++) {
        volatile float one = in[i];
        float          scalar = gidd_expf(one);
        cr_assert((out[i] == scalar || isnan(out[i])) && isnan(out[i]) == isnan(scalar), "%d", i);
    }
}

Test(bf16, rounds_to_nearest_even_and_keeps_nan)
{
    // every bf16 survives; halfway goes to even; just beside halfway goes to the nearer
    for (uint32_t half = 0; half < 65536; half++) {
        float value = gidd_bf16_to_float((uint16_t)half);
        if (isnan(value)) {
            cr_assert(isnan(gidd_bf16_to_float(gidd_bf16_from_float(value))));
            continue;
        }
        cr_assert_eq(gidd_bf16_from_float(value), half);
        if ((half & 0x7fff) >= 0x7f7f) {
            continue; // the largest finite number and infinity have no finite neighbour
        }
        uint32_t middle = half << 16 | 0x8000u;
        float    tie, below, above;
        memcpy(&tie, &middle, sizeof tie);
        memcpy(&below, &(uint32_t){middle - 1}, sizeof below);
        memcpy(&above, &(uint32_t){middle + 1}, sizeof above);
        cr_assert_eq(gidd_bf16_from_float(tie), half + (half & 1));
        cr_assert_eq(gidd_bf16_from_float(below), half);
        cr_assert_eq(gidd_bf16_from_float(above), half + 1);
    }
    uint32_t low_nan = 0x7f800001u; // its upper half alone would be infinity
    float    value;
    memcpy(&value, &low_nan, sizeof value);
    cr_assert(isnan(gidd_bf16_to_float(gidd_bf16_from_float(value))));
    cr_assert_eq(gidd_bf16_from_float(FLT_MAX), 0x7f80); // rounds up to infinity
}
