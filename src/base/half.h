/* SPDX-License-Identifier: Apache-2.0
 *
 * Sixteen-bit floating-point numbers on the host: bfloat16 (the upper half of a float) and IEEE binary16.
 * Rounding is to nearest, ties to even; NaN stays NaN. Loops over these vectorise. Local.
 */
#ifndef GIDD_BASE_HALF_H
#define GIDD_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float gidd_bf16_to_float(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float    value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint16_t gidd_bf16_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    uint32_t quiet = bits >> 16 | 0x40u;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

/* Exact: every binary16 number is a float. */
static inline float gidd_fp16_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = half >> 10 & 0x1fu, fraction = half & 0x3ffu;
    uint32_t bits = sign | (exponent + 112u) << 23 | fraction << 13;
    float    value;
    if (exponent == 0x1fu) {
        bits = sign | 0x7f800000u | fraction << 13;
    } else if (exponent == 0) { // zero, or fraction * 2^-24
        value = (float)fraction * 0x1p-24f;
        memcpy(&bits, &value, sizeof bits);
        bits |= sign;
    }
    memcpy(&value, &bits, sizeof value);
    return value;
}

#endif
