/* SPDX-License-Identifier: Apache-2.0 */
#include "parity/network.h"

#include "worker/model_source.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

gidd_status network_open(parity *p, network *net, gidd_model_mode mode, int64_t B, int64_t head_rows)
{
    return network_open_with(p, net, mode, GIDD_LOSS_GIDD, B, head_rows);
}

gidd_status network_open_with(parity *p, network *net, gidd_model_mode mode, gidd_loss_kind loss, int64_t B,
                              int64_t head_rows)
{
    const parity_config *c = &p->config;
    const gidd_model_shape shape = {.type = loss == GIDD_LOSS_NEXT ? GIDD_MODEL_AUTOREGRESSIVE : GIDD_MODEL_DIFFUSION,
                                    .D = c->D,
                                    .L = c->L,
                                    .H = c->H,
                                    .C = c->C,
                                    .T = c->T,
                                    .V = c->V,
                                    .Vr = c->Vr,
                                    .mask_id = c->mask};
    gidd_device *device = NULL;
    *net = (network){0};
    GIDD_TRY(parity_device(p, &device));
    GIDD_TRY(
        gidd_params_init(&net->params, &shape, (size_t)1 << 18, 3)); // with buckets and padding
    void *memory = parity_alloc(p, gidd_batch_bytes(B, c->T));
    net->scratch = parity_alloc(p, (size_t)(B * c->T) * sizeof(*net->scratch));
    gidd_batch_layout(&net->batch, B, c->T, memory);
    return gidd_model_create(&(gidd_model_args){.device = device,
                                                .params = &net->params,
                                                .mode = mode,
                                                .loss = loss,
                                                .max_B = B,
                                                .max_T = c->T,
                                                .head_rows = head_rows},
                             &net->model);
}

void network_close(network *net)
{
    gidd_model_destroy(net->model);
    gidd_params_release(&net->params);
}

/* The parameters of p->model, tensor by tensor, so that padding in memory stays as it is. */
static gidd_status read_model(parity *p, network *net, float *values)
{
    gidd_model_source *source = parity_alloc(p, sizeof(*source));
    gidd_status status =
        gidd_model_source_open(source, &(gidd_model_source_args){.path = p->model});
    if (status == GIDD_OK && source->params.count != net->params.count) {
        status = gidd_fail(GIDD_ERR_CORRUPT, "%s is another model than that of %s", p->model, p->path);
    }
    for (int64_t i = 0; status == GIDD_OK && i < net->params.tensor_count; i++) {
        const gidd_tensor *tensor = &net->params.tensors[i];
        status = gidd_model_source_read(source, tensor->offset, tensor->count, values + tensor->at);
    }
    gidd_model_source_close(source);
    return status;
}

gidd_status network_read_params(parity *p, network *net)
{
    return network_read_params_of(p, net, "/params");
}

gidd_status network_read_params_of(parity *p, network *net, const char *group)
{
    float *values = parity_alloc(p, (size_t)net->params.memory_count * sizeof(*values));
    if (p->model != NULL) {
        GIDD_TRY(read_model(p, net, values));
        return gidd_model_set_params(net->model, values);
    }
    for (int64_t i = 0; i < net->params.tensor_count; i++) {
        const gidd_tensor *tensor = &net->params.tensors[i];
        float *data = NULL;
        GIDD_TRY(
            parity_need_f32(p, parity_path(p, "%s/%s", group, tensor->name), tensor->count, &data));
        memcpy(values + tensor->at, data, (size_t)tensor->count * sizeof(*values));
    }
    return gidd_model_set_params(net->model, values);
}

gidd_status network_forward(network *net, const network_inputs *inputs)
{
    gidd_batch *batch = &net->batch;
    const int64_t rows = batch->B * batch->T;
    const size_t bytes = (size_t)rows * sizeof(*batch->z);
    memcpy(batch->z, inputs->z, bytes);
    memcpy(batch->x, inputs->x != NULL ? inputs->x : inputs->z, bytes);
    for (int64_t i = 0; i < rows; i++) {
        batch->attention_mask[i] = inputs->mask != NULL ? inputs->mask[i] : 1;
    }
    for (int64_t b = 0; b < batch->B; b++) {
        gidd_schedule_coef(inputs->schedule, inputs->t[b], &batch->coef[b]);
    }
    gidd_batch_index(batch, net->params.shape.V, net->scratch);
    GIDD_TRY(gidd_model_load(net->model, batch));
    return gidd_model_forward(net->model);
}

gidd_status network_logits(parity *p, network *net, float *logits)
{
    gidd_model *model = net->model;
    const int64_t rows = net->batch.B * net->batch.T, Vr = net->params.shape.Vr;
    for (int64_t first = 0; first < rows; first += model->head_rows) {
        const int64_t left = rows - first,
                      chunk = left < model->head_rows ? left : model->head_rows;
        void *memory = NULL;
        GIDD_TRY(gidd_model_logits(model, first, chunk, &memory));
        GIDD_TRY(parity_get_e(p, logits + first * Vr, memory, chunk * Vr));
    }
    return GIDD_OK;
}

