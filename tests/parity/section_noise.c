/* SPDX-License-Identifier: Apache-2.0
 *
 * Noise schedules, times, corruption and learning rates: host arithmetic only.
 */
#include "base/lr.h"
#include "diffusion/corrupt.h"
#include "diffusion/posterior.h"
#include "diffusion/time.h"
#include "parity/parity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Values of the files that come from float32 arithmetic: a few roundings of 6e-8.
static const double float_tolerance = 1e-6;

static const char *const noise_levels[] = {"pu0.0", "pu0.1", "pu0.2"};

enum { NOISE_LEVELS = sizeof noise_levels / sizeof *noise_levels };

// Largest |got - want| / |want|: the quantities span 15 decimal orders.
static double max_relative(const double *got, const double *want, int64_t count)
{
    double worst = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double d = fabs(got[i] - want[i]) / fabs(want[i]);
        worst = got[i] == want[i] ? worst : fmax(worst, isnan(d) ? HUGE_VAL : d);
    }
    return worst;
}

/* ------------------------------------------------------------------ /noise, /noise_gpt2 */

// What one schedule gives at the group's times.
typedef struct curves {
    double *alpha, *beta_mask, *beta_other, *alpha_ratio;
    double *w_keep, *w_mask, *w_other, *omega_keep, *omega_mask, *omega_other;
} curves;

static curves compute_curves(parity *p, const gidd_schedule *schedule, const float *t,
                             int64_t count)
{
    curves c;
    double **all[] = {&c.alpha,  &c.beta_mask, &c.beta_other, &c.alpha_ratio, &c.w_keep,
                      &c.w_mask, &c.w_other,   &c.omega_keep, &c.omega_mask,  &c.omega_other};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        *all[i] = parity_alloc(p, (size_t)count * sizeof **all[i]);
    }
    for (int64_t i = 0; i < count; i++) {
        gidd_marginal at = gidd_schedule_marginal(schedule, (double)t[i]);
        gidd_seq_coef coef;
        gidd_schedule_coef(schedule, t[i], &coef);
        c.alpha[i] = at.alpha;
        c.beta_mask[i] = at.beta_mask;
        c.beta_other[i] = at.beta_other;
        c.alpha_ratio[i] = gidd_schedule_alpha_ratio(schedule, (double)t[i]);
        c.w_keep[i] = (double)coef.w_keep;
        c.w_mask[i] = (double)coef.w_mask;
        c.w_other[i] = (double)coef.w_other;
        c.omega_keep[i] = (double)coef.omega_keep;
        c.omega_mask[i] = (double)coef.omega_mask;
        c.omega_other[i] = (double)coef.omega_other;
    }
    return c;
}

static double max_absolute(const double *got, const double *want, int64_t count)
{
    double worst = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double d = fabs(got[i] - want[i]);
        worst = isnan(d) ? HUGE_VAL : fmax(worst, d);
    }
    return worst;
}

static gidd_status compare(parity *p, const char *path, const double *got, int64_t count,
                           double tolerance)
{
    double *want;
    GIDD_TRY(parity_need_f64(p, path, count, &want));
    parity_check(p, max_relative(got, want, count), tolerance, "%s", path + 1);
    return GIDD_OK;
}

static gidd_status check_marginals(parity *p, const char *group, const curves *c, int64_t count)
{
    const struct {
        const char *name;
        const double *got;
        double tolerance;
    } quantities[] = {
        {"alpha", c->alpha, float_tolerance},
        {"beta_pi_mask", c->beta_mask, float_tolerance},
        {"beta_pi_other", c->beta_other, float_tolerance},
        {"alpha_ratio", c->alpha_ratio, float_tolerance},
        {"weight_on_x", c->omega_keep, float_tolerance},
        {"weight_on_m", c->omega_mask, float_tolerance},
        {"weight_on_u", c->omega_other, float_tolerance},
        // float64 throughout, except that our log B is float32's: relative 5e-7 of beta_other
        {"alpha_f64", c->alpha, 1e-7},
        {"beta_pi_mask_f64", c->beta_mask, 1e-7},
        {"beta_pi_other_f64", c->beta_other, 1e-6},
    };
    for (size_t i = 0; i < sizeof quantities / sizeof *quantities; i++) {
        GIDD_TRY(compare(p, parity_path(p, "%s/%s", group, quantities[i].name), quantities[i].got,
                         count, quantities[i].tolerance));
    }
    return GIDD_OK;
}

static gidd_status check_weights(parity *p, const char *group, const char *weighting,
                                 const curves *c, int64_t count)
{
    const double *got[] = {c->w_keep, c->w_other, c->w_mask};
    const char suffix[] = "xum";
    for (int i = 0; i < 3; i++) {
        GIDD_TRY(compare(p, parity_path(p, "%s/loss_weight_%s_%c", group, weighting, suffix[i]),
                         got[i], count, float_tolerance));
    }
    return GIDD_OK;
}

