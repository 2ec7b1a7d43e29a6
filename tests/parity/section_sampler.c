/* SPDX-License-Identifier: Apache-2.0
 *
 * Single steps of generation and self-correction from the stored logits, through the kernel slots.
 */
#include "diffusion/correct.h"
#include "diffusion/posterior.h"
#include "parity/parity.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ------------------------------------------------------------------ generation */

typedef struct step_inputs {
    int64_t rows;
    const float *logits;
    const int32_t *z;
    void *d_logits, *d_z;
} step_inputs;

static gidd_status load_inputs(parity *p, step_inputs *in)
{
    parity_shape shape;
    float *logits;
    int32_t *z;
    GIDD_TRY(parity_read_i32(p, "/sampler/z_t", &shape, &z));
    in->rows = shape.count;
    GIDD_TRY(parity_need_f32(p, "/sampler/logits", in->rows * p->config.Vr, &logits));
    in->logits = logits;
    in->z = z;
    GIDD_TRY(parity_put(p, z, (size_t)in->rows * sizeof *z, &in->d_z));
    return parity_put_e(p, logits, in->rows * p->config.Vr, &in->d_logits);
}

static gidd_status run_step(parity *p, const step_inputs *in, gidd_sample_step_args *args,
                            int32_t *z_out)
{
    gidd_device *device;
    void *d_z_out;
    GIDD_TRY(parity_device(p, &device));
    GIDD_TRY(parity_put(p, NULL, (size_t)in->rows * sizeof *z_out, &d_z_out));
    args->z_out = d_z_out;
    args->logits = in->d_logits;
    args->z = in->d_z;
    args->rows = in->rows;
    args->stride = p->config.Vr;
    args->mask_id = p->config.mask;
    args->temperature = 1.0;
    GIDD_TRY(device->kernels->sample_step(device, args));
    return parity_get(p, z_out, d_z_out, (size_t)in->rows * sizeof *z_out);
}

// softmax of a row without the mask, in float64.
static void softmax_row(const float *logits, int64_t width, int32_t mask, double *out)
{
    double largest = -HUGE_VAL, sum = 0.0;
    for (int64_t j = 0; j < width; j++) {
        largest = j == mask ? largest : fmax(largest, (double)logits[j]);
    }
    for (int64_t j = 0; j < width; j++) {
        out[j] = j == mask ? 0.0 : exp((double)logits[j] - largest);
        sum += out[j];
    }
    for (int64_t j = 0; j < width; j++) {
        out[j] /= sum;
    }
}

static double max_difference(const double *got, const float *want, int64_t count)
{
    double worst = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double d = fabs(got[i] - (double)want[i]);
        worst = isnan(d) ? HUGE_VAL : fmax(worst, d);
    }
    return worst;
}

// The host's posterior row (diffusion/posterior.h) against the same numbers.
static void check_host_rows(parity *p, const step_inputs *in, const gidd_schedule *schedule,
                            const gidd_posterior *step, int64_t width, const float *want,
                            const char *name)
{
    double *xhat = parity_alloc(p, (size_t)width * sizeof *xhat);
    double *row = parity_alloc(p, (size_t)width * sizeof *row);
    double worst = 0.0;
    for (int64_t r = 0; r < in->rows; r++) {
        softmax_row(in->logits + r * p->config.Vr, width, p->config.mask, xhat);
        gidd_posterior_row(step, schedule, xhat, width, in->z[r], row);
        worst = fmax(worst, max_difference(row, want + r * width, width));
    }
    parity_check(p, worst, 1e-6, "%s posterior on the host", name);
}

