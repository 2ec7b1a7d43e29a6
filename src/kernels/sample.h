/* SPDX-License-Identifier: Apache-2.0
 *
 * Steps of generation (SPEC sections 8, 9) and self-correction (section 10), one row of logits a
 * position, probabilities in float64. Uniforms come from the caller: a pure function of the seed.
 */
#ifndef GIDD_KERNELS_SAMPLE_H
#define GIDD_KERNELS_SAMPLE_H

#include "kernels/device.h"

typedef enum gidd_sample_kind {
    GIDD_SAMPLE_GIDD = 0, /* posterior of SPEC section 9, every position may change                */
    GIDD_SAMPLE_MDLM,     /* masked positions only                                                 */
    GIDD_SAMPLE_ARGMAX,   /* masked positions take their most probable token (MDLM's last step)    */
} gidd_sample_kind;

/* z_out[i] = draw from the posterior given logits[i] and z[i]: the first j with
 * p_0 + ... + p_j > uniform[i] (strict), the last column taking what rounding leaves. */
typedef struct gidd_sample_step_args {
    int32_t         *z_out;     /* [rows] written; may alias z                                     */
    double          *posterior; /* [rows][width] written, or NULL; ARGMAX does not write it        */
    double          *entropy;   /* [rows] written, or NULL: entropy in nats of what the network predicts,
                                   softmax(logits / temperature) without the mask; 0 where the token
                                   cannot change                                                   */
    const void      *logits;    /* [rows][stride] E                                                */
    const int32_t   *z;         /* [rows]                                                          */
    const uint8_t   *fixed;     /* [rows] 1: the position keeps its token; NULL: none is fixed     */
    const double    *uniform;   /* [rows] in [0, 1); unused by ARGMAX                              */
    int64_t          rows;
    int64_t          width;     /* columns used: V (Vr reproduces the reference's MDLM)            */
    int64_t          stride;    /* Vr                                                              */
    int32_t          mask_id;
    gidd_sample_kind kind;
    double           temperature; /* logits are divided by it; 1: as trained                       */
    double           min_p;       /* entries below it become 0 and the row is renormalised; 0: off */
    /* GIDD: alpha_s, alpha_t and beta_other, beta_mask at s and t. MDLM: move_s, move_t = M(s), M(t). */
    double           alpha_s, alpha_t, beta_other_s, beta_other_t, beta_mask_s, beta_mask_t;
    double           move_s, move_t;
} gidd_sample_step_args;

/* Self-correction, first half: a proposal per position, its score, and the most probable token of the
 * untempered logits. Choosing the best k positions of a sequence is the caller's. */
typedef struct gidd_correct_step_args {
    int32_t       *proposal; /* [rows] written: y_i drawn from softmax(logits / temperature)        */
    double        *score;    /* [rows] written: p_i[y_i] where y_i != z_i, else 0                   */
    int32_t       *best;     /* [rows] written: argmax of logits (mask excluded)                    */
    const void    *logits;   /* [rows][stride] E                                                    */
    const int32_t *z;        /* [rows]                                                              */
    const double  *uniform;  /* [rows]                                                              */
    int64_t        rows, width, stride;
    int32_t        mask_id;
    double         temperature;
} gidd_correct_step_args;

#endif
