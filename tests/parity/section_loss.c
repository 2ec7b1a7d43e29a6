/* SPDX-License-Identifier: Apache-2.0
 *
 * Losses and their gradients from the stored logits, through the kernel slots.
 */
#include "parity/parity.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// One case of /loss on the host and on the device.
typedef struct loss_case {
    const char *name;   // gidd_pu0.1_dynamic, mdlm
    const char *inputs; // pu0.1, mdlm: whose z_t and logits
    gidd_schedule schedule;
    int64_t B, T, rows;
    const int32_t *x, *z, *attention_mask;
    const float *logits;
    gidd_seq_coef *coef;
    gidd_loss_row *terms; // host copy of the result
    gidd_loss_sums sums;
    void *d_x, *d_z, *d_attention_mask, *d_coef, *d_terms, *d_logits, *d_sums;
} loss_case;

static int is_mdlm(const loss_case *c)
{
    return c->schedule.args.process == GIDD_PROCESS_MDLM;
}

// "gidd_pu0.1_clip": noise level and weighting are in the name.
static gidd_status parse_name(parity *p, const char *name, loss_case *c)
{
    static const char *const weightings[] = {"dynamic", "clip", "none"};
    gidd_weighting weighting = GIDD_WEIGHTING_DYNAMIC;
    char level[16];
    char kind[16];
    c->name = name;
    if (strcmp(name, "mdlm") == 0) {
        c->inputs = "mdlm";
        return parity_schedule(p, GIDD_PROCESS_MDLM, 0.0, weighting, &c->schedule);
    }
    if (sscanf(name, "gidd_pu%15[0-9.]_%15s", level, kind) != 2) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: /loss has an unknown case %s", p->path, name);
    }
    for (int i = 0; i < 3; i++) {
        if (strcmp(kind, weightings[i]) == 0) {
            weighting = (gidd_weighting)i;
        }
    }
    c->inputs = parity_path(p, "pu%s", level);
    return parity_schedule(p, GIDD_PROCESS_GIDD, strtod(level, NULL), weighting, &c->schedule);
}

static gidd_status load_case(parity *p, loss_case *c)
{
    int64_t rows = p->config.B * p->config.T;
    int32_t *x, *z, *mask;
    float *t, *logits;
    // The network ran on z_t_pu0.1 under the plain name.
    const char *suffix = strcmp(c->inputs, "pu0.1") == 0 ? "" : parity_path(p, "_%s", c->inputs);
    GIDD_TRY(parity_need_i32(p, "/inputs/input_ids", rows, &x));
    GIDD_TRY(parity_need_i32(p, "/inputs/attention_mask", rows, &mask));
    GIDD_TRY(parity_need_i32(p, parity_path(p, "/inputs/z_t_%s", c->inputs), rows, &z));
    GIDD_TRY(parity_need_f32(p, "/inputs/t", p->config.B, &t));
    GIDD_TRY(parity_need_f32(p, parity_path(p, "/forward/logits%s", suffix), rows * p->config.Vr,
                             &logits));
    c->B = p->config.B;
    c->T = p->config.T;
    c->rows = rows;
    c->x = x;
    c->z = z;
    c->attention_mask = mask;
    c->logits = logits;
    c->coef = parity_alloc(p, (size_t)c->B * sizeof *c->coef);
    c->terms = parity_alloc(p, (size_t)rows * sizeof *c->terms);
    for (int64_t b = 0; b < c->B; b++) {
        gidd_schedule_coef(&c->schedule, t[b], &c->coef[b]);
    }
    size_t id_bytes = (size_t)rows * sizeof *x;
    GIDD_TRY(parity_put(p, x, id_bytes, &c->d_x));
    GIDD_TRY(parity_put(p, z, id_bytes, &c->d_z));
    GIDD_TRY(parity_put(p, mask, id_bytes, &c->d_attention_mask));
    GIDD_TRY(parity_put(p, c->coef, (size_t)c->B * sizeof *c->coef, &c->d_coef));
    GIDD_TRY(parity_put(p, NULL, (size_t)rows * sizeof *c->terms, &c->d_terms));
    c->sums.min_log_px = HUGE_VAL;
    GIDD_TRY(parity_put(p, &c->sums, sizeof c->sums, &c->d_sums));
    return parity_put_e(p, logits, rows * p->config.Vr, &c->d_logits);
}