static gidd_status check_step(parity *p, const step_inputs *in, const char *name,
                              const gidd_schedule *schedule)
{
    int gidd = schedule->args.process == GIDD_PROCESS_GIDD;
    int64_t width = gidd ? p->config.V : p->config.Vr;
    const char *group = parity_path(p, "/sampler/%s", name);
    double t, s, min_p, *u;
    float *want;
    int32_t *want_z, *z = parity_alloc(p, (size_t)in->rows * sizeof *z);
    void *d_u, *d_posterior;
    GIDD_TRY(parity_attribute(p, group, "t", &t));
    GIDD_TRY(parity_attribute(p, group, "s", &s));
    GIDD_TRY(parity_attribute(p, group, "min_p", &min_p));
    GIDD_TRY(parity_need_f32(p, parity_path(p, "%s/posterior", group), in->rows * width, &want));
    GIDD_TRY(parity_need_f64(p, parity_path(p, "%s/uniforms", group), in->rows, &u));
    GIDD_TRY(parity_need_i32(p, parity_path(p, "%s/z_s", group), in->rows, &want_z));
    size_t bytes = (size_t)(in->rows * width) * sizeof(double);
    double *posterior = parity_alloc(p, bytes);
    GIDD_TRY(parity_put(p, u, (size_t)in->rows * sizeof *u, &d_u));
    GIDD_TRY(parity_put(p, NULL, bytes, &d_posterior));
    gidd_posterior at = gidd_posterior_at(schedule, t, s);
    gidd_sample_step_args args = {.posterior = d_posterior,
                                  .uniform = d_u,
                                  .width = width,
                                  .kind = gidd ? GIDD_SAMPLE_GIDD : GIDD_SAMPLE_MDLM,
                                  .min_p = min_p,
                                  .alpha_s = at.alpha_s,
                                  .alpha_t = at.alpha_t,
                                  .beta_other_s = at.beta_other_s,
                                  .beta_other_t = at.beta_other_t,
                                  .beta_mask_s = at.beta_mask_s,
                                  .beta_mask_t = at.beta_mask_t,
                                  .move_s = at.move_s,
                                  .move_t = at.move_t};
    GIDD_TRY(run_step(p, in, &args, z));
    GIDD_TRY(parity_get(p, posterior, d_posterior, bytes));
    // In bf16 an entry next to min_p may fall on its other side.
    parity_check(p, max_difference(posterior, want, in->rows * width),
                 parity_tolerance(p, 1e-6, 2e-2 + 5.0 * min_p), "%s posterior", name);
    if (p->precision == GIDD_F32) { // rounded logits move the boundaries: ids cannot be demanded
        parity_check(p, parity_mismatches(z, want_z, in->rows), 0.0, "%s z_s", name);
    }
    if (min_p == 0.0) {
        check_host_rows(p, in, schedule, &at, width, want, name);
    }
    return GIDD_OK;
}

static gidd_status check_argmax(parity *p, const step_inputs *in)
{
    int32_t *want, *z = parity_alloc(p, (size_t)in->rows * sizeof *z);
    gidd_sample_step_args args = {.width = p->config.Vr, .kind = GIDD_SAMPLE_ARGMAX};
    GIDD_TRY(parity_need_i32(p, "/sampler/mdlm_final/z_s", in->rows, &want));
    GIDD_TRY(run_step(p, in, &args, z));
    if (p->precision == GIDD_F32) {
        parity_check(p, parity_mismatches(z, want, in->rows), 0.0, "mdlm_final z_s");
    }
    return GIDD_OK;
}

gidd_status parity_section_sampler(parity *p)
{
    const char **names;
    int64_t count;
    step_inputs in = {.rows = 0};
    GIDD_TRY(load_inputs(p, &in));
    GIDD_TRY(parity_members(p, "/sampler", &names, &count));
    for (int64_t i = 0; i < count; i++) {
        gidd_schedule schedule;
        double p_uniform = 0.0;
        if (strstr(names[i], "_minp") == NULL) {
            continue; // inputs, whole generations, the arg-max step
        }
        int gidd = strncmp(names[i], "gidd_", strlen("gidd_")) == 0;
        if (gidd) {
            GIDD_TRY(parity_attribute(p, parity_path(p, "/sampler/%s", names[i]), "p_uniform",
                                      &p_uniform));
        }
        GIDD_TRY(parity_schedule(p, gidd ? GIDD_PROCESS_GIDD : GIDD_PROCESS_MDLM, p_uniform,
                                 GIDD_WEIGHTING_DYNAMIC, &schedule));
        GIDD_TRY(check_step(p, &in, names[i], &schedule));
    }
    return check_argmax(p, &in);
}

/* ------------------------------------------------------------------ self-correction */

typedef struct correction {
    int64_t B, T, rows;
    const int32_t *z;
    void *d_z, *d_logits;
    int32_t *proposal, *best; // [rows], results of the slot
    double *score;
} correction;

static gidd_status load_correction(parity *p, correction *c)
{
    int32_t *z;
    float *logits;
    int64_t rows = p->config.B * p->config.T;
    GIDD_TRY(parity_need_i32(p, "/self_correction/z_t", rows, &z));
    GIDD_TRY(parity_need_f32(p, "/self_correction/logits", rows * p->config.Vr, &logits));
    *c = (correction){.B = p->config.B, .T = p->config.T, .rows = rows, .z = z};
    c->proposal = parity_alloc(p, (size_t)rows * sizeof *c->proposal);
    c->best = parity_alloc(p, (size_t)rows * sizeof *c->best);
    c->score = parity_alloc(p, (size_t)rows * sizeof *c->score);
    GIDD_TRY(parity_put(p, z, (size_t)rows * sizeof *z, &c->d_z));
    return parity_put_e(p, logits, rows * p->config.Vr, &c->d_logits);
}

