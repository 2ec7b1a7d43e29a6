/* SPDX-License-Identifier: Apache-2.0
 *
 * bfloat16 for the kernels; the conversions are base/half.h's.
 */
#ifndef GIDD_KERNELS_BF16_H
#define GIDD_KERNELS_BF16_H

#include "base/half.h"

#endif
