/* SPDX-License-Identifier: Apache-2.0
 *
 * Multi-head attention on packed, un-rotated qkv (SPEC section 2, steps 3-5): rotary embedding of q and
 * k (half-split pairing) is private to the slot, forward and backward. Nothing of size T x T is kept.
 *
 *     qkv [B][T][3][H][d]     out [B][T][H][d]     lse [B][H][T] = log sum_j exp(q_i k_j / sqrt(d))
 */
#ifndef GIDD_KERNELS_ATTENTION_H
#define GIDD_KERNELS_ATTENTION_H

#include "kernels/device.h"

typedef enum gidd_attention_kind {
    GIDD_ATTENTION_FULL = 0, /* bidirectional, no mask of any kind: padding attends and is attended to */
    GIDD_ATTENTION_CAUSAL,   /* position i sees j <= i (the autoregressive baseline)                   */
} gidd_attention_kind;

typedef struct gidd_attention_fwd_args {
    void                *out;  /* [B][T][D] E written                                                */
    float               *lse;  /* [B][H][T]   written, kept for backward                             */
    const void          *qkv;  /* [B][T][3D] E                                                       */
    const float         *rope; /* [T][d/2][2] cos and sin of p * 10000^(-2i/d)                       */
    int64_t              B, T, H, d; /* d even, <= 128                                               */
    gidd_attention_kind  kind;
} gidd_attention_fwd_args;

typedef struct gidd_attention_bwd_args {
    void                *dqkv; /* [B][T][3D] E written (w.r.t. the un-rotated q, k)                  */
    const void          *dout; /* [B][T][D] E                                                        */
    const void          *out;  /* as kept                                                            */
    const float         *lse;
    const void          *qkv;
    const float         *rope;
    int64_t              B, T, H, d;
    gidd_attention_kind  kind;
} gidd_attention_bwd_args;

/* One more position of causal attention, from what is kept of the earlier ones: rotates q and k of the
 * position, keeps k and v, and attends to positions 0 .. position. T: positions that there is room for. */
typedef struct gidd_attention_step_args {
    void        *out;            /* [B][D] E     written                                              */
    float       *keys, *values;  /* [B][T][D]    read below `position`, written there; keys rotated   */
    const void  *qkv;            /* [B][3D] E    of this position                                     */
    const float *rope;           /* [T][d/2][2]                                                       */
    int64_t      B, T, H, d;
    int64_t      position;       /* 0 <= position < T                                                 */
} gidd_attention_step_args;

#endif
