/* SPDX-License-Identifier: Apache-2.0
 *
 * The autoregressive network: a Llama-style decoder, forward and backward, one kernel a box. A block ends
 * with a branch output that is still to be added; the norm that reads the sum adds it:
 *
 *   x1 = x2' + mlp_y'                                            (' : the block before; block 0: the embedding)
 *   x1 --norm1--> u1 --W_q,k,v--> qkv --causal attention--> attn --W_o--> attn_y
 *   x2 = x1 + attn_y
 *   x2 --norm2--> u2 --W_gate,up--> fc1 --SwiGLU--> act --W_down--> mlp_y
 *
 * No layer has a bias, nothing knows a time. The buffers are those of gidd_block; means and modulations stay
 * unused. The gradient of a branch output is that of the residual stream: there is no gate between them.
 */
#include "model/architecture.h"
#include "model/block.h"

#include <stdio.h>

/* ---- Plan ------------------------------------------------------------------------------------ */

static int64_t place_in_layer(const gidd_params *params, int64_t index, const char *name)
{
    char full[96];
    (void)snprintf(full, sizeof(full), "model.layers.%lld.%s", (long long)index, name);
    return gidd_activations_place(params, full);
}

static void find_params(gidd_activations *a, const gidd_params *params)
{
    for (int64_t i = 0; i < params->shape.L; i++) {
        gidd_block *block = &a->blocks[i];
        block->norm1 = place_in_layer(params, i, "input_layernorm.weight");
        block->qkv_w = place_in_layer(params, i, "self_attn.q_proj.weight"); // k and v follow
        block->out_w = place_in_layer(params, i, "self_attn.o_proj.weight");
        block->norm2 = place_in_layer(params, i, "post_attention_layernorm.weight");
        block->fc1_w = place_in_layer(params, i, "mlp.gate_proj.weight"); // up follows
        block->fc2_w = place_in_layer(params, i, "mlp.down_proj.weight");
    }
    a->embedding = gidd_activations_place(params, "model.embed_tokens.weight");
    a->head_w = gidd_activations_place(params, "lm_head.weight");
    a->head_b = -1;
    a->norm_final = gidd_activations_place(params, "model.norm.weight");
}

static void add_block_buffers(gidd_activations *a, const gidd_model *model, int64_t index)
{
    const gidd_model_shape *s = &model->params->shape;
    const gidd_dtype E = model->device->dtype;
    const int64_t F = gidd_model_mlp_width(s);
    const gidd_buffer_kind stream = {GIDD_AREA_BLOCKS, GIDD_PER_TOKEN, s->D, E};
    const gidd_buffer_kind qkv = {GIDD_AREA_BLOCKS, GIDD_PER_TOKEN, 3 * s->D, E};
    const gidd_buffer_kind wide = {GIDD_AREA_BLOCKS, GIDD_PER_TOKEN, 2 * F, E};
    const gidd_buffer_kind act = {GIDD_AREA_BLOCKS, GIDD_PER_TOKEN, F, E};
    const gidd_buffer_kind scalar = {GIDD_AREA_BLOCKS, GIDD_PER_TOKEN, 1, GIDD_F32};
    const gidd_buffer_kind per_head = {GIDD_AREA_BLOCKS, GIDD_PER_TOKEN, s->H, GIDD_F32};
    gidd_block *block = &a->blocks[index];
    const int i = (int)index;
    if (i == 0) {
        gidd_activations_add(a, &block->x1, stream, "embed");
    } else {
        gidd_activations_add(a, &block->x1, stream, "block_%02d", i - 1);
    }
    gidd_activations_add(a, &block->rstd1, scalar, "block%d_rstd1", i);
    gidd_activations_add(a, &block->u1, stream, "block%d_attn_in", i);
    gidd_activations_add(a, &block->qkv, qkv, "block%d_qkv", i);
    gidd_activations_add(a, &block->lse, per_head, "block%d_lse", i);
    gidd_activations_add(a, &block->attn, stream, "block%d_attn", i);
    gidd_activations_add(a, &block->attn_y, stream, "block%d_attn_out", i);
    gidd_activations_add(a, &block->x2, stream, "block%d_middle", i);
    gidd_activations_add(a, &block->rstd2, scalar, "block%d_rstd2", i);
    gidd_activations_add(a, &block->u2, stream, "block%d_mlp_in", i);
    gidd_activations_add(a, &block->fc1, wide, "block%d_mlp_gate_up", i);
    gidd_activations_add(a, &block->gelu, act, "block%d_mlp_swiglu", i);
    gidd_activations_add(a, &block->mlp_y, stream, "block%d_mlp_out", i);
}

