/* SPDX-License-Identifier: Apache-2.0
 *
 * Twenty training steps with given batches; whole loops of generation with given uniforms.
 */
#include "diffusion/posterior.h"
#include "model/sampler.h"
#include "parity/network.h"
#include "worker/optimizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- train ----------------------------------------------------------------------------------- */

typedef struct training {
    int64_t steps;
    int32_t *x, *z, *mask; /* [steps][B][T] */
    float *t;              /* [steps][B]    */
    double *lr;            /* [steps]       */
    double *loss, *norm, *kl, *is, *elbo;
    gidd_schedule schedule;
    gidd_optimizer *optimizer;
} training;

static gidd_status read_training(parity *p, training *run)
{
    const int64_t B = p->config.B, T = p->config.T;
    double p_uniform = 0.0;
    parity_shape shape;
    GIDD_TRY(parity_read_f64(p, "/train/lr", &shape, &run->lr));
    const int64_t n = run->steps = shape.count;
    GIDD_TRY(parity_need_i32(p, "/train/input_ids", n * B * T, &run->x));
    GIDD_TRY(parity_need_i32(p, "/train/attention_mask", n * B * T, &run->mask));
    GIDD_TRY(parity_need_i32(p, "/train/z_t", n * B * T, &run->z));
    GIDD_TRY(parity_need_f32(p, "/train/t", n * B, &run->t));
    GIDD_TRY(parity_need_f64(p, "/train/loss", n, &run->loss));
    GIDD_TRY(parity_need_f64(p, "/train/grad_norm", n, &run->norm));
    GIDD_TRY(parity_need_f64(p, "/train/kl_loss", n, &run->kl));
    GIDD_TRY(parity_need_f64(p, "/train/is_loss", n, &run->is));
    GIDD_TRY(parity_need_f64(p, "/train/elbo", n, &run->elbo));
    GIDD_TRY(parity_attribute(p, "/train", "p_uniform", &p_uniform));
    return parity_schedule(p, GIDD_PROCESS_GIDD, p_uniform, GIDD_WEIGHTING_DYNAMIC, &run->schedule);
}

static gidd_status open_optimizer(parity *p, const network *net, training *run)
{
    gidd_optimizer_args args = {.device = net->model->device, .params = &net->params};
    GIDD_TRY(parity_attribute(p, "/train", "beta1", &args.beta1));
    GIDD_TRY(parity_attribute(p, "/train", "beta2", &args.beta2));
    GIDD_TRY(parity_attribute(p, "/train", "eps", &args.epsilon));
    GIDD_TRY(parity_attribute(p, "/train", "weight_decay", &args.weight_decay));
    GIDD_TRY(parity_attribute(p, "/train", "grad_clip_norm", &args.clip));
    return gidd_optimizer_create(&args, &run->optimizer);
}

static gidd_status train_step(parity *p, network *net, training *run, int64_t k)
{
    const int64_t B = p->config.B, rows = B * p->config.T;
    const double tolerance = parity_tolerance(p, 1e-4, BF16_MEAN_LOSS);
    gidd_loss_sums sums;
    double norm = 0.0;
    int skipped = 0;
    GIDD_TRY(gidd_model_zero_sums(net->model));
    GIDD_TRY(network_forward(net, &(network_inputs){.x = run->x + k * rows,
                                                    .z = run->z + k * rows,
                                                    .mask = run->mask + k * rows,
                                                    .t = run->t + k * B,
                                                    .schedule = &run->schedule}));
    GIDD_TRY(gidd_model_head(
        net->model, &(gidd_head_args){.mode = GIDD_LOSS_TRAIN, .scale = 1.0f / (float)rows}));
    GIDD_TRY(gidd_model_backward(net->model, &(gidd_backward_args){0}));
    GIDD_TRY(gidd_optimizer_step(run->optimizer, net->model, k, run->lr[k]));
    GIDD_TRY(gidd_optimizer_read(run->optimizer, &norm, &skipped));
    GIDD_TRY(gidd_model_read_sums(net->model, &sums));
    const int step = (int)k;
    parity_check(p, fabs(sums.loss / sums.positions - run->loss[k]), tolerance, "loss %d", step);
    parity_check(p, fabs(norm - run->norm[k]), tolerance, "grad_norm %d", step);
    parity_check(p, fabs(sums.w_kl / sums.w - run->kl[k]), tolerance, "kl_loss %d", step);
    parity_check(p, fabs(sums.w_is / sums.w - run->is[k]), tolerance, "is_loss %d", step);
    parity_check(p, fabs(sums.elbo / sums.tokens - run->elbo[k]) / fmax(1.0, run->elbo[k]),
                 tolerance, "elbo %d", step);
    parity_check(p, skipped, 0.0, "skipped %d", step);
    return GIDD_OK;
}