static gidd_status check_level(parity *p, const char *group, gidd_schedule_args args,
                               const float *t, int64_t count)
{
    static const struct {
        const char *name;
        gidd_weighting weighting;
    } weightings[] = {{"dynamic", GIDD_WEIGHTING_DYNAMIC},
                      {"clip", GIDD_WEIGHTING_CLIP},
                      {"none", GIDD_WEIGHTING_NONE}};
    double log_B, B;
    GIDD_TRY(parity_attribute(p, group, "p_uniform", &args.p_uniform));
    GIDD_TRY(parity_attribute(p, group, "log_B_f32", &log_B));
    GIDD_TRY(parity_attribute(p, group, "B_f32", &B));
    for (int i = 0; i < 3; i++) {
        gidd_schedule schedule;
        args.weighting = weightings[i].weighting;
        GIDD_TRY(gidd_schedule_init(&schedule, &args));
        curves c = compute_curves(p, &schedule, t, count);
        GIDD_TRY(check_weights(p, group, weightings[i].name, &c, count));
        if (i == 0) {
            parity_check(p, fabs(schedule.log_B - log_B), 0.0, "%s log_B_f32", group + 1);
            parity_check(p, fabs(schedule.B / B - 1.0), 1.2e-7, "%s B_f32", group + 1);
            GIDD_TRY(check_marginals(p, group, &c, count));
        }
    }
    return GIDD_OK;
}

static gidd_status check_mdlm(parity *p, const char *group, gidd_schedule_args args, const float *t,
                              int64_t count)
{
    gidd_schedule schedule;
    double *move = parity_alloc(p, (size_t)count * sizeof *move);
    double *sigma = parity_alloc(p, (size_t)count * sizeof *sigma);
    double *dsigma = parity_alloc(p, (size_t)count * sizeof *dsigma);
    args.process = GIDD_PROCESS_MDLM;
    GIDD_TRY(gidd_schedule_init(&schedule, &args));
    curves c = compute_curves(p, &schedule, t, count);
    for (int64_t i = 0; i < count; i++) {
        move[i] = gidd_mdlm_move((double)t[i]);
        sigma[i] = gidd_mdlm_sigma((double)t[i]);
        dsigma[i] = gidd_mdlm_dsigma((double)t[i]);
    }
    // The files' float32 1 - exp(-sigma) has few digits near t = 0, and 1 - M(t) few near t = 1.
    double *want_move;
    GIDD_TRY(parity_need_f64(p, parity_path(p, "%s/move_chance", group), count, &want_move));
    parity_check(p, max_absolute(move, want_move, count), 1.2e-7, "%s/move_chance", group + 1);
    GIDD_TRY(compare(p, parity_path(p, "%s/sigma", group), sigma, count, 5e-5));
    GIDD_TRY(compare(p, parity_path(p, "%s/dsigma", group), dsigma, count, 5e-4));
    return compare(p, parity_path(p, "%s/weight", group), c.w_mask, count, float_tolerance);
}

static gidd_status check_group(parity *p, const char *group)
{
    double V;
    parity_shape shape;
    float *t;
    GIDD_TRY(parity_attribute(p, group, "vocab_size", &V));
    GIDD_TRY(parity_read_f32(p, parity_path(p, "%s/t", group), &shape, &t));
    gidd_schedule_args args = {.t_eps = p->config.t_eps,
                               .min_weight = p->config.min_weight,
                               .max_weight = p->config.max_weight,
                               .vocab_size = (int64_t)V,
                               .mask_id = (int32_t)V - 1};
    for (int i = 0; i < NOISE_LEVELS; i++) {
        GIDD_TRY(
            check_level(p, parity_path(p, "%s/%s", group, noise_levels[i]), args, t, shape.count));
    }
    return check_mdlm(p, parity_path(p, "%s/mdlm", group), args, t, shape.count);
}

gidd_status parity_section_noise(parity *p)
{
    GIDD_TRY(check_group(p, "/noise"));
    return check_group(p, "/noise_gpt2");
}

/* ------------------------------------------------------------------ /sample_t */

// The reference's times: row i is point i of its own grid, in float32.
static double time_error(const parity *p, const float *want, int64_t count, double r)
{
    double worst = 0.0;
    for (int64_t i = 0; i < count; i++) {
        float t = gidd_time_on_grid(i, count, r, p->config.t_eps);
        worst = fmax(worst, fabs((double)t - (double)want[i]));
    }
    return worst;
}

gidd_status parity_section_sample_t(parity *p)
{
    const char **names;
    int64_t count;
    GIDD_TRY(parity_members(p, "/sample_t", &names, &count));
    for (int64_t i = 0; i < count; i++) {
        parity_shape shape;
        float *t;
        double *r;
        GIDD_TRY(parity_read_f32(p, parity_path(p, "/sample_t/%s/t", names[i]), &shape, &t));
        GIDD_TRY(parity_need_f64(p, parity_path(p, "/sample_t/%s/uniform", names[i]), 1, &r));
        parity_check(p, time_error(p, t, shape.count, *r), 2e-7, "%s", names[i]);
    }
    return GIDD_OK;
}

