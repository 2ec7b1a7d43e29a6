/* SPDX-License-Identifier: Apache-2.0
 *
 * Linear layers: y = x W^T (+ bias), weights [N][K] row-major ([out][in]). Inputs and outputs have the
 * type `dtype`; sums are fp32; gradients of parameters are fp32.
 */
#ifndef GIDD_KERNELS_LINEAR_H
#define GIDD_KERNELS_LINEAR_H

#include "kernels/device.h"

typedef enum gidd_linear_epilogue {
    GIDD_LINEAR_NONE = 0,
    GIDD_LINEAR_BIAS,      /* y = x W^T + bias                                                      */
    GIDD_LINEAR_BIAS_GELU, /* pre = x W^T + bias; y = GELU_tanh(pre)                                */
} gidd_linear_epilogue;

typedef struct gidd_linear_fwd_args {
    void                *y;    /* [M][N] written                                                           */
    void                *pre;  /* [M][N] written with BIAS_GELU (before GELU), kept for backward; may
                                  be NULL in inference                                              */
    const void          *x;    /* [M][K]                                                            */
    const void          *w;    /* [N][K]                                                            */
    const void          *bias; /* [N] or NULL with NONE                                             */
    int64_t              M, N, K;
    gidd_dtype           dtype;
    gidd_linear_epilogue epilogue;
} gidd_linear_fwd_args;

/* dx = dy W, times GELU'(pre) elementwise when `pre` is given (dgelu). */
typedef struct gidd_linear_bwd_data_args {
    void       *dx;  /* [M][K] written                                                             */
    const void *dy;  /* [M][N]                                                                     */
    const void *w;   /* [N][K]                                                                     */
    const void *pre; /* [M][K] or NULL: input of the GELU that produced x                          */
    int64_t     M, N, K;
    gidd_dtype  dtype;
} gidd_linear_bwd_data_args;

/* dw (+)= dy^T x;  dbias (+)= column sums of dy. */
typedef struct gidd_linear_bwd_weight_args {
    float      *dw;    /* [N][K] fp32                                                              */
    float      *dbias; /* [N] fp32, or NULL                                                        */
    const void *dy;    /* [M][N]                                                                   */
    const void *x;     /* [M][K]                                                                   */
    int64_t     M, N, K;
    gidd_dtype  dtype;
    int         accumulate; /* 0: write, 1: add                                                    */
} gidd_linear_bwd_weight_args;

#endif
