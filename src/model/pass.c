/* SPDX-License-Identifier: Apache-2.0
 *
 * A pass through any network: forward, the head with the loss, backward; and what may follow what.
 */
#include "model/architecture.h"

/* ---- Trunk ----------------------------------------------------------------------------------- */

const gidd_architecture *gidd_architecture_of(const gidd_model_shape *shape)
{
    return shape->type == GIDD_MODEL_AUTOREGRESSIVE ? &gidd_architecture_decoder : &gidd_architecture_dit;
}

gidd_status gidd_model_forward(gidd_model *model)
{
    if (model->batch.B == 0) {
        return gidd_fail(GIDD_ERR_ARG, "forward without a loaded batch");
    }
    GIDD_TRY(gidd_architecture_of(&model->params->shape)->forward(model));
    model->activations->stage = GIDD_STAGE_TRUNK;
    return GIDD_OK;
}

gidd_status gidd_embedding_fwd(gidd_model *model)
{
    gidd_activations *a = model->activations;
    const gidd_embed_fwd_args args = {
        .out = a->blocks[0].x1,
        .table = gidd_model_weight(model, a->embedding),
        .ids = model->batch.z,
        .rows = model->batch.B * model->batch.T,
        .cols = model->params->shape.D,
    };
    return model->device->kernels->embed_fwd(model->device, &args);
}

gidd_status gidd_embedding_bwd(gidd_model *model, int accumulate)
{
    gidd_activations *a = model->activations;
    const gidd_embed_bwd_args args = {
        .dtable = gidd_model_grad(model, a->embedding),
        .dout = a->dx,
        .sorted = model->batch.sorted,
        .chunks = model->batch.chunks,
        .chunk_count = model->batch.B * model->batch.T, // there are fewer: the kernel sees how many
        .counts = model->batch.counts,
        .table_rows = model->params->shape.Vr,
        .cols = model->params->shape.D,
        .accumulate = accumulate,
    };
    return model->device->kernels->embed_bwd(model->device, &args);
}

void gidd_announce(const gidd_backward_args *args, int64_t group)
{
    if (args->grads_ready != NULL) {
        args->grads_ready(args->context, (int32_t)group);
    }
}

gidd_status gidd_model_backward(gidd_model *model, const gidd_backward_args *args)
{
    gidd_activations *a = model->activations;
    const gidd_stage stage = a->stage;
    if (stage != GIDD_STAGE_DU && stage != GIDD_STAGE_DU_LISTED) {
        return gidd_fail(GIDD_ERR_ARG, "backward without a training head before it");
    }
    a->stage = GIDD_STAGE_NONE;
    const gidd_architecture *architecture = gidd_architecture_of(&model->params->shape);
    return architecture->backward(model, stage == GIDD_STAGE_DU_LISTED, args);
}

/* ---- Head ------------------------------------------------------------------------------------ */

static size_t u_bytes(const gidd_model *model, int64_t rows)
{
    return (size_t)(rows * model->params->shape.D) * gidd_dtype_bytes(model->device->dtype);
}

/* The last norm, once a forward: with a list, u_final gets the listed rows only. */
static gidd_status final_norm_fwd(gidd_model *model, int listed)
{
    gidd_activations *a = model->activations;
    if (a->stage == GIDD_STAGE_NORMED && !listed) {
        return GIDD_OK;
    }
    if (a->stage != GIDD_STAGE_TRUNK) {
        return gidd_fail(GIDD_ERR_ARG, "the head needs a forward of its own");
    }
    if (listed) { // the norm writes no row beyond the list, and the products read some
        GIDD_TRY(gidd_device_zero(model->device, a->u_final, u_bytes(model, model->listed_rows)));
    }
    GIDD_TRY(gidd_architecture_of(&model->params->shape)->final_norm_fwd(model, listed));
    a->stage = listed ? GIDD_STAGE_NORMED_LISTED : GIDD_STAGE_NORMED;
    return GIDD_OK;
}

/* Row `row` of a [rows][D] buffer of activations. */
static void *row_of(const gidd_model *model, void *buffer, int64_t row)
{
    size_t bytes = gidd_dtype_bytes(model->device->dtype) * (size_t)model->params->shape.D;
    return (char *)buffer + (size_t)row * bytes;
}

static gidd_status logits_fwd(gidd_model *model, int64_t first, int64_t rows)
{
    gidd_activations *a = model->activations;
    const gidd_model_shape *s = &model->params->shape;
    const gidd_linear_fwd_args args = {
        .y = a->logits,
        .x = row_of(model, a->u_final, first),
        .w = gidd_model_weight(model, a->head_w),
        .bias = a->head_b < 0 ? NULL : gidd_model_weight(model, a->head_b),
        .M = rows,
        .N = s->Vr,
        .K = s->D,
        .dtype = model->device->dtype,
        .epilogue = a->head_b < 0 ? GIDD_LINEAR_NONE : GIDD_LINEAR_BIAS,
    };
    return model->device->kernels->linear_fwd(model->device, &args);
}

