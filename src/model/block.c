/* SPDX-License-Identifier: Apache-2.0 */
#include "model/block.h"

/* Order of the six vectors of a block's modulation (SPEC section 2, step 1). */
enum { SHIFT_A = 0, SCALE_A, GATE_A, SHIFT_M, SCALE_M, GATE_M };

/* ---- Norms ----------------------------------------------------------------------------------- */

gidd_norm gidd_norm_before(const gidd_model *model, int64_t index)
{
    gidd_activations *a = model->activations;
    const int64_t D = model->params->shape.D, L = model->params->shape.L;
    const int is_final = index == L;
    const gidd_block *block = is_final ? NULL : &a->blocks[index];
    const gidd_block *before = index > 0 ? &a->blocks[index - 1] : NULL;
    const int64_t own = is_final ? a->mods_final : block->mods;
    return (gidd_norm){
        .gain = is_final ? a->norm_final : block->norm1,
        .x_out = is_final ? a->x_final : block->x1,
        .u = is_final ? a->u_final : block->u1,
        .mean = is_final ? a->mean_final : block->mean1,
        .rstd = is_final ? a->rstd_final : block->rstd1,
        .x = before != NULL ? before->x2 : block->x1,
        .y = before != NULL ? before->mlp_y : NULL,
        .at = {.shift = own + SHIFT_A * D,
               .scale = own + SCALE_A * D,
               .gate = before != NULL ? before->mods + GATE_M * D : 0},
        .u_rows = model->batch.B * model->batch.T,
    };
}

/* The norm between block `index`'s attention and its MLP. */
static gidd_norm norm_inside(const gidd_model *model, int64_t index)
{
    const gidd_block *block = &model->activations->blocks[index];
    const int64_t D = model->params->shape.D, own = block->mods;
    return (gidd_norm){
        .gain = block->norm2,
        .x_out = block->x2,
        .u = block->u2,
        .mean = block->mean2,
        .rstd = block->rstd2,
        .x = block->x1,
        .y = block->attn_y,
        .at = {.shift = own + SHIFT_M * D, .scale = own + SCALE_M * D, .gate = own + GATE_A * D},
        .u_rows = model->batch.B * model->batch.T,
    };
}

gidd_status gidd_norm_fwd(gidd_model *model, const gidd_norm *norm)
{
    const gidd_norm_mod_fwd_args args = {
        .x_out = norm->y != NULL ? norm->x_out : NULL,
        .u = norm->u,
        .mean = norm->mean,
        .rstd = norm->rstd,
        .x = norm->x,
        .y = norm->y,
        .gain = gidd_model_master(model, norm->gain),
        .mods = model->activations->mods,
        .row_list = norm->row_list,
        .u_rows = norm->u_rows,
        .at = norm->at,
        .stride = model->activations->mods_stride,
        .rows = model->batch.B * model->batch.T,
        .cols = model->params->shape.D,
        .T = model->batch.T,
    };
    return model->device->kernels->norm_mod_fwd(model->device, &args);
}

gidd_status gidd_norm_bwd(gidd_model *model, const gidd_norm *norm, const void *dx_out,
                          int accumulate)
{
    gidd_activations *a = model->activations;
    const gidd_norm_mod_bwd_args args = {
        .dx = a->dx,
        .dy = norm->y != NULL ? a->branch : NULL,
        .dgain = gidd_model_grad(model, norm->gain),
        .dmods = a->dmods,
        .du = a->du,
        .dx_out = dx_out,
        .x_out = norm->x_out,
        .y = norm->y,
        .mean = norm->mean,
        .rstd = norm->rstd,
        .gain = gidd_model_master(model, norm->gain),
        .mods = a->mods,
        .row_list = norm->row_list,
        .u_rows = norm->u_rows,
        .at = norm->at,
        .stride = a->mods_stride,
        .rows = model->batch.B * model->batch.T,
        .cols = model->params->shape.D,
        .T = model->batch.T,
        .accumulate = accumulate,
    };
    return model->device->kernels->norm_mod_bwd(model->device, &args);
}

