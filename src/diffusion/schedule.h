/* SPDX-License-Identifier: Apache-2.0
 *
 * Noise schedules: how much of a token is left at time t, and what a position is worth in the loss.
 *
 * GIDD (SPEC sections 4, 5), hybrid noise of masks and uniform tokens, N = V - 1:
 *     c(t) = sqrt(t) sqrt(1-t) B        alpha(t) = (1-t) / (1+c)
 *     beta_mask(t) = t / (1+c)          beta_other(t) = c / (N (1+c))      alpha + beta_mask + N
 * beta_other = 1 P(z = x) = alpha + beta_other,    P(z = mask) = beta_mask,           P(z = any
 * other id) = beta_other MDLM (section 6), masks only, eps = 1e-4: alpha(t) = 1 - M(t),
 * beta_mask(t) = M(t) = (1-eps) clip(t, eps, 1),  beta_other = 0
 *
 * All arithmetic is float64; what the kernels get (gidd_seq_coef) is rounded to float32 once.
 */
#ifndef GIDD_DIFFUSION_SCHEDULE_H
#define GIDD_DIFFUSION_SCHEDULE_H

#include "base/status.h"
#include "diffusion/batch.h"

#include <stdint.h>

typedef enum gidd_process {
    GIDD_PROCESS_GIDD = 0,
    GIDD_PROCESS_MDLM,
    GIDD_PROCESS_NONE, /* no noise, z = x, weight 1: autoregressive models */
} gidd_process;

/* What becomes of the ELBO weights omega (SPEC section 5). MDLM ignores it: its weight is 1/t. */
typedef enum gidd_weighting {
    GIDD_WEIGHTING_DYNAMIC = 0, /* 2 masked, 1 other, (B/V) exp(sigmoid(-t)/2) kept; clipped */
    GIDD_WEIGHTING_CLIP,        /* omega clipped to [min_weight, max_weight] */
    GIDD_WEIGHTING_NONE,        /* omega */
} gidd_weighting;

typedef struct gidd_schedule_args {
    gidd_process process;
    gidd_weighting weighting;
    double p_uniform;  /* share of uniform noise at t = 1/2, in [0, 1); 0 acts as exp(-20) */
    double t_eps;      /* times lie in [t_eps, 1 - t_eps]; in (0, 1/2) */
    double min_weight; /* bounds of the loss weights, min <= max */
    double max_weight;
    int64_t vocab_size; /* V >= 2, with the mask */
    int32_t mask_id;    /* must be V - 1 */
} gidd_schedule_args;

/* Plain data, immutable after init: copy and share it freely between threads. */
typedef struct gidd_schedule {
    gidd_schedule_args args;
    double log_B; /* ln(2p/(1-p)), rounded to float32 as the reference stores it */
    double B;     /* exp(log_B), rounded to float32; 0 for MDLM */
} gidd_schedule;

/* The marginal q(z_t | x), at one time. */
typedef struct gidd_marginal {
    double alpha;
    double beta_other; /* one id below V, the mask excepted */
    double beta_mask;
} gidd_marginal;

/* GIDD_ERR_CONFIG names the argument that is out of its range. Local. */
gidd_status gidd_schedule_init(gidd_schedule *schedule, const gidd_schedule_args *args);

/* The marginal at time t in [0, 1]. Local. */
gidd_marginal gidd_schedule_marginal(const gidd_schedule *schedule, double t);

/* Everything the kernels need of a sequence at time t in (0, 1): marginal, loss weights w, ELBO
 * weights omega; row_weight is 1. MDLM: w_mask = omega_mask = 1/clip(t, eps, 1), the others 0. No noise: w_keep =
 * omega_keep = 1.
 * Local. */
void gidd_schedule_coef(const gidd_schedule *schedule, float t, gidd_seq_coef *coef);

/* d/dt log alpha(t) of GIDD. The loss does not use it; kept for comparison with the reference.
 * Local. */
double gidd_schedule_alpha_ratio(const gidd_schedule *schedule, double t);

/* MDLM's functions of time (SPEC section 6): probability of being masked M(t), sigma = -log(1 - M),
 * dsigma/dt. Local. */
double gidd_mdlm_move(double t);
double gidd_mdlm_sigma(double t);
double gidd_mdlm_dsigma(double t);

/* tau_i = (1 - 2 t_eps) i/n + t_eps, 0 <= i <= n: generation steps from tau_i to tau_max(0,i-1) for
 * i = n-1 .. 0 (SPEC section 9: tau_n is never visited). Local. */
double gidd_schedule_grid(const gidd_schedule *schedule, int64_t n, int64_t i);

#endif