static void add_shared_buffers(gidd_activations *a, const gidd_model *model)
{
    const gidd_model_shape *s = &model->params->shape;
    const gidd_dtype E = model->device->dtype;
    const gidd_buffer_kind rope = {GIDD_AREA_CONDITIONING, GIDD_PER_POSITION, s->D / s->H, GIDD_F32};
    const gidd_buffer_kind stream = {GIDD_AREA_HEAD, GIDD_PER_TOKEN, s->D, E};
    const gidd_buffer_kind scalar = {GIDD_AREA_HEAD, GIDD_PER_TOKEN, 1, GIDD_F32};
    const gidd_buffer_kind logits = {GIDD_AREA_HEAD, GIDD_PER_HEAD_ROW, s->Vr, E};
    gidd_activations_add(a, &a->rope, rope, "rope");
    gidd_activations_add(a, &a->x_final, stream, "block_%02d", (int)(s->L - 1));
    gidd_activations_add(a, &a->rstd_final, scalar, "final_rstd");
    gidd_activations_add(a, &a->u_final, stream, "final_in");
    gidd_activations_add(a, &a->logits, logits, "logits");
}

static void plan(gidd_activations *a, const gidd_model *model)
{
    const gidd_model_shape *s = &model->params->shape;
    const int train = model->mode == GIDD_MODEL_TRAIN;
    const gidd_activation_area area = train ? GIDD_AREA_BACKWARD : GIDD_AREA_BLOCKS;
    const gidd_dtype E = model->device->dtype;
    const int64_t F = gidd_model_mlp_width(s);
    const gidd_buffer_kind stream = {area, GIDD_PER_TOKEN, s->D, E}, wide = {area, GIDD_PER_TOKEN, 2 * F, E};
    const gidd_buffer_kind act = {area, GIDD_PER_TOKEN, F, E};
    const gidd_buffer_kind per_head = {area, GIDD_PER_TOKEN, s->H, GIDD_F32};
    find_params(a, model->params);
    add_shared_buffers(a, model);
    gidd_activations_add(a, &a->wide, wide, train ? "dwide" : "wide"); // 2F = 8D: dqkv or qkv fit too
    gidd_activations_add(a, &a->act, act, train ? "dact" : "act");
    if (!train) {
        gidd_activations_add(a, &a->branch, stream, "branch");
        gidd_activations_add(a, &a->blocks[0].lse, per_head, "lse");
        return;
    }
    gidd_activations_add(a, &a->dx, stream, "dx");
    gidd_activations_add(a, &a->du, stream, "du");
    for (int64_t i = 0; i < s->L; i++) {
        add_block_buffers(a, model, i);
    }
}

/* INFER: u_final serves as u1, attn and u2, each of which is read for the last time by what writes the
 * next. */
static void share(gidd_activations *a, int64_t L)
{
    for (int64_t i = 0; i < L; i++) {
        gidd_block *block = &a->blocks[i];
        block->x1 = block->x2 = a->x_final;
        block->rstd1 = block->rstd2 = a->rstd_final;
        block->u1 = block->attn = block->u2 = a->u_final;
        block->qkv = block->fc1 = a->wide;
        block->gelu = a->act;
        block->lse = a->blocks[0].lse;
        block->attn_y = block->mlp_y = a->branch;
    }
}

