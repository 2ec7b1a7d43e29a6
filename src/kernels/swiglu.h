/* SPDX-License-Identifier: Apache-2.0
 *
 * The gated activation of the autoregressive baseline's MLP. A row of `pre` holds F gates, then F values:
 *
 *     y_j = SiLU(gate_j) * value_j,     SiLU(v) = v / (1 + e^-v)
 */
#ifndef GIDD_KERNELS_SWIGLU_H
#define GIDD_KERNELS_SWIGLU_H

#include "kernels/device.h"

/* Local; asynchronous on the device's stream. */
typedef struct gidd_swiglu_fwd_args {
    void       *y;   /* [rows][F]  E  written */
    const void *pre; /* [rows][2F] E          */
    int64_t     rows;
    int64_t     cols; /* F, multiple of 8     */
} gidd_swiglu_fwd_args;

/* With s = 1/(1 + e^-gate):  dgate = dy value s (1 + gate (1 - s)),   dvalue = dy gate s. */
typedef struct gidd_swiglu_bwd_args {
    void       *dpre; /* [rows][2F] E  written; may alias pre */
    const void *dy;   /* [rows][F]  E                         */
    const void *pre;  /* [rows][2F] E                         */
    int64_t     rows, cols;
} gidd_swiglu_bwd_args;

#endif
