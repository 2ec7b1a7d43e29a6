/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/optimizer.h"

#include <math.h>
#include <stdlib.h>

static int64_t partials_of(int64_t count)
{
    return (count + GIDD_NORM_CHUNK - 1) / GIDD_NORM_CHUNK;
}

static size_t moment_bytes(const gidd_optimizer *optimizer)
{
    return (size_t)optimizer->args.params->memory_count * sizeof(float);
}

static size_t partials_bytes(const gidd_optimizer *optimizer)
{
    return (size_t)optimizer->partial_count * sizeof(double);
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
    GIDD_TRY(gidd_device_alloc(device, partials_bytes(optimizer), "norm partials", &memory));
    optimizer->partials = memory;
    GIDD_TRY(gidd_device_alloc(device, sizeof(*optimizer->state), "update state", &memory));
    optimizer->state = memory;
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
    for (int64_t i = 0; i < args->params->bucket_count; i++) {
        optimizer->partial_count += partials_of(args->params->buckets[i].count);
    }
    gidd_status status = allocate(optimizer);
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
    gidd_device_free(device, optimizer->state, sizeof(*optimizer->state));
    gidd_device_free(device, optimizer->partials, partials_bytes(optimizer));
    gidd_device_free(device, optimizer->v, moment_bytes(optimizer));
    gidd_device_free(device, optimizer->m, moment_bytes(optimizer));
    free(optimizer);
}

gidd_status gidd_optimizer_set(gidd_optimizer *optimizer, int64_t k, double lr)
{
    const gidd_optimizer_args *args = &optimizer->args;
    const double count = (double)k + 1.0;
    optimizer->next = (gidd_update_state){
        .lr = (float)lr,
        .beta1 = (float)args->beta1,
        .beta2 = (float)args->beta2,
        .epsilon = (float)args->epsilon,
        .weight_decay = (float)args->weight_decay,
        .bias1 = (float)(1.0 - pow(args->beta1, count)),
        .bias2 = (float)(1.0 - pow(args->beta2, count)),
        .clip = (float)args->clip,
    };
    return gidd_device_copy_in(args->device, optimizer->state, &optimizer->next,
                               sizeof(optimizer->next));
}

static gidd_status norm_of_gradients(gidd_optimizer *optimizer, const gidd_model *model)
{
    gidd_device *device = optimizer->args.device;
    const gidd_kernels *k = device->kernels;
    double *partials = optimizer->partials;
    for (int64_t i = 0; i < model->params->bucket_count; i++) {
        const gidd_param_bucket *bucket = &model->params->buckets[i];
        const gidd_grad_norm_args args = {
            .partials = partials,
            .grads = model->grads + bucket->at,
            .count = bucket->count,
        };
        GIDD_TRY(k->grad_norm(device, &args));
        partials += partials_of(bucket->count);
    }
    const gidd_grad_norm_finish_args args = {
        .state = optimizer->state,
        .partials = optimizer->partials,
        .count = optimizer->partial_count,
    };
    return k->grad_norm_finish(device, &args);
}

gidd_status gidd_optimizer_update(gidd_optimizer *optimizer, gidd_model *model)
{
    GIDD_TRY(norm_of_gradients(optimizer, model));
    const gidd_adamw_args args = {
        .theta = model->master,
        .m = optimizer->m,
        .v = optimizer->v,
        .copy = model->weights != model->master ? model->weights : NULL,
        .grads = model->grads,
        .state = optimizer->state,
        .count = model->params->memory_count,
    };
    return optimizer->args.device->kernels->adamw(optimizer->args.device, &args);
}

gidd_status gidd_optimizer_step(gidd_optimizer *optimizer, gidd_model *model, int64_t k, double lr)
{
    GIDD_TRY(gidd_optimizer_set(optimizer, k, lr));
    return gidd_optimizer_update(optimizer, model);
}

gidd_status gidd_optimizer_read(gidd_optimizer *optimizer, double *norm_p, int *skipped_p)
{
    gidd_update_state state;
    GIDD_TRY(gidd_device_copy_out(optimizer->args.device, &state, optimizer->state, sizeof(state)));
    *norm_p = state.norm;
    *skipped_p = state.skip;
    return GIDD_OK;
}