/* ---- Forward --------------------------------------------------------------------------------- */

gidd_status gidd_product_fwd(gidd_model *model, const gidd_product *p)
{
    const gidd_linear_fwd_args args = {
        .y = p->y,
        .pre = p->pre,
        .x = p->x,
        .w = gidd_model_weight(model, p->w),
        .bias = p->epilogue == GIDD_LINEAR_NONE ? NULL : gidd_model_weight(model, p->bias),
        .M = model->batch.B * model->batch.T,
        .N = p->N,
        .K = p->K,
        .dtype = model->device->dtype,
        .epilogue = p->epilogue,
    };
    return model->device->kernels->linear_fwd(model->device, &args);
}

gidd_status gidd_attention_of_block_fwd(gidd_model *model, const gidd_block *block,
                                        gidd_attention_kind kind)
{
    const gidd_model_shape *s = &model->params->shape;
    const gidd_attention_fwd_args args = {
        .out = block->attn,
        .lse = block->lse,
        .qkv = block->qkv,
        .rope = model->activations->rope,
        .B = model->batch.B,
        .T = model->batch.T,
        .H = s->H,
        .d = s->D / s->H,
        .kind = kind,
    };
    return model->device->kernels->attention_fwd(model->device, &args);
}

/* Up to attn_y. */
static gidd_status attention_half_fwd(gidd_model *model, int64_t index)
{
    const int64_t D = model->params->shape.D;
    gidd_block *b = &model->activations->blocks[index];
    const gidd_norm norm1 = gidd_norm_before(model, index);
    const gidd_product qkv = {.x = b->u1, .y = b->qkv, .w = b->qkv_w, .N = 3 * D, .K = D};
    const gidd_product out = {.x = b->attn, .y = b->attn_y, .w = b->out_w, .N = D, .K = D};
    GIDD_TRY(gidd_norm_fwd(model, &norm1));
    GIDD_TRY(gidd_product_fwd(model, &qkv));
    GIDD_TRY(gidd_attention_of_block_fwd(model, b, GIDD_ATTENTION_FULL));
    return gidd_product_fwd(model, &out);
}

/* From attn_y to gelu. */
static gidd_status mlp_half_fwd(gidd_model *model, int64_t index)
{
    const int64_t D = model->params->shape.D;
    gidd_block *b = &model->activations->blocks[index];
    const gidd_norm norm2 = norm_inside(model, index);
    const gidd_product fc1 = {.x = b->u2,
                         .y = b->gelu,
                         .pre = b->fc1,
                         .w = b->fc1_w,
                         .bias = b->fc1_b,
                         .N = 4 * D,
                         .K = D,
                         .epilogue = GIDD_LINEAR_BIAS_GELU};
    GIDD_TRY(gidd_norm_fwd(model, &norm2));
    return gidd_product_fwd(model, &fc1);
}

gidd_status gidd_block_fwd(gidd_model *model, int64_t index)
{
    const int64_t D = model->params->shape.D;
    gidd_block *b = &model->activations->blocks[index];
    const gidd_product fc2 = {.x = b->gelu,
                         .y = b->mlp_y,
                         .w = b->fc2_w,
                         .bias = b->fc2_b,
                         .N = D,
                         .K = 4 * D,
                         .epilogue = GIDD_LINEAR_BIAS};
    GIDD_TRY(attention_half_fwd(model, index));
    GIDD_TRY(mlp_half_fwd(model, index));
    return gidd_product_fwd(model, &fc2);
}

/* What the block did not keep, from what it did; the last block had the buffers last. */
static gidd_status recompute(gidd_model *model, int64_t index)
{
    const gidd_recompute what = model->activations->recompute;
    if (what == GIDD_RECOMPUTE_NONE || index == model->params->shape.L - 1) {
        return GIDD_OK;
    }
    if (what == GIDD_RECOMPUTE_BLOCK) {
        GIDD_TRY(attention_half_fwd(model, index));
    }
    return mlp_half_fwd(model, index);
}