static gidd_status run_loss(parity *p, loss_case *c, gidd_loss_mode mode)
{
    gidd_device *device;
    GIDD_TRY(parity_device(p, &device));
    gidd_loss_args args = {.logits = c->d_logits,
                           .terms = c->d_terms,
                           .x = c->d_x,
                           .z = c->d_z,
                           .coef = c->d_coef,
                           .rows = c->rows,
                           .T = c->T,
                           .V = p->config.V,
                           .Vr = p->config.Vr,
                           .mask_id = p->config.mask,
                           .scale = 1.0f / (float)c->rows,
                           .mode = mode};
    GIDD_TRY(is_mdlm(c) ? device->kernels->loss_mdlm(device, &args)
                        : device->kernels->loss_gidd(device, &args));
    return parity_get(p, c->terms, c->d_terms, (size_t)c->rows * sizeof *c->terms);
}

static gidd_status run_sums(parity *p, loss_case *c)
{
    gidd_device *device;
    GIDD_TRY(parity_device(p, &device));
    gidd_loss_sums_args args = {.sums = c->d_sums,
                                .terms = c->d_terms,
                                .x = c->d_x,
                                .z = c->d_z,
                                .attention_mask = c->d_attention_mask,
                                .coef = c->d_coef,
                                .B = c->B,
                                .T = c->T,
                                .mask_id = p->config.mask};
    GIDD_TRY(device->kernels->loss_sums(device, &args));
    return parity_get(p, &c->sums, c->d_sums, sizeof c->sums);
}

/* ------------------------------------------------------------------ comparing */

// Which quantity of a position a dataset holds.
typedef enum token_quantity { LOSS, ELBO, KL, IS, LOG_RATIO, W, OMEGA } token_quantity;

static float token_value(const loss_case *c, int64_t position, token_quantity quantity)
{
    const gidd_loss_row *row = &c->terms[position];
    const gidd_seq_coef *coef = &c->coef[position / c->T];
    int kept = c->z[position] == c->x[position];
    int masked = c->z[position] == c->schedule.args.mask_id;
    float w = kept ? coef->w_keep : masked ? coef->w_mask : coef->w_other;
    float omega = kept ? coef->omega_keep : masked ? coef->omega_mask : coef->omega_other;
    switch (quantity) {
    case LOSS:
        return w * (row->kl + row->is);
    case ELBO:
        return omega * (row->kl + row->is);
    case KL:
        return row->kl;
    case IS:
        return row->is;
    case LOG_RATIO:
        return row->log_ratio;
    case W:
        return w;
    case OMEGA:
        return omega;
    }
    return 0.0f;
}

static gidd_status check_tokens(parity *p, const loss_case *c)
{
    static const struct {
        const char *name;
        token_quantity quantity;
    } arrays[] = {{"loss", LOSS},         {"elbo", ELBO},           {"kl", KL},
                  {"is_loss", IS},        {"log_ratio", LOG_RATIO}, {"loss_weights", W},
                  {"elbo_weights", OMEGA}};
    size_t count = is_mdlm(c) ? 2 : sizeof arrays / sizeof *arrays;
    double tolerance = parity_tolerance(p, 1e-5, 5e-2);
    float *got = parity_alloc(p, (size_t)c->rows * sizeof *got);
    for (size_t i = 0; i < count; i++) {
        float *want;
        GIDD_TRY(parity_need_f32(p, parity_path(p, "/loss/%s/%s", c->name, arrays[i].name), c->rows,
                                 &want));
        for (int64_t position = 0; position < c->rows; position++) {
            got[position] = token_value(c, position, arrays[i].quantity);
        }
        parity_check(p, parity_max_rel(got, want, c->rows), tolerance, "%s %s", c->name,
                     arrays[i].name);
    }
    return GIDD_OK;
}