/* ------------------------------------------------------------------ /inputs */

static gidd_status check_corruption(parity *p, const char *name, const gidd_schedule *schedule,
                                    const int32_t *x, const float *t)
{
    int64_t B = p->config.B, T = p->config.T;
    int32_t *want, *z = parity_alloc(p, (size_t)(B * T) * sizeof *z);
    double *u;
    GIDD_TRY(parity_need_i32(p, parity_path(p, "/inputs/z_t_%s", name), B * T, &want));
    GIDD_TRY(parity_need_f64(p, parity_path(p, "/inputs/uniforms_%s", name), B * T, &u));
    for (int64_t b = 0; b < B; b++) {
        gidd_corruption corruption;
        gidd_corruption_init(&corruption, schedule, (double)t[b]);
        gidd_corrupt(&corruption, x + b * T, u + b * T, T, z + b * T);
    }
    parity_check(p, parity_mismatches(z, want, B * T), 0.0, "z_t_%s (ids that differ)", name);
    return GIDD_OK;
}

gidd_status parity_section_inputs(parity *p)
{
    int64_t B = p->config.B, T = p->config.T;
    gidd_schedule schedule;
    int32_t *x;
    float *t;
    double *r;
    GIDD_TRY(parity_need_i32(p, "/inputs/input_ids", B * T, &x));
    GIDD_TRY(parity_need_f32(p, "/inputs/t", B, &t));
    GIDD_TRY(parity_need_f64(p, "/inputs/t_uniform", 1, &r));
    parity_check(p, time_error(p, t, B, *r), 2e-7, "t");
    for (int i = 0; i < NOISE_LEVELS; i++) {
        double p_uniform = strtod(noise_levels[i] + strlen("pu"), NULL);
        GIDD_TRY(
            parity_schedule(p, GIDD_PROCESS_GIDD, p_uniform, GIDD_WEIGHTING_DYNAMIC, &schedule));
        GIDD_TRY(check_corruption(p, noise_levels[i], &schedule, x, t));
    }
    GIDD_TRY(parity_schedule(p, GIDD_PROCESS_MDLM, 0.0, GIDD_WEIGHTING_DYNAMIC, &schedule));
    return check_corruption(p, "mdlm", &schedule, x, t);
}

/* ------------------------------------------------------------------ /categorical */

gidd_status parity_section_categorical(parity *p)
{
    parity_shape shape, draws;
    double *probabilities, *u;
    int32_t *want;
    GIDD_TRY(parity_read_f64(p, "/categorical/probs", &shape, &probabilities));
    GIDD_TRY(parity_read_f64(p, "/categorical/uniforms", &draws, &u));
    GIDD_ASSERT(shape.rank == 2);
    int64_t rows = shape.dims[0], width = shape.dims[1];
    GIDD_TRY(parity_need_i32(p, "/categorical/out", rows * draws.count, &want));
    for (int64_t r = 0; r < rows; r++) {
        int64_t wrong = 0;
        for (int64_t i = 0; i < draws.count; i++) {
            wrong += gidd_categorical_draw(probabilities + r * width, width, u[i]) !=
                     want[r * draws.count + i];
        }
        parity_check(p, (double)wrong, 0.0, "row %lld (ids that differ)", (long long)r);
    }
    return GIDD_OK;
}

/* ------------------------------------------------------------------ /lr */

gidd_status parity_section_lr(parity *p)
{
    static const struct {
        const char *name;
        gidd_lr_kind kind;
    } kinds[] = {
        {"cosine", GIDD_LR_COSINE}, {"linear", GIDD_LR_LINEAR}, {"constant", GIDD_LR_CONSTANT}};
    double peak, warmup, total;
    parity_shape shape;
    int64_t *steps;
    GIDD_TRY(parity_attribute(p, "/lr", "lr", &peak));
    GIDD_TRY(parity_attribute(p, "/lr", "warmup_steps", &warmup));
    GIDD_TRY(parity_attribute(p, "/lr", "num_train_steps", &total));
    GIDD_TRY(parity_read_i64(p, "/lr/steps", &shape, &steps));
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        gidd_lr_schedule schedule = {kinds[k].kind, peak, (int64_t)warmup, (int64_t)total};
        double *want, worst = 0.0;
        GIDD_TRY(parity_need_f64(p, parity_path(p, "/lr/%s", kinds[k].name), shape.count, &want));
        for (int64_t i = 0; i < shape.count; i++) {
            worst = fmax(worst, fabs(gidd_lr_at(&schedule, steps[i]) - want[i]) / peak);
        }
        parity_check(p, worst, 1e-15, "%s / peak", kinds[k].name);
    }
    return GIDD_OK;
}
