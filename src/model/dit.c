/* SPDX-License-Identifier: Apache-2.0
 *
 * The diffusion network, forward and backward, one kernel a box (SPEC section 2).
 */
#include "model/block.h"
#include "model/architecture.h"

/* ---- Trunk, forward -------------------------------------------------------------------------- */

static gidd_status time_cond_fwd(gidd_model *model)
{
    gidd_activations *a = model->activations;
    const gidd_time_cond_fwd_args args = {
        .features = a->features,
        .hidden = a->hidden,
        .embedding = a->embedding_t,
        .c = a->c,
        .coef = model->batch.coef,
        .w0 = gidd_model_master(model, a->time_w0),
        .b0 = gidd_model_master(model, a->time_b0),
        .w2 = gidd_model_master(model, a->time_w2),
        .b2 = gidd_model_master(model, a->time_b2),
        .B = model->batch.B,
        .C = model->params->shape.C,
    };
    return model->device->kernels->time_cond_fwd(model->device, &args);
}

/* Shift, scale and gate of every norm of the network at once, in fp32. */
static gidd_status modulations_fwd(gidd_model *model)
{
    gidd_activations *a = model->activations;
    const gidd_linear_fwd_args args = {
        .y = a->mods,
        .x = a->c,
        .w = gidd_model_master(model, a->mods_w),
        .bias = gidd_model_master(model, a->mods_b),
        .M = model->batch.B,
        .N = a->mods_stride,
        .K = model->params->shape.C,
        .dtype = GIDD_F32,
        .epilogue = GIDD_LINEAR_BIAS,
    };
    return model->device->kernels->linear_fwd(model->device, &args);
}

static gidd_status forward(gidd_model *model)
{
    GIDD_TRY(gidd_embedding_fwd(model));
    GIDD_TRY(time_cond_fwd(model));
    GIDD_TRY(modulations_fwd(model));
    for (int64_t i = 0; i < model->params->shape.L; i++) {
        GIDD_TRY(gidd_block_fwd(model, i));
    }
    return GIDD_OK;
}

/* The last norm: with a list, u_final gets the listed rows only. */
static gidd_norm final_norm(const gidd_model *model, int listed)
{
    gidd_norm norm = gidd_norm_before(model, model->params->shape.L);
    norm.row_list = gidd_listed_rows(model, listed, &norm.u_rows);
    return norm;
}

static gidd_status final_norm_fwd(gidd_model *model, int listed)
{
    const gidd_norm norm = final_norm(model, listed);
    return gidd_norm_fwd(model, &norm);
}

/* ---- Trunk, backward ------------------------------------------------------------------------- */

static gidd_status modulations_bwd(gidd_model *model, int accumulate)
{
    gidd_activations *a = model->activations;
    const gidd_kernels *k = model->device->kernels;
    const int64_t M = model->batch.B, N = a->mods_stride, K = model->params->shape.C;
    const gidd_linear_bwd_weight_args weight = {
        .dw = gidd_model_grad(model, a->mods_w),
        .dbias = gidd_model_grad(model, a->mods_b),
        .dy = a->dmods,
        .x = a->c,
        .M = M,
        .N = N,
        .K = K,
        .dtype = GIDD_F32,
        .accumulate = accumulate,
    };
    GIDD_TRY(k->linear_bwd_weight(model->device, &weight));
    const gidd_linear_bwd_data_args data = {
        .dx = a->dc,
        .dy = a->dmods,
        .w = gidd_model_master(model, a->mods_w),
        .M = M,
        .N = N,
        .K = K,
        .dtype = GIDD_F32,
    };
    return k->linear_bwd_data(model->device, &data);
}

static gidd_status time_cond_bwd(gidd_model *model, int accumulate)
{
    gidd_activations *a = model->activations;
    const gidd_time_cond_bwd_args args = {
        .dw0 = gidd_model_grad(model, a->time_w0),
        .db0 = gidd_model_grad(model, a->time_b0),
        .dw2 = gidd_model_grad(model, a->time_w2),
        .db2 = gidd_model_grad(model, a->time_b2),
        .dc = a->dc,
        .features = a->features,
        .hidden = a->hidden,
        .embedding = a->embedding_t,
        .w2 = gidd_model_master(model, a->time_w2),
        .B = model->batch.B,
        .C = model->params->shape.C,
        .accumulate = accumulate,
    };
    return model->device->kernels->time_cond_bwd(model->device, &args);
}

static gidd_status backward(gidd_model *model, int listed, const gidd_backward_args *args)
{
    const int64_t L = model->params->shape.L;
    const gidd_norm norm = final_norm(model, listed);
    GIDD_TRY(gidd_norm_bwd(model, &norm, NULL, args->accumulate));
    gidd_announce(args, 0);
    for (int64_t i = L - 1; i >= 0; i--) {
        GIDD_TRY(gidd_block_bwd(model, i, args->accumulate));
        gidd_announce(args, L - i);
    }
    GIDD_TRY(modulations_bwd(model, args->accumulate));
    GIDD_TRY(time_cond_bwd(model, args->accumulate));
    gidd_announce(args, L + 1);
    GIDD_TRY(gidd_embedding_bwd(model, args->accumulate));
    gidd_announce(args, L + 2);
    return GIDD_OK;
}

const gidd_architecture gidd_architecture_dit = {
    .plan = gidd_dit_plan,
    .share = gidd_dit_share,
    .forward = forward,
    .final_norm_fwd = final_norm_fwd,
    .backward = backward,
};
