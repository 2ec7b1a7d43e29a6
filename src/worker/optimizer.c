/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/optimizer.h"

#include "kernels/stream.h"

#include <math.h>
#include <stdlib.h>

enum { NUMBERS_KEPT = 4 }; // the host is never so many steps ahead of the device

static size_t moment_bytes(const gidd_optimizer *optimizer)
{
    return (size_t)optimizer->slice->own_count * sizeof(float);
}

static size_t partials_bytes(const gidd_optimizer *optimizer)
{
    return (size_t)optimizer->slice->chunk_count * sizeof(double);
}

static gidd_status allocate(gidd_optimizer *optimizer)
{
    gidd_device *device = optimizer->args.device;
    const size_t bytes = moment_bytes(optimizer);
    void *memory = NULL;
    GIDD_TRY(gidd_device_alloc(device, bytes, "first moments", &memory));
    optimizer->m = memory;
    GIDD_TRY(gidd_device_alloc(device, bytes, "second moments", &memory));
    optimizer->v = memory;
    if (optimizer->args.ema_decay > 0) {
        GIDD_TRY(gidd_device_alloc(device, bytes, "running average", &memory));
        optimizer->average = memory;
        GIDD_TRY(gidd_device_zero(device, optimizer->average, bytes));
    }
    GIDD_TRY(gidd_device_alloc(device, partials_bytes(optimizer), "norm partials", &memory));
    optimizer->partials = memory;
    GIDD_TRY(gidd_device_alloc(device, sizeof(*optimizer->state), "update state", &memory));
    optimizer->state = memory;
    GIDD_TRY(gidd_device_host_alloc(device, NUMBERS_KEPT * sizeof(*optimizer->sent), "step numbers", &memory));
    optimizer->sent = memory;
    GIDD_TRY(gidd_device_zero(device, optimizer->m, bytes));
    GIDD_TRY(gidd_device_zero(device, optimizer->v, bytes));
    return gidd_device_zero(device, optimizer->state, sizeof(*optimizer->state));
}

gidd_status gidd_optimizer_create(const gidd_optimizer_args *args, gidd_optimizer **optimizer_p)
{
    gidd_optimizer *optimizer = calloc(1, sizeof(*optimizer));
    if (optimizer == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for an optimizer");
    }
    optimizer->args = *args;
    optimizer->slice = args->slice != NULL ? args->slice : &optimizer->whole;
    gidd_status status =
        args->slice != NULL ? GIDD_OK : gidd_slice_init(&optimizer->whole, args->params, 0, 1);
    if (status == GIDD_OK) {
        status = allocate(optimizer);
    }
    if (status != GIDD_OK) {
        gidd_optimizer_destroy(optimizer);
        return status;
    }
    *optimizer_p = optimizer;
    return GIDD_OK;
}

void gidd_optimizer_destroy(gidd_optimizer *optimizer)
{
    if (optimizer == NULL) {
        return;
    }
    gidd_device *device = optimizer->args.device;
    gidd_device_host_free(device, optimizer->sent);
    gidd_device_free(device, optimizer->state, sizeof(*optimizer->state));
    gidd_device_free(device, optimizer->partials, partials_bytes(optimizer));
    gidd_device_free(device, optimizer->average, optimizer->average != NULL ? moment_bytes(optimizer) : 0);
    gidd_device_free(device, optimizer->v, moment_bytes(optimizer));
    gidd_device_free(device, optimizer->m, moment_bytes(optimizer));
    gidd_slice_release(&optimizer->whole);
    free(optimizer);
}

gidd_status gidd_optimizer_set(gidd_optimizer *optimizer, int64_t k, double lr)
{
    const gidd_optimizer_args *args = &optimizer->args;
    const double count = (double)k + 1.0;
    gidd_update_state *next = &optimizer->sent[optimizer->sent_count++ % NUMBERS_KEPT];
    *next = (gidd_update_state){
        .lr = (float)lr,
        .beta1 = (float)args->beta1,
        .beta2 = (float)args->beta2,
        .epsilon = (float)args->epsilon,
        .weight_decay = (float)args->weight_decay,
        .bias1 = (float)(1.0 - pow(args->beta1, count)),
        .bias2 = (float)(1.0 - pow(args->beta2, count)),
        .clip = (float)args->clip,
    };
    return gidd_stream_copy_in(args->device, GIDD_STREAM_MAIN, optimizer->state, next, sizeof(*next));
}

