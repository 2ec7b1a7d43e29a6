/* SPDX-License-Identifier: Apache-2.0
 *
 * Residual addition and root-mean-square norm in one pass each way (the autoregressive baseline):
 *
 *     x'[r] = x[r] + y[r]                                          the residual stream, rounded to E once
 *     u[r]  = x'[r] * rstd[r] * gain,   rstd = 1/sqrt(mean_j x'_j^2 + 1e-6)
 *
 * in fp32, from the rounded x'. No mean is taken off and nothing is added, as in Llama.
 */
#ifndef GIDD_KERNELS_RMS_NORM_H
#define GIDD_KERNELS_RMS_NORM_H

#include "kernels/device.h"

/* Local; asynchronous on the device's stream. */
typedef struct gidd_rms_norm_fwd_args {
    void        *x_out; /* [rows][D] E  written: the new residual stream; may alias x. NULL without y */
    void        *u;     /* [rows][D] E  written                                                       */
    float       *rstd;  /* [rows]       written, kept for backward                                    */
    const void  *x;     /* [rows][D] E                                                                */
    const void  *y;     /* [rows][D] E  branch output; NULL: nothing to add                           */
    const float *gain;  /* [D]                                                                        */
    int64_t      rows;
    int64_t      cols;  /* D, multiple of 8                                                           */
} gidd_rms_norm_fwd_args;

/* Backward: dx = dx_out + what comes back through the norm, which is the gradient of x and of y alike.
 *     with s = du * gain, xhat = x' rstd:   dx += rstd (s - xhat mean_j(s xhat)),   dgain = sum_r du xhat.
 * The sum over rows in two stages of fixed order. */
typedef struct gidd_rms_norm_bwd_args {
    void        *dx;     /* [rows][D] E  written; may alias dx_out                                    */
    float       *dgain;  /* [D]          written or added to (accumulate)                             */
    const void  *du;     /* [rows][D] E                                                               */
    const void  *dx_out; /* [rows][D] E  gradient of x' from above; NULL: none (the last norm)        */
    const void  *x_out;  /* [rows][D] E  x', as kept                                                  */
    const float *rstd;   /* [rows]                                                                    */
    const float *gain;
    int64_t      rows, cols;
    int          accumulate;
} gidd_rms_norm_bwd_args;

#endif
