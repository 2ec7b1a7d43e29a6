/* SPDX-License-Identifier: Apache-2.0
 *
 * Exponential functions that a compiler can vectorise: branch-free, no table, no errno, no
 * -ffast-math. (libm's stay scalar in a loop unless IEEE semantics are given up.) Local.
 *
 * Ranges: NaN gives NaN, +inf gives +inf, -inf gives 0; results below the normal range are rounded
 * to denormals and then to 0. Largest error found against long double on dense sweeps, denormals
 * included (tests/kernels/test_vmath.c): 1.01 ulp for gidd_expf, 1.05 ulp for gidd_exp.
 */
#ifndef GIDD_BASE_VMATH_H
#define GIDD_BASE_VMATH_H

#include <stdint.h>
#include <string.h>

/* 2^n as a float, -126 <= n <= 127. */
static inline float gidd_exp2_int(int32_t n)
{
    uint32_t bits = (uint32_t)(n + 127) << 23;
    float    value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* e^x. x = n ln 2 + r with |r| <= ln 2 / 2; e^r by a minimax polynomial of degree 6. */
static inline float gidd_expf(float x)
{
    const float magic = 0x1.8p23f; // adding it rounds to an integer, held in the low bits
    float       held = x > 89.0f ? 89.0f : x;
    held = held < -104.0f ? -104.0f : held;
    float shifted = held * 0x1.715476p0f + magic;
    float n = shifted - magic;
    float r = held - n * 0x1.62e4p-1f;
    r = r - n * 0x1.7f7d1cp-20f;
    float p = 1.38131446998e-3f;
    p = p * r + 8.36941882717e-3f;
    p = p * r + 4.16684567843e-2f;
    p = p * r + 1.66665147915e-1f;
    p = p * r + 4.99999930507e-1f;
    p = p * (r * r) + r;
    p = p + 1.0f;
    // two factors, so that neither overflows where the product does not, nor is a denormal itself
    n = n == n ? n : 0.0f;
    int32_t whole = (int32_t)n;
    int32_t half = whole / 2;
    return (p * gidd_exp2_int(half)) * gidd_exp2_int(whole - half); // NaN has stayed in p
}

/* 2^n as a double, -1022 <= n <= 1023. */
static inline double gidd_exp2_long(int64_t n)
{
    uint64_t bits = (uint64_t)(n + 1023) << 52;
    double   value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* e^x in double: the same scheme, degree 11. */
static inline double gidd_exp(double x)
{
    const double magic = 0x1.8p52;
    double       held = x > 710.0 ? 710.0 : x;
    held = held < -746.0 ? -746.0 : held;
    double n = (held * 0x1.71547652b82fep0 + magic) - magic;
    double r = held - n * 0x1.62e42fep-1;
    r = r - n * 0x1.f473de6af278fp-30;
    double p = 2.499899734355423235083e-8;
    p = p * r + 2.763168729180760460373e-7;
    p = p * r + 2.75575971727413910487e-6;
    p = p * r + 2.480148935244164124631e-5;
    p = p * r + 1.984126948617588939139e-4;
    p = p * r + 1.38888889469197699611e-3;
    p = p * r + 8.333333333507655168817e-3;
    p = p * r + 4.16666666665191540162e-2;
    p = p * r + 1.666666666666638630994e-1;
    p = p * r + 5.000000000000011701045e-1;
    p = p * (r * r) + r;
    p = p + 1.0;
    n = n == n ? n : 0.0;
    int64_t whole = (int32_t)n;
    int64_t half = (int32_t)n / 2;
    return (p * gidd_exp2_long(half)) * gidd_exp2_long(whole - half);
}

#endif