static gidd_status loss_of_rows(gidd_model *model, const gidd_head_args *args, int64_t first,
                                int64_t rows)
{
    const gidd_kernels *k = model->device->kernels;
    const gidd_batch *batch = &model->batch;
    const gidd_model_shape *s = &model->params->shape;
    const gidd_loss_args loss = {
        .logits = model->activations->logits,
        .terms = model->terms,
        .x = batch->x,
        .z = batch->z,
        .attention_mask = batch->attention_mask,
        .row_list = args->skip_clean ? batch->rows + first : NULL,
        .first_position = first,
        .coef = batch->coef,
        .rows = rows,
        .T = batch->T,
        .V = s->V,
        .Vr = s->Vr,
        .mask_id = s->mask_id,
        .scale = args->scale,
        .mode = args->mode,
    };
    switch (model->loss) {
    case GIDD_LOSS_MDLM:
        return k->loss_mdlm(model->device, &loss);
    case GIDD_LOSS_NEXT:
        return k->loss_next(model->device, &loss);
    case GIDD_LOSS_GIDD:
        break;
    }
    return k->loss_gidd(model->device, &loss);
}

/* From dlogits of rows [first, first + rows): gradients of the output matrix, and du. */
static gidd_status logits_bwd(gidd_model *model, int64_t first, int64_t rows, int accumulate)
{
    gidd_activations *a = model->activations;
    const gidd_kernels *k = model->device->kernels;
    const gidd_model_shape *s = &model->params->shape;
    const gidd_dtype E = model->device->dtype;
    const gidd_linear_bwd_weight_args weight = {
        .dw = gidd_model_grad(model, a->head_w),
        .dbias = a->head_b < 0 ? NULL : gidd_model_grad(model, a->head_b),
        .dy = a->logits,
        .x = row_of(model, a->u_final, first),
        .M = rows,
        .N = s->Vr,
        .K = s->D,
        .dtype = E,
        .accumulate = accumulate,
    };
    GIDD_TRY(k->linear_bwd_weight(model->device, &weight));
    const gidd_linear_bwd_data_args data = {
        .dx = row_of(model, a->du, first),
        .dy = a->logits,
        .w = gidd_model_weight(model, a->head_w),
        .M = rows,
        .N = s->Vr,
        .K = s->D,
        .dtype = E,
    };
    return k->linear_bwd_data(model->device, &data);
}

/* Without a row nothing writes the gradients of the output matrix, so zeros must. */
static gidd_status zero_head_gradients(gidd_model *model)
{
    gidd_activations *a = model->activations;
    const gidd_model_shape *s = &model->params->shape;
    GIDD_TRY(gidd_device_zero(model->device, gidd_model_grad(model, a->head_w),
                              (size_t)(s->Vr * s->D) * sizeof(float)));
    if (a->head_b < 0) {
        return GIDD_OK;
    }
    return gidd_device_zero(model->device, gidd_model_grad(model, a->head_b),
                            (size_t)s->Vr * sizeof(float));
}

int64_t gidd_model_head_rows(const gidd_model *model, int skip_clean)
{
    return skip_clean ? model->listed_rows : model->batch.B * model->batch.T;
}

/* Forward, loss and in training backward of rows [first, first + rows). */
static gidd_status head_chunk(gidd_model *model, const gidd_head_args *args, int64_t first, int64_t rows)
{
    GIDD_TRY(logits_fwd(model, first, rows));
    GIDD_TRY(loss_of_rows(model, args, first, rows));
    if (args->mode != GIDD_LOSS_TRAIN) {
        return GIDD_OK;
    }
    return logits_bwd(model, first, rows, args->accumulate || first > 0);
}

static gidd_status sum_losses(gidd_model *model, int skip_clean)
{
    const gidd_batch *batch = &model->batch;
    const gidd_loss_sums_args args = {
        .sums = model->sums,
        .terms = model->terms,
        .x = batch->x,
        .z = batch->z,
        .attention_mask = batch->attention_mask,
        .coef = batch->coef,
        .B = batch->B,
        .T = batch->T,
        .mask_id = model->params->shape.mask_id,
        .skip_clean = skip_clean,
    };
    return model->device->kernels->loss_sums(model->device, &args);
}

gidd_status gidd_model_head(gidd_model *model, const gidd_head_args *args)
{
    const int train = args->mode == GIDD_LOSS_TRAIN;
    const int64_t all = model->batch.B * model->batch.T;
    const int64_t rows = args->skip_clean ? model->listed_rows : all;
    if (train && model->mode != GIDD_MODEL_TRAIN) {
        return gidd_fail(GIDD_ERR_ARG, "a model without gradients cannot train its head");
    }
    GIDD_TRY(final_norm_fwd(model, args->skip_clean));
    for (int64_t first = 0; first < rows; first += model->head_rows) {
        const int64_t left = rows - first,
                      chunk = left < model->head_rows ? left : model->head_rows;
        GIDD_TRY(head_chunk(model, args, first, chunk));
        if (args->chunk_done != NULL) {
            args->chunk_done(args->context);
        }
    }
    if (train && rows == 0 && !args->accumulate) {
        GIDD_TRY(zero_head_gradients(model));
    }
    if (train) {
        model->activations->stage = args->skip_clean ? GIDD_STAGE_DU_LISTED : GIDD_STAGE_DU;
    }
    return sum_losses(model, args->skip_clean);
}

gidd_status gidd_model_logits(gidd_model *model, int64_t first, int64_t rows, void **logits_p)
{
    const int64_t all = model->batch.B * model->batch.T;
    if (first < 0 || rows < 1 || rows > model->head_rows || first + rows > all) {
        return gidd_fail(GIDD_ERR_ARG, "logits of positions %lld + %lld of %lld, %lld at once",
                         (long long)first, (long long)rows, (long long)all,
                         (long long)model->head_rows);
    }
    GIDD_TRY(final_norm_fwd(model, 0));
    GIDD_TRY(logits_fwd(model, first, rows));
    *logits_p = model->activations->logits;
    return GIDD_OK;
}
