/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernels once more: plain float64 loops over the formulas of the specification, written for
 * reading and without a look at the kernels. test_reference.c checks their gradients by finite
 * differences.
 */
#ifndef GIDD_TESTS_KERNELS_REFERENCE_H
#define GIDD_TESTS_KERNELS_REFERENCE_H

#include "diffusion/batch.h"

#include <stdint.h>

/* y = x w^T + bias (NULL: none). */
void   ref_linear(double *y, const double *x, const double *w, const double *bias, int64_t M,
                  int64_t N, int64_t K);
double ref_gelu(double v);
double ref_gelu_slope(double v);
/* dx = dy w */
void ref_linear_bwd_data(double *dx, const double *dy, const double *w, int64_t M, int64_t N,
                         int64_t K);
/* dw = dy^T x, dbias = column sums of dy */
void ref_linear_bwd_weight(double *dw, double *dbias, const double *dy, const double *x, int64_t M,
                           int64_t N, int64_t K);

/* One row: LN(x) gain (1 + scale) + shift. */
void ref_norm(double *u, double *mean, double *rstd, const double *x, const double *gain,
              const double *scale, const double *shift, int64_t D);
/* Gradient of one row with respect to x: dx = ... (written). */
void ref_norm_bwd(double *dx, const double *du, const double *x, double mean, double rstd,
                  const double *gain, const double *scale, int64_t D);

/* One row: u = x / sqrt(mean x^2 + 1e-6) gain. */
void ref_rms_norm(double *u, double *rstd, const double *x, const double *gain, int64_t D);
/* One row: dx written, dgain added to. */
void ref_rms_norm_bwd(double *dx, double *dgain, const double *du, const double *x, double rstd,
                      const double *gain, int64_t D);

/* One row: y [F] = SiLU(gate) value of pre [gates F | values F]; dpre likewise. */
void ref_swiglu(double *y, const double *pre, int64_t F);
void ref_swiglu_bwd(double *dpre, const double *dy, const double *pre, int64_t F);

typedef struct ref_attention_shape {
    int64_t B, T, H, d;
    int     causal;
} ref_attention_shape;

/* rope [T][d/2][2] */
void ref_rope(double *rope, int64_t T, int64_t d);
void ref_attention(double *out, double *lse, const double *qkv, const double *rope,
                   ref_attention_shape shape);
void ref_attention_bwd(double *dqkv, const double *dout, const double *out, const double *lse,
                       const double *qkv, const double *rope, ref_attention_shape shape);

/* features [256], hidden [C], embedding [C], c [C] of one row. */
void ref_time_cond(double *features, double *hidden, double *embedding, double *c, double t,
                   const double *w0, const double *b0, const double *w2, const double *b2,
                   int64_t C);

/* Coefficients of SPEC sections 4 and 5 (dynamic weights) or 6. */
gidd_seq_coef ref_coef_gidd(double t, double p_uniform, int64_t V);
gidd_seq_coef ref_coef_mdlm(double t);

typedef struct ref_loss_row {
    double kl, is, log_ratio, log_px;
} ref_loss_row;

typedef struct ref_loss_shape {
    int64_t V, Vr, mask_id;
} ref_loss_shape;

/* One row. dlogits [Vr] (NULL: none) of g (KL + IS), or g NLL. */
ref_loss_row ref_loss_gidd(double *dlogits, const double *logits, int64_t x, int64_t z,
                           const gidd_seq_coef *coef, double g, ref_loss_shape shape);
ref_loss_row ref_loss_mdlm(double *dlogits, const double *logits, int64_t x, int64_t z, double g,
                           ref_loss_shape shape);

/* One row: -log p(target), softmax over the first V of Vr columns; dlogits [Vr] (NULL: none) of g times it.
 * target < 0: nothing is predicted, all is 0. */
double ref_loss_next(double *dlogits, const double *logits, int64_t target, double g, int64_t V, int64_t Vr);

/* p = softmax(logits / temperature), mask excluded. */
void ref_softmax(double *p, const double *logits, int64_t width, int64_t mask_id,
                 double temperature);

#endif