static gidd_status check_scalars(parity *p, const loss_case *c)
{
    const gidd_loss_sums *s = &c->sums;
    double elbo = s->elbo / s->tokens;
    const struct {
        const char *name;
        double got;
    } gidd[] = {{"tokenmean", s->loss / s->positions},
                {"metric_kl_loss", s->w_kl / s->w},
                {"metric_is_loss", s->w_is / s->w},
                {"metric_elbo", elbo}},
      mdlm[] = {
          {"tokenmean", s->loss / s->positions}, {"metric_rec_loss", elbo}, {"metric_elbo", elbo}};
    size_t count = is_mdlm(c) ? sizeof mdlm / sizeof *mdlm : sizeof gidd / sizeof *gidd;
    for (size_t i = 0; i < count; i++) {
        const char *name = is_mdlm(c) ? mdlm[i].name : gidd[i].name;
        double got = is_mdlm(c) ? mdlm[i].got : gidd[i].got, *want;
        GIDD_TRY(parity_need_f64(p, parity_path(p, "/loss/%s/%s", c->name, name), 1, &want));
        parity_check(p, fabs(got - *want) / (1.0 + fabs(*want)), parity_tolerance(p, 1e-5, 1e-2),
                     "%s %s", c->name, name);
    }
    parity_check(p, s->nonfinite, 0.0, "%s positions that are not finite", c->name);
    parity_check(p, fabs(s->positions - (double)c->rows), 0.0, "%s positions", c->name);
    return GIDD_OK;
}

// Functions of the sequence's time alone.
static gidd_status check_times(parity *p, const loss_case *c)
{
    const char *names[] = {is_mdlm(c) ? "sigma" : "alpha_ratio", "dsigma"};
    for (int i = 0; i < (is_mdlm(c) ? 2 : 1); i++) {
        double *want, worst = 0.0;
        GIDD_TRY(parity_need_f64(p, parity_path(p, "/loss/%s/%s", c->name, names[i]), c->B, &want));
        for (int64_t b = 0; b < c->B; b++) {
            double t = (double)c->coef[b].t;
            double got = !is_mdlm(c) ? gidd_schedule_alpha_ratio(&c->schedule, t)
                         : i == 0    ? gidd_mdlm_sigma(t)
                                     : gidd_mdlm_dsigma(t);
            worst = fmax(worst, fabs(got - want[b]) / (1.0 + fabs(want[b])));
        }
        parity_check(p, worst, 1e-5, "%s %s", c->name, names[i]);
    }
    return GIDD_OK;
}

static gidd_status check_gradient(parity *p, loss_case *c)
{
    int64_t count = c->rows * p->config.Vr;
    const char *path = parity_path(p, "/dlogits/%s", c->name);
    float *want, *got = parity_alloc(p, (size_t)count * sizeof *got);
    if (!parity_has(p, path)) {
        return GIDD_OK;
    }
    GIDD_TRY(parity_need_f32(p, path, count, &want));
    GIDD_TRY(run_loss(p, c, GIDD_LOSS_TRAIN));
    GIDD_TRY(parity_get_e(p, got, c->d_logits, count));
    parity_check(p, parity_max_abs(got, want, count), parity_tolerance(p, 5e-8, 1e-3), "%s dlogits",
                 c->name);
    parity_check(p, parity_rel_l2(got, want, count), parity_tolerance(p, 1e-5, 2e-2),
                 "%s dlogits, relative L2", c->name);
    return check_tokens(p, c); // the terms are the same in both modes
}

gidd_status parity_section_loss(parity *p)
{
    const char **names;
    int64_t count;
    GIDD_TRY(parity_members(p, "/loss", &names, &count));
    for (int64_t i = 0; i < count; i++) {
        loss_case c = {.B = 0};
        GIDD_TRY(parse_name(p, names[i], &c));
        GIDD_TRY(load_case(p, &c));
        GIDD_TRY(run_loss(p, &c, GIDD_LOSS_EVALUATE));
        GIDD_TRY(run_sums(p, &c));
        GIDD_TRY(check_tokens(p, &c));
        GIDD_TRY(check_scalars(p, &c));
        GIDD_TRY(check_times(p, &c));
        GIDD_TRY(check_gradient(p, &c));
    }
    return GIDD_OK;
}
