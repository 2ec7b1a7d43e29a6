/* SPDX-License-Identifier: Apache-2.0
 *
 * Time conditioning (SPEC section 2): t -> 256 features -> Linear -> SiLU -> Linear -> SiLU = c.
 * All in fp32 with the master weights: B rows of 128 numbers are worth no rounding.
 */
#ifndef GIDD_KERNELS_TIME_COND_H
#define GIDD_KERNELS_TIME_COND_H

#include "diffusion/batch.h"
#include "kernels/device.h"

enum { GIDD_TIME_FEATURES = 256 };

/* features[b] = [cos(t f_i) ... , sin(t f_i) ...], f_i = exp(-ln(10000) i/128), cosines first;
 * hidden = W0 features + b0;  embedding = W2 SiLU(hidden) + b2;  c = SiLU(embedding). */
typedef struct gidd_time_cond_fwd_args {
    float               *features;  /* [B][256] written, kept for backward */
    float               *hidden;    /* [B][C]   written, kept (before SiLU) */
    float               *embedding; /* [B][C]   written, kept (before SiLU) */
    float               *c;         /* [B][C]   written                     */
    const gidd_seq_coef *coef;      /* [B]: t                               */
    const float         *w0, *b0;   /* [C][256], [C]                        */
    const float         *w2, *b2;   /* [C][C],   [C]                        */
    int64_t              B, C;
} gidd_time_cond_fwd_args;

typedef struct gidd_time_cond_bwd_args {
    float       *dw0, *db0, *dw2, *db2; /* fp32, written or added to        */
    const float *dc;                    /* [B][C]                           */
    const float *features, *hidden, *embedding;
    const float *w2;
    int64_t      B, C;
    int          accumulate;
} gidd_time_cond_bwd_args;

#endif