static gidd_status run_correction(parity *p, correction *c, const double *u, double temperature)
{
    size_t rows = (size_t)c->rows;
    gidd_device *device;
    void *d_u, *d_proposal, *d_score, *d_best;
    GIDD_TRY(parity_device(p, &device));
    GIDD_TRY(parity_put(p, u, rows * sizeof *u, &d_u));
    GIDD_TRY(parity_put(p, NULL, rows * sizeof *c->proposal, &d_proposal));
    GIDD_TRY(parity_put(p, NULL, rows * sizeof *c->score, &d_score));
    GIDD_TRY(parity_put(p, NULL, rows * sizeof *c->best, &d_best));
    gidd_correct_step_args args = {.proposal = d_proposal,
                                   .score = d_score,
                                   .best = d_best,
                                   .logits = c->d_logits,
                                   .z = c->d_z,
                                   .uniform = d_u,
                                   .rows = c->rows,
                                   .width = p->config.Vr,
                                   .stride = p->config.Vr,
                                   .mask_id = p->config.mask,
                                   .temperature = temperature};
    GIDD_TRY(device->kernels->correct_step(device, &args));
    GIDD_TRY(parity_get(p, c->proposal, d_proposal, rows * sizeof *c->proposal));
    GIDD_TRY(parity_get(p, c->score, d_score, rows * sizeof *c->score));
    return parity_get(p, c->best, d_best, rows * sizeof *c->best);
}

// Which positions change, and how many then hold the most probable token.
static gidd_status check_choice(parity *p, const correction *c, const char *name, int64_t k)
{
    const char *group = parity_path(p, "/self_correction/%s", name);
    int32_t *want_z, *want_chosen, *z = parity_alloc(p, (size_t)c->rows * sizeof *z);
    int32_t *chosen = parity_alloc(p, (size_t)(c->B * k) * sizeof *chosen);
    int64_t right = 0;
    double accuracy;
    GIDD_TRY(parity_need_i32(p, parity_path(p, "%s/z_next", group), c->rows, &want_z));
    GIDD_TRY(
        parity_need_i32(p, parity_path(p, "%s/chosen_positions", group), c->B * k, &want_chosen));
    GIDD_TRY(parity_attribute(p, group, "acc", &accuracy));
    memcpy(z, c->z, (size_t)c->rows * sizeof *z);
    for (int64_t b = 0; b < c->B; b++) {
        int64_t first = b * c->T;
        (void)gidd_correct_select(c->score + first, c->proposal + first, c->T, k, z + first,
                                  chosen + b * k);
    }
    for (int64_t i = 0; i < c->rows; i++) {
        right += z[i] == c->best[i];
    }
    parity_check(p, parity_mismatches(chosen, want_chosen, c->B * k), 0.0, "%s chosen_positions",
                 name);
    parity_check(p, parity_mismatches(z, want_z, c->rows), 0.0, "%s z_next", name);
    parity_check(p, fabs((double)right / (double)c->rows - accuracy), 1e-7, "%s acc", name);
    return GIDD_OK;
}

static gidd_status check_correction(parity *p, correction *c, const char *name)
{
    const char *group = parity_path(p, "/self_correction/%s", name);
    double temperature, k, *u;
    int32_t *want_proposal;
    float *want_score;
    GIDD_TRY(parity_attribute(p, group, "temp", &temperature));
    GIDD_TRY(parity_attribute(p, group, "tokens_per_step", &k));
    GIDD_TRY(parity_need_f64(p, parity_path(p, "%s/uniforms", group), c->rows, &u));
    GIDD_TRY(parity_need_i32(p, parity_path(p, "%s/proposal", group), c->rows, &want_proposal));
    GIDD_TRY(parity_need_f32(p, parity_path(p, "%s/score", group), c->rows, &want_score));
    GIDD_TRY(run_correction(p, c, u, temperature));
    if (p->precision == GIDD_BF16) {
        // A tenth of the temperature turns the rounding of logits into other proposals: nothing to
        // demand but that the scores are probabilities.
        int64_t wrong = 0;
        for (int64_t i = 0; i < c->rows; i++) {
            wrong += !(c->score[i] >= 0.0 && c->score[i] <= 1.0);
        }
        parity_check(p, (double)wrong, 0.0, "%s scores outside [0, 1]", name);
        return GIDD_OK;
    }
    parity_check(p, parity_mismatches(c->proposal, want_proposal, c->rows), 0.0, "%s proposal",
                 name);
    parity_check(p, max_difference(c->score, want_score, c->rows), 1e-6, "%s score", name);
    return check_choice(p, c, name, (int64_t)k);
}

gidd_status parity_section_self_correction(parity *p)
{
    correction c;
    GIDD_TRY(load_correction(p, &c));
    GIDD_TRY(check_correction(p, &c, "k1"));
    return check_correction(p, &c, "k4");
}
