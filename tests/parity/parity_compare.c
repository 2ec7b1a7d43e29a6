/* SPDX-License-Identifier: Apache-2.0
 *
 * Comparing, and keeping the score of a section.
 */
#include "parity/parity.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void parity_check(parity *p, double error, double tolerance, const char *format, ...)
{
    char name[96];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(name, sizeof name, format, args);
    va_end(args);
    int ok = error <= tolerance;
    // How bad it is, to find the section's worst: 1 is just within the tolerance.
    double ratio = tolerance > 0.0 ? error / tolerance : (ok ? 0.0 : HUGE_VAL);
    ratio = isnan(ratio) ? HUGE_VAL : ratio;
    p->checks++;
    p->failures += !ok;
    if (p->checks == 1 || ratio > p->worst) {
        p->worst = ratio;
        (void)snprintf(p->worst_text, sizeof p->worst_text, "%s %.2g of %.2g", name, error,
                       tolerance);
    }
    if (p->verbose || !ok) {
        printf("    %-4s %-16s %-50s %.3g of %.3g\n", ok ? "ok" : "FAIL", p->section, name, error,
               tolerance);
    }
}

// |a - b|, where equal infinities are no difference and NaN is one.
static double distance(float a, float b)
{
    if (isfinite(a) && isfinite(b)) {
        return fabs((double)a - (double)b);
    }
    return isinf(a) && isinf(b) && (a > 0) == (b > 0) ? 0.0 : HUGE_VAL;
}

double parity_max_abs(const float *got, const float *want, int64_t count)
{
    double worst = 0.0;
    for (int64_t i = 0; i < count; i++) {
        worst = fmax(worst, distance(got[i], want[i]));
    }
    return worst;
}

double parity_max_rel(const float *got, const float *want, int64_t count)
{
    double worst = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double d = distance(got[i], want[i]);
        worst = fmax(worst, isfinite(d) ? d / (1.0 + fabs((double)want[i])) : d);
    }
    return worst;
}

double parity_rel_l2(const float *got, const float *want, int64_t count)
{
    double difference = 0.0, norm = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double d = distance(got[i], want[i]);
        difference += d * d;
        norm += (double)want[i] * (double)want[i];
    }
    return norm > 0.0 ? sqrt(difference / norm) : (difference > 0.0 ? HUGE_VAL : 0.0);
}

double parity_mismatches(const int32_t *got, const int32_t *want, int64_t count)
{
    int64_t differing = 0;
    for (int64_t i = 0; i < count; i++) {
        differing += got[i] != want[i];
    }
    return (double)differing;
}

double parity_tolerance(const parity *p, double fp32, double bf16)
{
    return p->precision == GIDD_F32 ? fp32 : bf16;
}