gidd_status gidd_optimizer_norm(gidd_optimizer *optimizer, gidd_model *model)
{
    gidd_device      *device = optimizer->args.device;
    const gidd_slice *slice = optimizer->slice;
    if (!slice->is_whole) {
        GIDD_TRY(gidd_device_zero(device, optimizer->partials, partials_bytes(optimizer)));
    }
    for (int64_t i = 0; i < slice->part_count; i++) {
        const gidd_slice_part    *part = &slice->parts[i];
        const gidd_grad_norm_args args = {
            .partials = optimizer->partials + part->chunk,
            .grads = model->grads + part->at,
            .count = part->used,
        };
        GIDD_TRY(device->kernels->grad_norm(device, &args));
    }
    return GIDD_OK;
}

static gidd_status adamw_of_part(gidd_optimizer *optimizer, gidd_model *model, const gidd_slice_part *part)
{
    gidd_device *device = optimizer->args.device;
    const size_t element = gidd_dtype_bytes(device->dtype);
    const gidd_adamw_args args = {
        .theta = gidd_model_own_master(model, part),
        .m = optimizer->m + part->own,
        .v = optimizer->v + part->own,
        .copy = model->weights != model->master ? (char *)model->weights + (size_t)part->at * element : NULL,
        .grads = model->grads + part->at,
        .state = optimizer->state,
        .count = part->count,
    };
    return device->kernels->adamw(device, &args);
}

// average = decay average + (1 - decay) master, of every part.
static gidd_status average_parts(gidd_optimizer *optimizer, const gidd_model *model, double decay)
{
    gidd_device *device = optimizer->args.device;
    for (int64_t i = 0; i < optimizer->slice->part_count; i++) {
        const gidd_slice_part *part = &optimizer->slice->parts[i];
        const gidd_ema_args    args = {
            .average = optimizer->average + part->own,
            .theta = gidd_model_own_master(model, part),
            .state = optimizer->state,
            .decay = (float)decay,
            .count = part->count,
        };
        GIDD_TRY(device->kernels->ema(device, &args));
    }
    return GIDD_OK;
}

gidd_status gidd_optimizer_start_average(gidd_optimizer *optimizer, const gidd_model *model)
{
    gidd_device *device = optimizer->args.device;
    if (optimizer->average == NULL) {
        return GIDD_OK;
    }
    GIDD_TRY(gidd_device_zero(device, optimizer->state, sizeof(*optimizer->state))); // skips nothing
    GIDD_TRY(gidd_device_zero(device, optimizer->average, moment_bytes(optimizer)));
    return average_parts(optimizer, model, 0.0);
}

gidd_status gidd_optimizer_apply(gidd_optimizer *optimizer, gidd_model *model)
{
    gidd_device                     *device = optimizer->args.device;
    const gidd_grad_norm_finish_args args = {
        .state = optimizer->state,
        .partials = optimizer->partials,
        .count = optimizer->slice->chunk_count,
    };
    GIDD_TRY(device->kernels->grad_norm_finish(device, &args));
    for (int64_t i = 0; i < optimizer->slice->part_count; i++) {
        GIDD_TRY(adamw_of_part(optimizer, model, &optimizer->slice->parts[i]));
    }
    return optimizer->average != NULL ? average_parts(optimizer, model, optimizer->args.ema_decay) : GIDD_OK;
}

gidd_status gidd_optimizer_step(gidd_optimizer *optimizer, gidd_model *model, int64_t k, double lr)
{
    GIDD_ASSERT(optimizer->slice->is_whole);
    GIDD_TRY(gidd_optimizer_set(optimizer, k, lr));
    GIDD_TRY(gidd_optimizer_norm(optimizer, model));
    return gidd_optimizer_apply(optimizer, model);
}

gidd_status gidd_optimizer_read(gidd_optimizer *optimizer, double *norm_p, int *skipped_p)
{
    gidd_update_state state;
    GIDD_TRY(gidd_device_copy_out(optimizer->args.device, &state, optimizer->state, sizeof(state)));
    *norm_p = state.norm;
    *skipped_p = state.skip;
    return GIDD_OK;
}
