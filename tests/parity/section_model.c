/* SPDX-License-Identifier: Apache-2.0
 *
 * The network: intermediates and logits, losses and gradients through it.
 */
#include "parity/network.h"

#include <string.h>

/* ---- forward --------------------------------------------------------------------------------- */

static gidd_status check_intermediate(parity *p, network *net, const char *name)
{
    parity_shape shape;
    float *want = NULL;
    int64_t count = 0;
    const char *path = parity_path(p, "/forward/%s", name);
    GIDD_TRY(parity_read_f32(p, path, &shape, &want));
    float *got = parity_alloc(p, (size_t)shape.count * sizeof(*got));
    GIDD_TRY(gidd_model_inspect(net->model, name, got, shape.count, &count));
    if (count != shape.count) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s has %lld values, the model %lld", path,
                         (long long)shape.count, (long long)count);
    }
    network_check(p, got, want, count, 2e-5, path);
    return GIDD_OK;
}

/* rope_cos and rope_sin are [T][d], both halves of a row equal; ours is [T][d/2][cos, sin]. */
static gidd_status check_rope(parity *p, network *net)
{
    const int64_t T = p->config.T, d = p->config.D / p->config.H;
    float *cosines = NULL, *sines = NULL;
    float *want = parity_alloc(p, (size_t)(T * d) * sizeof(*want));
    float *got = parity_alloc(p, (size_t)(T * d) * sizeof(*got));
    int64_t count = 0;
    GIDD_TRY(parity_need_f32(p, "/forward/rope_cos", T * d, &cosines));
    GIDD_TRY(parity_need_f32(p, "/forward/rope_sin", T * d, &sines));
    for (int64_t r = 0; r < T; r++) {
        for (int64_t i = 0; i < d / 2; i++) {
            want[r * d + 2 * i] = cosines[r * d + i];
            want[r * d + 2 * i + 1] = sines[r * d + d / 2 + i];
        }
    }
    GIDD_TRY(gidd_model_inspect(net->model, "rope", got, T * d, &count));
    parity_check(p, parity_max_abs(got, want, T * d), 2e-5, "/forward/rope");
    return GIDD_OK;
}

static int is_intermediate(const char *name)
{
    return strncmp(name, "logits", 6) != 0 && strncmp(name, "rope", 4) != 0;
}

static gidd_status check_intermediates(parity *p, network *net)
{
    const char **names = NULL;
    int64_t count = 0;
    GIDD_TRY(parity_members(p, "/forward", &names, &count));
    for (int64_t i = 0; i < count; i++) {
        if (is_intermediate(names[i])) {
            GIDD_TRY(check_intermediate(p, net, names[i]));
        }
    }
    return check_rope(p, net);
}

/* The logits at (z, t), times `scale`. */
static gidd_status check_logits(parity *p, network *net, const char *z_path, const char *t_path,
                                const char *logits_path, float scale)
{
    const int64_t B = p->config.B, rows = B * p->config.T, count = rows * p->config.Vr;
    int32_t *z = NULL;
    float *t = NULL, *want = NULL, *got = parity_alloc(p, (size_t)count * sizeof(*got));
    gidd_schedule schedule;
    GIDD_TRY(parity_need_i32(p, z_path, rows, &z));
    GIDD_TRY(parity_need_f32(p, t_path, B, &t));
    GIDD_TRY(parity_need_f32(p, logits_path, count, &want));
    GIDD_TRY(parity_schedule(p, GIDD_PROCESS_GIDD, p->config.p_uniform, GIDD_WEIGHTING_DYNAMIC,
                             &schedule));
    GIDD_TRY(network_forward(net, &(network_inputs){.z = z, .t = t, .schedule = &schedule}));
    GIDD_TRY(network_logits(p, net, got));
    for (int64_t i = 0; i < count; i++) {
        got[i] *= scale;
    }
    network_check(p, got, want, count, 2e-5, logits_path);
    return GIDD_OK;
}

/* The intermediates belong to /forward/logits, so that comes last. */
static gidd_status check_all_logits(parity *p, network *net)
{
    static const char *const suffixes[] = {"_pu0.0", "_pu0.2", "_mdlm"};
    if (parity_has(p, "/self_correction/logits")) {
        GIDD_TRY(check_logits(p, net, "/self_correction/z_t", "/self_correction/t",
                              "/self_correction/logits", 0.25f));
    }
    for (size_t i = 0; i < sizeof(suffixes) / sizeof(*suffixes); i++) {
        const char *z = parity_path(p, "/inputs/z_t%s", suffixes[i]);
        const char *logits = parity_path(p, "/forward/logits%s", suffixes[i]);
        GIDD_TRY(check_logits(p, net, z, "/inputs/t", logits, 1.0f));
    }
    return check_logits(p, net, "/inputs/z_t", "/inputs/t", "/forward/logits", 1.0f);
}