/* The file may hold a prefix of the tensor; the norm and the sum in its attributes are of the
 * whole. */
static gidd_status check_final(parity *p, const gidd_tensor *tensor, const float *got)
{
    const char *path = parity_path(p, "/train/final_params/%s", tensor->name);
    parity_shape shape;
    float *want = NULL;
    double full_norm = 0.0, full_sum = 0.0, square = 0.0, norm = 0.0, sum = 0.0;
    GIDD_TRY(parity_read_f32(p, path, &shape, &want));
    GIDD_TRY(parity_attribute(p, path, "full_norm", &full_norm));
    GIDD_TRY(parity_attribute(p, path, "full_sum", &full_sum));
    if (shape.count > tensor->count) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s is larger than the parameter", path);
    }
    for (int64_t i = 0; i < shape.count; i++) {
        const double difference = (double)got[i] - (double)want[i];
        square += difference * difference;
    }
    for (int64_t i = 0; i < tensor->count; i++) {
        norm += (double)got[i] * (double)got[i];
        sum += (double)got[i];
    }
    const double n = (double)tensor->count, rms = parity_tolerance(p, 1e-6, BF16_PARAMETERS_RMS);
    parity_check(p, parity_max_abs(got, want, shape.count),
                 parity_tolerance(p, 5e-5, BF16_PARAMETERS), "%s", path);
    parity_check(p, sqrt(square / (double)shape.count), rms, "%s (rms)", path);
    parity_check(p, fabs(sqrt(norm) - full_norm) / sqrt(n), rms, "%s (norm)", path);
    parity_check(p, fabs(sum - full_sum) / n, rms, "%s (mean)", path);
    return GIDD_OK;
}

static gidd_status train(parity *p, network *net, training *run)
{
    GIDD_TRY(network_open(p, net, GIDD_MODEL_TRAIN, p->config.B, 41)); // gradients over odd chunks
    GIDD_TRY(network_read_params(p, net));
    GIDD_TRY(read_training(p, run));
    GIDD_TRY(open_optimizer(p, net, run));
    for (int64_t k = 0; k < run->steps; k++) {
        GIDD_TRY(train_step(p, net, run, k));
    }
    const size_t bytes = (size_t)net->params.memory_count * sizeof(float);
    float *values = parity_alloc(p, bytes);
    GIDD_TRY(parity_get(p, values, net->model->master, bytes));
    for (int64_t i = 0; i < net->params.tensor_count; i++) {
        const gidd_tensor *tensor = &net->params.tensors[i];
        GIDD_TRY(check_final(p, tensor, values + tensor->at));
    }
    return GIDD_OK;
}

gidd_status parity_section_train(parity *p)
{
    network net = {0};
    training run = {0};
    gidd_status status = train(p, &net, &run);
    gidd_optimizer_destroy(run.optimizer);
    network_close(&net);
    return status;
}

/* ---- generate -------------------------------------------------------------------------------- */

typedef struct generation {
    int64_t steps, B, rows;  /* rows = B*T                                          */
    int32_t *before, *after; /* [steps][rows]                                       */
    int32_t *final;          /* [rows]                                              */
    double *uniforms;        /* [steps or steps - 1][rows], then zeros              */
    double *t, *s;           /* [steps]                                             */
} generation;

