/* SPDX-License-Identifier: Apache-2.0
 *
 * bfloat16 on the host: the upper half of a float. Rounding is to nearest, ties to even; NaN stays
 * NaN. Loops over these vectorise. Local.
 */
#ifndef GIDD_KERNELS_BF16_H
#define GIDD_KERNELS_BF16_H

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

#endif
