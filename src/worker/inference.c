/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/inference.h"

#include "worker/model_source.h"
#include "worker/resolve.h"

#include <stdlib.h>
#include <string.h>

enum { STAGING_ELEMENTS = 1 << 20 };

static gidd_status read_parameters(gidd_inference *inference, gidd_model_source *source)
{
    float *staging = malloc(STAGING_ELEMENTS * sizeof *staging);
    if (staging == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to read a model");
    }
    // one bucket: memory order is flat order
    gidd_status status = GIDD_OK;
    for (int64_t at = 0; status == GIDD_OK && at < inference->params.count; at += STAGING_ELEMENTS) {
        int64_t count = inference->params.count - at;
        count = count < STAGING_ELEMENTS ? count : STAGING_ELEMENTS;
        status = gidd_model_source_read(source, at, count, staging);
        if (status == GIDD_OK) {
            status = gidd_device_copy_in(inference->device, inference->model->master + at, staging,
                                         (size_t)count * sizeof *staging);
        }
        if (status == GIDD_OK) {
            status = gidd_device_synchronize(inference->device); // staging is used again
        }
    }
    free(staging);
    return status == GIDD_OK ? gidd_model_refresh(inference->model) : status;
}

static void take_description(gidd_inference *inference, gidd_model_source *source)
{
    inference->config = source->config;
    inference->step = source->step;
    inference->base_ids = source->base_ids;
    inference->vocab = source->vocab;
    memcpy(inference->path, source->path, sizeof inference->path);
    memcpy(inference->tokenizer_digest, source->tokenizer_digest, sizeof inference->tokenizer_digest);
    inference->params = source->params; // ours from now on; the source reads by them until it is closed
}

static gidd_status create_model(gidd_inference *inference, const gidd_inference_args *args)
{
    gidd_schedule_args schedule = gidd_resolve_schedule(&inference->config, &inference->vocab);
    GIDD_TRY(gidd_schedule_init(&inference->schedule, &schedule));
    GIDD_TRY(gidd_resolve_device(&inference->config, args->node_rank, args->node_size, &inference->device));
    return gidd_model_create(&(gidd_model_args){.device = inference->device,
                                                .params = &inference->params,
                                                .mode = GIDD_MODEL_INFER,
                                                .loss = gidd_resolve_loss(&inference->config),
                                                .max_B = args->max_B,
                                                .max_T = inference->config.model.context},
                             &inference->model);
}

gidd_status gidd_inference_open(gidd_inference *inference, const gidd_inference_args *args)
{
    memset(inference, 0, sizeof *inference);
    gidd_model_source *source = calloc(1, sizeof *source);
    if (source == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a model");
    }
    gidd_status status =
        gidd_model_source_open(source, &(gidd_model_source_args){.path = args->model, .weights = args->weights, .cli = args->cli});
    if (status == GIDD_OK) {
        take_description(inference, source);
        status = create_model(inference, args);
    }
    if (status == GIDD_OK) {
        status = read_parameters(inference, source);
    }
    if (inference->params.tensors != NULL) {
        memset(&source->params, 0, sizeof source->params);
    }
    gidd_model_source_close(source);
    free(source);
    return status;
}

void gidd_inference_close(gidd_inference *inference)
{
    gidd_model_destroy(inference->model);
    gidd_device_close(inference->device);
    gidd_params_release(&inference->params);
    inference->model = NULL;
    inference->device = NULL;
}

gidd_status gidd_inference_check_tokenizer(const gidd_inference *inference, const char *what, const char *digest,
                                           int32_t base_ids)
{
    const char *mine = inference->tokenizer_digest;
    if (base_ids != inference->base_ids) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s has a tokenizer of %d ids, the model %s one of %d", what, (int)base_ids,
                         inference->path, (int)inference->base_ids);
    }
    if (mine[0] != '\0' && strcmp(mine, digest) != 0) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s has another tokenizer (digest %s) than the model was trained with (%s): its "
                         "results would mean nothing", what, digest, mine);
    }
    return GIDD_OK;
}