/* ---- Norms ----------------------------------------------------------------------------------- */

/* A norm with the addition before it. */
typedef struct norm {
    int64_t gain;     /* place of its weight                    */
    void *x_out;      /* the sum; where y is NULL it is x itself */
    void *u;
    float *rstd;
    const void *x, *y; /* y NULL: nothing to add                */
} norm;

/* The norm before block `index`'s attention; index L is the final norm. */
static norm norm_before(const gidd_model *model, int64_t index)
{
    const gidd_activations *a = model->activations;
    const gidd_block *before = index > 0 ? &a->blocks[index - 1] : NULL;
    if (index == model->params->shape.L) {
        return (norm){a->norm_final, a->x_final, a->u_final, a->rstd_final, before->x2, before->mlp_y};
    }
    const gidd_block *b = &a->blocks[index];
    return (norm){b->norm1, b->x1, b->u1, b->rstd1, before != NULL ? before->x2 : b->x1,
                  before != NULL ? before->mlp_y : NULL};
}

/* The norm between block `index`'s attention and its MLP. */
static norm norm_inside(const gidd_model *model, int64_t index)
{
    const gidd_block *b = &model->activations->blocks[index];
    return (norm){b->norm2, b->x2, b->u2, b->rstd2, b->x1, b->attn_y};
}

static gidd_status norm_fwd(gidd_model *model, norm n)
{
    const gidd_rms_norm_fwd_args args = {
        .x_out = n.y != NULL ? n.x_out : NULL,
        .u = n.u,
        .rstd = n.rstd,
        .x = n.x,
        .y = n.y,
        .gain = gidd_model_master(model, n.gain),
        .rows = model->batch.B * model->batch.T,
        .cols = model->params->shape.D,
    };
    return model->device->kernels->rms_norm_fwd(model->device, &args);
}

/* From du and dx_out (NULL: nothing came through the residual stream) to dx. */
static gidd_status norm_bwd(gidd_model *model, norm n, const void *dx_out, int accumulate)
{
    gidd_activations *a = model->activations;
    const gidd_rms_norm_bwd_args args = {
        .dx = a->dx,
        .dgain = gidd_model_grad(model, n.gain),
        .du = a->du,
        .dx_out = dx_out,
        .x_out = n.x_out,
        .rstd = n.rstd,
        .gain = gidd_model_master(model, n.gain),
        .rows = model->batch.B * model->batch.T,
        .cols = model->params->shape.D,
        .accumulate = accumulate,
    };
    return model->device->kernels->rms_norm_bwd(model->device, &args);
}

/* ---- Blocks ---------------------------------------------------------------------------------- */

static gidd_status attend(gidd_model *model, int64_t index)
{
    if (model->activations->cache != NULL) {
        return gidd_cache_attend(model, index);
    }
    return gidd_attention_of_block_fwd(model, &model->activations->blocks[index], GIDD_ATTENTION_CAUSAL);
}

static gidd_status block_fwd(gidd_model *model, int64_t index)
{
    const int64_t D = model->params->shape.D, F = gidd_model_mlp_width(&model->params->shape);
    const gidd_block *b = &model->activations->blocks[index];
    const gidd_product qkv = {.x = b->u1, .y = b->qkv, .w = b->qkv_w, .N = 3 * D, .K = D};
    const gidd_product out = {.x = b->attn, .y = b->attn_y, .w = b->out_w, .N = D, .K = D};
    const gidd_product gate_up = {.x = b->u2, .y = b->fc1, .w = b->fc1_w, .N = 2 * F, .K = D};
    const gidd_product down = {.x = b->gelu, .y = b->mlp_y, .w = b->fc2_w, .N = D, .K = F};
    const gidd_swiglu_fwd_args swiglu = {
        .y = b->gelu, .pre = b->fc1, .rows = model->batch.B * model->batch.T, .cols = F};
    GIDD_TRY(norm_fwd(model, norm_before(model, index)));
    GIDD_TRY(gidd_product_fwd(model, &qkv));
    GIDD_TRY(attend(model, index));
    GIDD_TRY(gidd_product_fwd(model, &out));
    GIDD_TRY(norm_fwd(model, norm_inside(model, index)));
    GIDD_TRY(gidd_product_fwd(model, &gate_up));
    GIDD_TRY(model->device->kernels->swiglu_fwd(model->device, &swiglu));
    return gidd_product_fwd(model, &down);
}