/* ---- Backward: the same boxes from the last to the first ------------------------------------- */

gidd_status gidd_product_bwd(gidd_model *model, const gidd_product_gradients *p, int accumulate)
{
    const gidd_kernels *k = model->device->kernels;
    const int64_t M = model->batch.B * model->batch.T;
    const gidd_linear_bwd_weight_args weight = {
        .dw = gidd_model_grad(model, p->w),
        .dbias = p->bias < 0 ? NULL : gidd_model_grad(model, p->bias),
        .dy = p->dy,
        .x = p->x,
        .M = M,
        .N = p->N,
        .K = p->K,
        .dtype = model->device->dtype,
        .accumulate = accumulate,
    };
    GIDD_TRY(k->linear_bwd_weight(model->device, &weight));
    const gidd_linear_bwd_data_args data = {
        .dx = p->dx,
        .dy = p->dy,
        .w = gidd_model_weight(model, p->w),
        .pre = p->pre,
        .M = M,
        .N = p->N,
        .K = p->K,
        .dtype = model->device->dtype,
    };
    return k->linear_bwd_data(model->device, &data);
}

gidd_status gidd_attention_of_block_bwd(gidd_model *model, const gidd_block *block,
                                        gidd_attention_kind kind)
{
    const gidd_model_shape *s = &model->params->shape;
    gidd_activations *a = model->activations;
    const gidd_attention_bwd_args args = {
        .dqkv = a->wide,
        .dout = a->du,
        .out = block->attn,
        .lse = block->lse,
        .qkv = block->qkv,
        .rope = a->rope,
        .B = model->batch.B,
        .T = model->batch.T,
        .H = s->H,
        .d = s->D / s->H,
        .kind = kind,
    };
    return model->device->kernels->attention_bwd(model->device, &args);
}

gidd_status gidd_block_bwd(gidd_model *model, int64_t index, int accumulate)
{
    const int64_t D = model->params->shape.D;
    gidd_activations *a = model->activations;
    gidd_block *b = &a->blocks[index];
    const gidd_norm norm1 = gidd_norm_before(model, index), norm2 = norm_inside(model, index);
    const gidd_product_gradients fc2 = {.dy = a->branch,
                                   .x = b->gelu,
                                   .dx = a->wide,
                                   .pre = b->fc1,
                                   .w = b->fc2_w,
                                   .bias = b->fc2_b,
                                   .N = D,
                                   .K = 4 * D};
    const gidd_product_gradients fc1 = {.dy = a->wide,
                                   .x = b->u2,
                                   .dx = a->du,
                                   .w = b->fc1_w,
                                   .bias = b->fc1_b,
                                   .N = 4 * D,
                                   .K = D};
    const gidd_product_gradients out = {
        .dy = a->branch, .x = b->attn, .dx = a->du, .w = b->out_w, .bias = -1, .N = D, .K = D};
    const gidd_product_gradients qkv = {
        .dy = a->wide, .x = b->u1, .dx = a->du, .w = b->qkv_w, .bias = -1, .N = 3 * D, .K = D};
    GIDD_TRY(recompute(model, index));
    GIDD_TRY(gidd_product_bwd(model, &fc2, accumulate));
    GIDD_TRY(gidd_product_bwd(model, &fc1, accumulate));
    GIDD_TRY(gidd_norm_bwd(model, &norm2, a->dx, accumulate));
    GIDD_TRY(gidd_product_bwd(model, &out, accumulate));
    GIDD_TRY(gidd_attention_of_block_bwd(model, b, GIDD_ATTENTION_FULL));
    GIDD_TRY(gidd_product_bwd(model, &qkv, accumulate));
    return gidd_norm_bwd(model, &norm1, a->dx, accumulate);
}
