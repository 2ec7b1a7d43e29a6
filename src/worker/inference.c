/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/inference.h"

#include "io/checkpoint.h"
#include "worker/resolve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STAGING_ELEMENTS = 1 << 20 };

static gidd_status refuse_shape_change(void *context, const char *name, gidd_config_class class, const char *before,
                                       const char *after)
{
    (void)context;
    if (class == GIDD_CONFIG_IDENTITY && strncmp(name, "model.", 6) == 0) {
        return gidd_fail(GIDD_ERR_CONFIG, "command line: %s: the checkpoint's model has '%s', not '%s'", name, before, after);
    }
    return GIDD_OK;
}

// The checkpoint's configuration, then overrides.
static gidd_status read_config(gidd_inference *inference, const gidd_cli *cli, const char *text)
{
    gidd_config *config = &inference->config;
    gidd_config_init(config);
    GIDD_TRY(gidd_config_parse(config, "checkpoint's config", text, strlen(text)));
    gidd_config *before = malloc(sizeof *before);
    if (before == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a configuration");
    }
    *before = *config;
    gidd_status status = GIDD_OK;
    for (int i = 0; cli != NULL && status == GIDD_OK && i < cli->override_count; i++) {
        status = gidd_config_override(config, cli->overrides[i]);
    }
    if (status == GIDD_OK) {
        status = gidd_config_compare(before, config, refuse_shape_change, NULL);
    }
    free(before);
    return status == GIDD_OK ? gidd_config_check(config) : status;
}

static gidd_status read_fields(gidd_inference *inference, const gidd_checkpoint_fields *fields, const gidd_cli *cli)
{
    const char *config = gidd_checkpoint_text_find(fields->texts, fields->text_count, "config");
    const char *base = gidd_checkpoint_text_find(fields->texts, fields->text_count, "base_ids");
    const char *tokenizer = gidd_checkpoint_text_find(fields->texts, fields->text_count, "tokenizer_digest");
    int         base_ids = base != NULL ? atoi(base) : 0;
    if (config == NULL || tokenizer == NULL || base_ids < 1 || base_ids > 65535) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s does not say its configuration and vocabulary", inference->path);
    }
    GIDD_TRY(read_config(inference, cli, config));
    inference->step = fields->step;
    inference->vocab = gidd_vocab_of(base_ids);
    (void)snprintf(inference->tokenizer_digest, sizeof inference->tokenizer_digest, "%s", tokenizer);
    gidd_schedule_args schedule = gidd_resolve_schedule(&inference->config, &inference->vocab);
    GIDD_TRY(gidd_schedule_init(&inference->schedule, &schedule));
    gidd_model_shape shape = gidd_resolve_shape(&inference->config, base_ids);
    return gidd_params_init(&inference->params, &shape, SIZE_MAX / 8, 1);
}

static gidd_status read_parameters(gidd_inference *inference, gidd_checkpoint *checkpoint)
{
    int master = gidd_checkpoint_section(gidd_checkpoint_layout_of(checkpoint), "master");
    if (master < 0 || gidd_checkpoint_layout_of(checkpoint)->elements != inference->params.count) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s does not hold the parameters of its configuration", inference->path);
    }
    float *staging = malloc(STAGING_ELEMENTS * sizeof *staging);
    if (staging == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to read a checkpoint");
    }
    // one bucket: memory order is flat order
    gidd_status status = GIDD_OK;
    for (int64_t at = 0; status == GIDD_OK && at < inference->params.count; at += STAGING_ELEMENTS) {
        int64_t count = inference->params.count - at;
        count = count < STAGING_ELEMENTS ? count : STAGING_ELEMENTS;
        status = gidd_checkpoint_read(checkpoint, master, at, count, staging);
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

gidd_status gidd_inference_open(gidd_inference *inference, const gidd_inference_args *args)
{
    gidd_checkpoint *checkpoint = NULL;
    memset(inference, 0, sizeof *inference);
    GIDD_TRY(gidd_checkpoint_open(args->checkpoint, &checkpoint));
    (void)snprintf(inference->path, sizeof inference->path, "%s", gidd_checkpoint_path_of(checkpoint));
    gidd_status status = read_fields(inference, gidd_checkpoint_fields_of(checkpoint), args->cli);
    if (status == GIDD_OK) {
        status = gidd_resolve_device(&inference->config, args->node_rank, args->node_size, &inference->device);
    }
    if (status == GIDD_OK) {
        int is_mdlm = inference->config.diffusion.process == GIDD_CONFIG_MDLM;
        status = gidd_model_create(&(gidd_model_args){.device = inference->device,
                                                      .params = &inference->params,
                                                      .mode = GIDD_MODEL_INFER,
                                                      .loss = is_mdlm ? GIDD_LOSS_MDLM : GIDD_LOSS_GIDD,
                                                      .max_B = args->max_B,
                                                      .max_T = inference->config.model.context},
                                   &inference->model);
    }
    if (status == GIDD_OK) {
        status = read_parameters(inference, checkpoint);
    }
    gidd_checkpoint_close(checkpoint);
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
