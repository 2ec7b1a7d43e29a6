/* SPDX-License-Identifier: Apache-2.0 */
#include "diffusion/posterior.h"

gidd_posterior gidd_posterior_at(const gidd_schedule *schedule, double t, double s)
{
    if (schedule->args.process == GIDD_PROCESS_MDLM) {
        return (gidd_posterior){
            .t = t, .s = s, .move_s = gidd_mdlm_move(s), .move_t = gidd_mdlm_move(t)};
    }
    gidd_marginal at_s = gidd_schedule_marginal(schedule, s);
    gidd_marginal at_t = gidd_schedule_marginal(schedule, t);
    return (gidd_posterior){
        .t = t,
        .s = s,
        .alpha_s = at_s.alpha,
        .alpha_t = at_t.alpha,
        .beta_other_s = at_s.beta_other,
        .beta_other_t = at_t.beta_other,
        .beta_mask_s = at_s.beta_mask,
        .beta_mask_t = at_t.beta_mask,
    };
}

gidd_posterior gidd_posterior_step(const gidd_schedule *schedule, int64_t n, int64_t i)
{
    double t = gidd_schedule_grid(schedule, n, i);
    double s = gidd_schedule_grid(schedule, n, i > 0 ? i - 1 : 0);
    return gidd_posterior_at(schedule, t, s);
}

static void mdlm_row(const gidd_posterior *p, int32_t mask, const double *xhat, int64_t width,
                     double *out)
{
    double unmask = (p->move_t - p->move_s) / p->move_t;
    for (int64_t j = 0; j < width; j++) {
        out[j] = xhat[j] * unmask;
    }
    out[mask] = p->move_s / p->move_t;
}

void gidd_posterior_row(const gidd_posterior *posterior, const gidd_schedule *schedule,
                        const double *xhat, int64_t width, int32_t z, double *out)
{
    const gidd_posterior *p = posterior;
    int32_t mask = schedule->args.mask_id;
    if (schedule->args.process == GIDD_PROCESS_MDLM) {
        mdlm_row(p, mask, xhat, width, out);
        return;
    }
    double alpha_ts = p->alpha_t / p->alpha_s;
    double beta_s_z = z == mask ? p->beta_mask_s : p->beta_other_s;
    double beta_t_z = z == mask ? p->beta_mask_t : p->beta_other_t;
    double beta_ts_z = beta_t_z - alpha_ts * beta_s_z;
    double q_t_z = p->alpha_t * xhat[z] + beta_t_z;
    for (int64_t j = 0; j < width; j++) {
        double beta_s = j == mask ? p->beta_mask_s : p->beta_other_s;
        double q_s = p->alpha_s * xhat[j] + beta_s;
        out[j] = ((j == z ? alpha_ts : 0.0) + beta_ts_z) * q_s / q_t_z;
    }
}

int64_t gidd_categorical_draw(const double *p, int64_t count, double u)
{
    double sum = 0.0;
    for (int64_t j = 0; j < count - 1; j++) {
        sum += p[j];
        if (sum > u) {
            return j;
        }
    }
    return count - 1;
}