static gidd_status read_generation(parity *p, const char *group, generation *run)
{
    parity_shape shape, drawn;
    double *uniforms = NULL;
    GIDD_TRY(parity_read_i32(p, parity_path(p, "%s/z_before", group), &shape, &run->before));
    run->steps = shape.dims[0];
    run->B = shape.dims[1];
    run->rows = shape.dims[1] * shape.dims[2];
    if (shape.rank != 3 || shape.dims[2] != p->config.T) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s/z_before has a strange shape", group);
    }
    GIDD_TRY(parity_need_i32(p, parity_path(p, "%s/z_after", group), shape.count, &run->after));
    GIDD_TRY(parity_need_i32(p, parity_path(p, "%s/final", group), run->rows, &run->final));
    GIDD_TRY(parity_need_f64(p, parity_path(p, "%s/t", group), run->steps, &run->t));
    GIDD_TRY(parity_need_f64(p, parity_path(p, "%s/s", group), run->steps, &run->s));
    GIDD_TRY(parity_read_f64(p, parity_path(p, "%s/uniforms", group), &drawn, &uniforms));
    run->uniforms = parity_alloc(p, (size_t)shape.count * sizeof(*uniforms));
    memcpy(run->uniforms, uniforms, (size_t)drawn.count * sizeof(*uniforms));
    return GIDD_OK;
}

/* Each step from its own z_before, then all from the first one. */
static gidd_status check_steps(parity *p, const char *group, const generation *run,
                               const gidd_schedule *schedule, gidd_sampler *sampler)
{
    const size_t bytes = (size_t)run->rows * sizeof(*run->before);
    int32_t *z = parity_alloc(p, bytes), *all = parity_alloc(p, bytes);
    memcpy(all, run->before, bytes);
    for (int64_t k = 0; k < run->steps; k++) {
        const int64_t i = run->steps - 1 - k;
        const double *uniforms = run->uniforms + k * run->rows;
        const gidd_posterior at = gidd_posterior_step(schedule, run->steps, i);
        parity_check(p, fabs(at.t - run->t[k]) + fabs(at.s - run->s[k]), 2e-7,
                     "%s: times of step %d", group, (int)k);
        memcpy(z, run->before + k * run->rows, bytes);
        GIDD_TRY(gidd_sampler_step(sampler, i, run->B, uniforms, NULL, z));
        parity_check(p, parity_mismatches(z, run->after + k * run->rows, run->rows), 0.0,
                     "%s: ids of step %d", group, (int)k);
        GIDD_TRY(gidd_sampler_step(sampler, i, run->B, uniforms, NULL, all));
    }
    parity_check(p, parity_mismatches(all, run->final, run->rows), 0.0, "%s: final ids", group);
    return GIDD_OK;
}

static gidd_status check_generation(parity *p, network *net, const char *name)
{
    const char *group = parity_path(p, "/sampler/%s", name), *number = strstr(name, "_pu");
    const int is_mdlm = number == NULL, is_wide = strcmp(name, "mdlm_generate") == 0;
    const double p_uniform = is_mdlm ? 0.0 : strtod(number + 3, NULL);
    generation run = {0};
    gidd_schedule schedule;
    gidd_sampler *sampler = NULL;
    GIDD_TRY(read_generation(p, group, &run));
    GIDD_TRY(parity_schedule(p, is_mdlm ? GIDD_PROCESS_MDLM : GIDD_PROCESS_GIDD, p_uniform,
                             GIDD_WEIGHTING_DYNAMIC, &schedule));
    GIDD_TRY(gidd_sampler_create(&(gidd_sampler_args){.model = net->model,
                                                      .schedule = &schedule,
                                                      .T = p->config.T,
                                                      .steps = run.steps,
                                                      .width = is_wide ? p->config.Vr : 0},
                                 &sampler));
    gidd_status status = check_steps(p, group, &run, &schedule, sampler);
    gidd_sampler_destroy(sampler);
    return status;
}

static gidd_status generate(parity *p, network *net)
{
    static const char *const names[] = {"gidd_generate_pu0.1", "gidd_generate_pu0.0",
                                        "mdlm_generate", "mdlm_generate_sliced"};
    GIDD_TRY(network_open(p, net, GIDD_MODEL_INFER, p->config.B, 0));
    GIDD_TRY(network_read_params(p, net));
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        GIDD_TRY(check_generation(p, net, names[i]));
    }
    return GIDD_OK;
}

gidd_status parity_section_generate(parity *p)
{
    if (p->precision != GIDD_F32) {
        return GIDD_OK; // identical ids cannot be asked of rounded logits
    }
    network net = {0};
    gidd_status status = generate(p, &net);
    network_close(&net);
    return status;
}
