/* SPDX-License-Identifier: Apache-2.0 */
#include "diffusion/schedule.h"

#include <math.h>

static const double mdlm_eps = 1e-4; // SPEC section 6: part of the process, not a setting
static const double log_p_floor = -20.0;

static gidd_status check_args(const gidd_schedule_args *args)
{
    if (!(args->p_uniform >= 0.0 && args->p_uniform < 1.0)) {
        return gidd_fail(GIDD_ERR_CONFIG, "p_uniform %g is not in [0, 1)", args->p_uniform);
    }
    if (!(args->t_eps > 0.0 && args->t_eps < 0.5)) {
        return gidd_fail(GIDD_ERR_CONFIG, "t_eps %g is not in (0, 0.5)", args->t_eps);
    }
    if (!(args->min_weight <= args->max_weight)) {
        return gidd_fail(GIDD_ERR_CONFIG, "loss weight bounds [%g, %g] are empty", args->min_weight,
                         args->max_weight);
    }
    if (args->vocab_size < 2 || args->vocab_size > INT32_MAX) {
        return gidd_fail(GIDD_ERR_CONFIG, "vocabulary size %lld is out of range",
                         (long long)args->vocab_size);
    }
    if (args->mask_id != args->vocab_size - 1) {
        return gidd_fail(GIDD_ERR_CONFIG, "mask id %d is not the last id of %lld", args->mask_id,
                         (long long)args->vocab_size);
    }
    return GIDD_OK;
}

gidd_status gidd_schedule_init(gidd_schedule *schedule, const gidd_schedule_args *args)
{
    GIDD_TRY(check_args(args));
    *schedule = (gidd_schedule){.args = *args};
    if (args->process == GIDD_PROCESS_GIDD) {
        double p = fmax(exp(log_p_floor), args->p_uniform);
        double log_B = fmax(log(2.0) + log(p) - log1p(-p), log_p_floor);
        // The reference keeps log B, and so B, in float32: 5e-7 of B at p_u = 0 (SPEC section 4).
        schedule->log_B = (double)(float)log_B;
        schedule->B = (double)(float)exp(schedule->log_B);
    }
    return GIDD_OK;
}

// c(t) of SPEC section 4.
static double uniform_part(const gidd_schedule *schedule, double t)
{
    return sqrt(t) * sqrt(1.0 - t) * schedule->B;
}

static double other_ids(const gidd_schedule *schedule)
{
    return (double)(schedule->args.vocab_size - 1); // N
}

gidd_marginal gidd_schedule_marginal(const gidd_schedule *schedule, double t)
{
    if (schedule->args.process == GIDD_PROCESS_NONE) {
        return (gidd_marginal){.alpha = 1.0};
    }
    if (schedule->args.process == GIDD_PROCESS_MDLM) {
        double move = gidd_mdlm_move(t);
        return (gidd_marginal){.alpha = 1.0 - move, .beta_other = 0.0, .beta_mask = move};
    }
    double c = uniform_part(schedule, t);
    double total = 1.0 + c;
    return (gidd_marginal){.alpha = (1.0 - t) / total,
                           .beta_other = c / (other_ids(schedule) * total),
                           .beta_mask = t / total};
}

typedef struct weights {
    double keep, mask, other;
} weights;

// ELBO weights omega (SPEC section 5), with c + (1-t) c' = c / (2t).
static weights elbo_weights(const gidd_schedule *schedule, double t)
{
    double N = other_ids(schedule);
    double c = uniform_part(schedule, t);
    double u = 1.0 - t;
    return (weights){.keep = c / (2.0 * t) / N / (u * (u + c / N)),
                     .mask = 1.0 / (t * u),
                     .other = 1.0 / (2.0 * t * u)};
}

static double clip(double value, double low, double high)
{
    return fmin(fmax(value, low), high);
}

// Loss weights w (SPEC section 5, `loss_weighting`).
static weights loss_weights(const gidd_schedule *schedule, double t, weights omega)
{
    const gidd_schedule_args *args = &schedule->args;
    weights w = omega;
    if (args->weighting == GIDD_WEIGHTING_NONE) {
        return w;
    }
    if (args->weighting == GIDD_WEIGHTING_DYNAMIC) {
        double s = 1.0 / (1.0 + exp(t));                                // sigmoid(-t)
        w.keep = schedule->B / (double)args->vocab_size * exp(0.5 * s); // V here, not N
        w.mask = 2.0;
        w.other = 1.0;
    }
    w.keep = clip(w.keep, args->min_weight, args->max_weight);
    w.mask = clip(w.mask, args->min_weight, args->max_weight);
    w.other = clip(w.other, args->min_weight, args->max_weight);
    return w;
}

void gidd_schedule_coef(const gidd_schedule *schedule, float t, gidd_seq_coef *coef)
{
    double time = (double)t;
    gidd_marginal at = gidd_schedule_marginal(schedule, time);
    weights omega, w;
    if (schedule->args.process == GIDD_PROCESS_NONE) {
        omega = (weights){.keep = 1.0};
        w = omega;
    } else if (schedule->args.process == GIDD_PROCESS_MDLM) {
        omega = (weights){.mask = 1.0 / clip(time, mdlm_eps, 1.0)};
        w = omega;
    } else {
        omega = elbo_weights(schedule, time);
        w = loss_weights(schedule, time, omega);
    }
    *coef = (gidd_seq_coef){
        .t = t,
        .alpha = (float)at.alpha,
        .beta_other = (float)at.beta_other,
        .beta_mask = (float)at.beta_mask,
        .w_keep = (float)w.keep,
        .w_mask = (float)w.mask,
        .w_other = (float)w.other,
        .omega_keep = (float)omega.keep,
        .omega_mask = (float)omega.mask,
        .omega_other = (float)omega.other,
        .row_weight = 1.0f,
    };
}

double gidd_schedule_alpha_ratio(const gidd_schedule *schedule, double t)
{
    double c = uniform_part(schedule, t);
    double dc = 0.5 * (1.0 - 2.0 * t) / (t * (1.0 - t)) * c;
    return -1.0 / (1.0 - t) - dc / (1.0 + c);
}

double gidd_mdlm_move(double t)
{
    return (1.0 - mdlm_eps) * clip(t, mdlm_eps, 1.0);
}

double gidd_mdlm_sigma(double t)
{
    return -log1p(-gidd_mdlm_move(t));
}

double gidd_mdlm_dsigma(double t)
{
    return (1.0 - mdlm_eps) / (1.0 - gidd_mdlm_move(t));
}

double gidd_schedule_grid(const gidd_schedule *schedule, int64_t n, int64_t i)
{
    double e = schedule->args.t_eps;
    return (1.0 - 2.0 * e) * (double)i / (double)n + e;
}