static gidd_weighting weighting_of(const char *name)
{
    const char *last = strrchr(name, '_');
    if (last != NULL && strcmp(last, "_clip") == 0) {
        return GIDD_WEIGHTING_CLIP;
    }
    return last != NULL && strcmp(last, "_none") == 0 ? GIDD_WEIGHTING_NONE
                                                      : GIDD_WEIGHTING_DYNAMIC;
}

gidd_status network_case(parity *p, const char *name, gidd_schedule *schedule,
                         gidd_loss_kind *loss_p, const char **suffix_p)
{
    if (strcmp(name, "mdlm") == 0) {
        *loss_p = GIDD_LOSS_MDLM;
        *suffix_p = "mdlm";
        return parity_schedule(p, GIDD_PROCESS_MDLM, 0.0, GIDD_WEIGHTING_NONE, schedule);
    }
    if (strncmp(name, "gidd_pu", 7) != 0) {
        return gidd_fail(GIDD_ERR_CORRUPT, "no case is called %s", name);
    }
    const double p_uniform = strtod(name + 7, NULL);
    *loss_p = GIDD_LOSS_GIDD;
    *suffix_p = parity_path(p, "pu%.1f", p_uniform);
    return parity_schedule(p, GIDD_PROCESS_GIDD, p_uniform, weighting_of(name), schedule);
}

void network_check(parity *p, const float *got, const float *want, int64_t count, double tolerance,
                   const char *name)
{
    if (p->precision == GIDD_F32) {
        parity_check(p, parity_max_abs(got, want, count), tolerance, "%s", name);
    } else {
        parity_check(p, parity_rel_l2(got, want, count), BF16_ACTIVATIONS, "%s (relative L2)",
                     name);
    }
}

/* ---- Losses ---------------------------------------------------------------------------------- */

typedef struct scalar_check {
    const char *name;
    double got;
} scalar_check;

static gidd_status check_scalars(parity *p, network *net, const char *group)
{
    gidd_loss_sums sums;
    GIDD_TRY(gidd_model_read_sums(net->model, &sums));
    const scalar_check checks[] = {
        {"tokenmean", sums.loss / sums.positions},    {"metric_elbo", sums.elbo / sums.tokens},
        {"metric_rec_loss", sums.elbo / sums.tokens}, {"metric_kl_loss", sums.w_kl / sums.w},
        {"metric_is_loss", sums.w_is / sums.w},
    };
    for (size_t i = 0; i < sizeof(checks) / sizeof(*checks); i++) {
        const char *path = parity_path(p, "%s/%s", group, checks[i].name);
        double *want = NULL;
        if (!parity_has(p, path)) {
            continue;
        }
        GIDD_TRY(parity_need_f64(p, path, 1, &want));
        const double scale = fmax(1.0, fabs(*want)); // the scalars may be large: ELBO weights are
        parity_check(p, fabs(checks[i].got - *want) / scale,
                     parity_tolerance(p, 1e-5, BF16_MEAN_LOSS), "%s", path);
    }
    return GIDD_OK;
}

/* kl, is_loss and log_ratio of GIDD; of MDLM the loss itself, weight 1/t on the masked positions.
 */
static void array_of_terms(const network *net, const gidd_loss_row *terms, const char *name,
                           float *values)
{
    const gidd_batch *batch = &net->batch;
    for (int64_t i = 0; i < batch->B * batch->T; i++) {
        const gidd_loss_row *row = &terms[i];
        const gidd_seq_coef *coef = &batch->coef[i / batch->T];
        const int masked = batch->z[i] == net->params.shape.mask_id;
        if (strcmp(name, "kl") == 0) {
            values[i] = row->kl;
        } else if (strcmp(name, "is_loss") == 0) {
            values[i] = row->is;
        } else if (strcmp(name, "log_ratio") == 0) {
            values[i] = row->log_ratio;
        } else {
            const int kept = batch->z[i] == batch->x[i];
            values[i] = (kept     ? coef->w_keep
                         : masked ? coef->w_mask
                                  : coef->w_other) *
                        (row->kl + row->is);
        }
    }
}

gidd_status network_check_loss(parity *p, network *net, const char *group)
{
    static const char *const names[] = {"kl", "is_loss", "log_ratio", "loss"};
    const int64_t rows = net->batch.B * net->batch.T;
    gidd_loss_row *terms = parity_alloc(p, (size_t)rows * sizeof(*terms));
    float *got = parity_alloc(p, (size_t)rows * sizeof(*got));
    GIDD_TRY(parity_get(p, terms, net->model->terms, (size_t)rows * sizeof(*terms)));
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        const char *path = parity_path(p, "%s/%s", group, names[i]);
        float *want = NULL;
        if (!parity_has(p, path)) {
            continue;
        }
        GIDD_TRY(parity_need_f32(p, path, rows, &want));
        array_of_terms(net, terms, names[i], got);
        parity_check(p, parity_max_rel(got, want, rows),
                     parity_tolerance(p, 2e-5, BF16_POSITION_LOSS), "%s", path);
    }
    return check_scalars(p, net, group);
}
