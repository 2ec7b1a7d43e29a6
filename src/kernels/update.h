/* SPDX-License-Identifier: Apache-2.0
 *
 * Everything after the gradient is summed: its norm, clipping, AdamW (SPEC section 13), over flat
 * buffers. What changes from step to step lies in one small struct on the device, so that no argument
 * of a captured launch does.
 */
#ifndef GIDD_KERNELS_UPDATE_H
#define GIDD_KERNELS_UPDATE_H

#include "kernels/device.h"

enum { GIDD_NORM_CHUNK = 2048 }; /* elements of one partial sum of the gradient norm */

/* On the device; the worker writes the upper part before a step, the kernels the lower part. */
typedef struct gidd_update_state {
    float   lr;          /* lr(k); 0 at k = 0                                                       */
    float   beta1, beta2, epsilon, weight_decay;
    float   bias1;       /* 1 - beta1^(k+1), from float64                                           */
    float   bias2;       /* 1 - beta2^(k+1)                                                         */
    float   clip;        /* largest norm; <= 0: no clipping                                         */
    double  norm;        /* written by grad_norm_finish: L2 norm before clipping                    */
    float   grad_scale;  /* written: min(1, clip / (norm + 1e-6)), 0 when skipping                  */
    int32_t skip;        /* written: 1 when the norm is not finite; adamw then changes nothing      */
} gidd_update_state;

/* partials[i] = sum of squares (float64) of the GIDD_NORM_CHUNK elements from i*GIDD_NORM_CHUNK of `grads`: one
 * bucket, or a rank's piece of it, without its padding; the last chunk may be short. Buckets are cut
 * independently of the number of ranks and pieces are whole chunks, so the sum of all partials in order is the
 * same squared norm on any number of ranks, whoever computed which (another bucket size may round it
 * differently: it is part of the numerics fingerprint). */
typedef struct gidd_grad_norm_args {
    double      *partials; /* [ceil(count/GIDD_NORM_CHUNK)] written */
    const float *grads;    /* [count]                               */
    int64_t      count;
} gidd_grad_norm_args;

/* state->norm, grad_scale and skip from the partials, summed in one fixed order. */
typedef struct gidd_grad_norm_finish_args {
    gidd_update_state *state;
    const double      *partials;
    int64_t            count;
} gidd_grad_norm_finish_args;

/* With g = grads * grad_scale:   theta *= 1 - lr wd;   m = b1 m + (1-b1) g;   v = b2 v + (1-b2) g^2;
 * theta -= lr/bias1 * m / (sqrt(v)/sqrt(bias2) + eps);   copy = E(theta). Weight decay on everything. */
typedef struct gidd_adamw_args {
    float                   *theta, *m, *v; /* [count] fp32                                        */
    void                    *copy;          /* [count] E, or NULL (E is fp32: the masters serve)    */
    const float             *grads;         /* [count]                                             */
    const gidd_update_state *state;
    int64_t                  count;
} gidd_adamw_args;

/* average = decay average + (1 - decay) theta, unless the update was skipped. The running average of the masters
 * that evaluation may use in their place. */
typedef struct gidd_ema_args {
    float                   *average; /* [count] fp32 */
    const float             *theta;   /* [count] fp32 */
    const gidd_update_state *state;   /* of the update that theta has just had */
    float                    decay;   /* in [0, 1)    */
    int64_t                  count;
} gidd_ema_args;

/* target = E(source). */
typedef struct gidd_cast_args {
    void        *target; /* [count] E    */
    const float *source; /* [count] fp32 */
    int64_t      count;
} gidd_cast_args;

#endif