static gidd_status forward_in(parity *p, network *net, gidd_model_mode mode)
{
    /* odd chunks of rows in INFER, so that their seams are in the comparison */
    GIDD_TRY(network_open(p, net, mode, p->config.B, mode == GIDD_MODEL_INFER ? 37 : 0));
    GIDD_TRY(network_read_params(p, net));
    GIDD_TRY(check_all_logits(p, net));
    return mode == GIDD_MODEL_TRAIN ? check_intermediates(p, net) : GIDD_OK;
}

gidd_status parity_section_forward(parity *p)
{
    network net = {0};
    gidd_status status = forward_in(p, &net, GIDD_MODEL_INFER);
    network_close(&net);
    if (status != GIDD_OK) {
        return status;
    }
    status = forward_in(p, &net, GIDD_MODEL_TRAIN);
    network_close(&net);
    return status;
}

/* ---- grads ----------------------------------------------------------------------------------- */

static gidd_status check_dlogits(parity *p, network *net, const char *name)
{
    const int64_t count = p->config.B * p->config.T * p->config.Vr;
    const char *path = parity_path(p, "/dlogits/%s", name);
    float *want = NULL, *got = parity_alloc(p, (size_t)count * sizeof(*got));
    int64_t seen = 0;
    GIDD_TRY(parity_need_f32(p, path, count, &want));
    GIDD_TRY(gidd_model_inspect(net->model, "logits", got, count, &seen));
    network_check(p, got, want, count, 5e-8, path);
    return GIDD_OK;
}

static gidd_status check_gradients(parity *p, network *net, const char *name)
{
    const gidd_params *params = &net->params;
    const size_t bytes = (size_t)params->memory_count * sizeof(float);
    float *grads = parity_alloc(p, bytes);
    GIDD_TRY(parity_get(p, grads, net->model->grads, bytes));
    for (int64_t i = 0; i < params->tensor_count; i++) {
        const gidd_tensor *tensor = &params->tensors[i];
        const char *path = parity_path(p, "/grads/%s/%s", name, tensor->name);
        float *want = NULL;
        GIDD_TRY(parity_need_f32(p, path, tensor->count, &want));
        parity_check(p, parity_rel_l2(grads + tensor->at, want, tensor->count),
                     parity_tolerance(p, 2e-5, BF16_GRADIENTS), "%s", path);
    }
    return GIDD_OK;
}

static gidd_status check_case(parity *p, network *net, const char *name)
{
    const int64_t B = p->config.B, rows = B * p->config.T;
    gidd_schedule schedule;
    const char *suffix = NULL;
    network_inputs inputs = {.schedule = &schedule};
    int32_t *x = NULL, *z = NULL, *mask = NULL;
    float *t = NULL;
    GIDD_TRY(network_case(p, name, &schedule, &net->model->loss, &suffix));
    GIDD_TRY(parity_need_i32(p, "/inputs/input_ids", rows, &x));
    GIDD_TRY(parity_need_i32(p, "/inputs/attention_mask", rows, &mask));
    GIDD_TRY(parity_need_i32(p, parity_path(p, "/inputs/z_t_%s", suffix), rows, &z));
    GIDD_TRY(parity_need_f32(p, "/inputs/t", B, &t));
    inputs.x = x;
    inputs.z = z;
    inputs.mask = mask;
    inputs.t = t;
    GIDD_TRY(gidd_model_zero_sums(net->model));
    GIDD_TRY(network_forward(net, &inputs));
    GIDD_TRY(gidd_model_head(
        net->model, &(gidd_head_args){.mode = GIDD_LOSS_TRAIN, .scale = 1.0f / (float)rows}));
    GIDD_TRY(check_dlogits(p, net, name));
    GIDD_TRY(network_check_loss(p, net, parity_path(p, "/loss/%s", name)));
    GIDD_TRY(gidd_model_backward(net->model, &(gidd_backward_args){0}));
    return check_gradients(p, net, name);
}

static gidd_status check_cases(parity *p, network *net)
{
    const char **names = NULL;
    int64_t count = 0;
    GIDD_TRY(network_open(p, net, GIDD_MODEL_TRAIN, p->config.B, 0));
    GIDD_TRY(network_read_params(p, net));
    GIDD_TRY(parity_members(p, "/grads", &names, &count));
    for (int64_t i = 0; i < count; i++) {
        GIDD_TRY(check_case(p, net, names[i]));
    }
    return GIDD_OK;
}

gidd_status parity_section_grads(parity *p)
{
    network net = {0};
    gidd_status status = check_cases(p, &net);
    network_close(&net);
    return status;
}