/* dx is the gradient of x2 + mlp_y on entry and of this block's x1 on return. */
static gidd_status block_bwd(gidd_model *model, int64_t index, int accumulate)
{
    const int64_t D = model->params->shape.D, F = gidd_model_mlp_width(&model->params->shape);
    gidd_activations *a = model->activations;
    const gidd_block *b = &a->blocks[index];
    const gidd_product_gradients down = {
        .dy = a->dx, .x = b->gelu, .dx = a->act, .w = b->fc2_w, .bias = -1, .N = D, .K = F};
    const gidd_swiglu_bwd_args swiglu = {.dpre = a->wide,
                                         .dy = a->act,
                                         .pre = b->fc1,
                                         .rows = model->batch.B * model->batch.T,
                                         .cols = F};
    const gidd_product_gradients gate_up = {
        .dy = a->wide, .x = b->u2, .dx = a->du, .w = b->fc1_w, .bias = -1, .N = 2 * F, .K = D};
    const gidd_product_gradients out = {
        .dy = a->dx, .x = b->attn, .dx = a->du, .w = b->out_w, .bias = -1, .N = D, .K = D};
    const gidd_product_gradients qkv = {
        .dy = a->wide, .x = b->u1, .dx = a->du, .w = b->qkv_w, .bias = -1, .N = 3 * D, .K = D};
    GIDD_TRY(gidd_product_bwd(model, &down, accumulate));
    GIDD_TRY(model->device->kernels->swiglu_bwd(model->device, &swiglu));
    GIDD_TRY(gidd_product_bwd(model, &gate_up, accumulate));
    GIDD_TRY(norm_bwd(model, norm_inside(model, index), a->dx, accumulate));
    GIDD_TRY(gidd_product_bwd(model, &out, accumulate));
    GIDD_TRY(gidd_attention_of_block_bwd(model, b, GIDD_ATTENTION_CAUSAL));
    GIDD_TRY(gidd_product_bwd(model, &qkv, accumulate));
    return norm_bwd(model, norm_before(model, index), a->dx, accumulate);
}

/* ---- The network ----------------------------------------------------------------------------- */

static gidd_status forward(gidd_model *model)
{
    GIDD_TRY(gidd_embedding_fwd(model));
    for (int64_t i = 0; i < model->params->shape.L; i++) {
        GIDD_TRY(block_fwd(model, i));
    }
    return GIDD_OK;
}

static gidd_status final_norm_fwd(gidd_model *model, int listed)
{
    if (listed) {
        return gidd_fail(GIDD_ERR_UNSUPPORTED, "an autoregressive model has no clean rows to skip");
    }
    return norm_fwd(model, norm_before(model, model->params->shape.L));
}

static gidd_status backward(gidd_model *model, int listed, const gidd_backward_args *args)
{
    const int64_t L = model->params->shape.L;
    (void)listed; // final_norm_fwd has refused it
    GIDD_TRY(norm_bwd(model, norm_before(model, L), NULL, args->accumulate));
    gidd_announce(args, 0);
    for (int64_t i = L - 1; i >= 0; i--) {
        GIDD_TRY(block_bwd(model, i, args->accumulate));
        gidd_announce(args, L - i);
    }
    GIDD_TRY(gidd_embedding_bwd(model, args->accumulate));
    gidd_announce(args, L + 1);
    return GIDD_OK;
}

const gidd_architecture gidd_architecture_decoder = {
    .plan = plan,
    .share = share,
    .forward = forward,
    .final_norm_fwd = final_norm_fwd,
    .backward = backward,
};
