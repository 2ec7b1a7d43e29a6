/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/model_source.h"

#include "worker/resolve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static gidd_status refuse_model_change(void *context, const char *name, gidd_config_class class, const char *before,
                                       const char *after)
{
    (void)context;
    if (class == GIDD_CONFIG_IDENTITY && strncmp(name, "model.", 6) == 0) {
        return gidd_fail(GIDD_ERR_CONFIG, "command line: %s: the model has '%s', not '%s'", name, before, after);
    }
    return GIDD_OK;
}

static gidd_status apply_overrides(gidd_config *config, const gidd_cli *cli)
{
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
        status = gidd_config_compare(before, config, refuse_model_change, NULL);
    }
    free(before);
    return status == GIDD_OK ? gidd_config_check(config) : status;
}

// Everything that follows from configuration and vocabulary.
static gidd_status finish_opening(gidd_model_source *source, const gidd_cli *cli)
{
    GIDD_TRY(apply_overrides(&source->config, cli));
    source->vocab = gidd_resolve_vocab(&source->config, source->base_ids);
    gidd_model_shape shape = gidd_resolve_shape(&source->config, source->base_ids);
    return gidd_params_init(&source->params, &shape, SIZE_MAX / 8, 1);
}

/* ---- checkpoints ------------------------------------------------------------------------------------- */

static gidd_status read_fields(gidd_model_source *source, const gidd_checkpoint_fields *fields)
{
    const char *config = gidd_checkpoint_text_find(fields->texts, fields->text_count, "config");
    const char *base = gidd_checkpoint_text_find(fields->texts, fields->text_count, "base_ids");
    const char *tokenizer = gidd_checkpoint_text_find(fields->texts, fields->text_count, "tokenizer_digest");
    int         base_ids = base != NULL ? atoi(base) : 0;
    if (config == NULL || tokenizer == NULL || base_ids < 1 || base_ids > 65535) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s does not say its configuration and vocabulary", source->path);
    }
    const char *imported = gidd_checkpoint_text_find(fields->texts, fields->text_count, "imported_step");
    source->step = fields->step == 0 && imported != NULL ? atoll(imported) : fields->step;
    source->base_ids = base_ids;
    (void)snprintf(source->tokenizer_digest, sizeof source->tokenizer_digest, "%s", tokenizer);
    return gidd_config_parse(&source->config, "checkpoint's config", config, strlen(config));
}

static gidd_status open_checkpoint(gidd_model_source *source, const gidd_model_source_args *args)
{
    if (args->cli != NULL && args->cli->config_path != NULL) {
        return gidd_fail(GIDD_ERR_USAGE, "a checkpoint has its own configuration: give section.key=value instead of --config");
    }
    GIDD_TRY(gidd_checkpoint_open(args->path, &source->checkpoint));
    (void)snprintf(source->path, sizeof source->path, "%s", gidd_checkpoint_path_of(source->checkpoint));
    GIDD_TRY(read_fields(source, gidd_checkpoint_fields_of(source->checkpoint)));
    GIDD_TRY(finish_opening(source, args->cli));
    const gidd_checkpoint_layout *layout = gidd_checkpoint_layout_of(source->checkpoint);
    source->section = gidd_checkpoint_section(layout, args->weights == GIDD_MODEL_AVERAGE ? "ema" : "master");
    if (source->section < 0 && args->weights == GIDD_MODEL_AVERAGE) {
        return gidd_fail(GIDD_ERR_USAGE, "%s has no running average: optimizer.ema_decay was 0", source->path);
    }
    if (source->section < 0 || layout->elements != source->params.count) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s does not hold the parameters of its configuration", source->path);
    }
    return GIDD_OK;
}

/* ---- published models -------------------------------------------------------------------------------- */

static gidd_status open_published(gidd_model_source *source, const gidd_model_source_args *args)
{
    if (args->weights == GIDD_MODEL_AVERAGE) {
        return gidd_fail(GIDD_ERR_USAGE, "%s is a published model: it has one set of parameters, no running average", args->path);
    }
    const gidd_cli file_only = {.config_path = args->cli != NULL ? args->cli->config_path : NULL};
    if (args->cli != NULL) { // the overrides come last, over config.json
        GIDD_TRY(gidd_cli_load(&file_only, 0, &source->config));
    }
    GIDD_TRY(gidd_published_open(args->path, &source->config, &source->published));
    (void)snprintf(source->path, sizeof source->path, "%s", gidd_safetensors_path(source->published.file));
    source->step = source->published.step;
    source->base_ids = source->published.base_ids;
    memcpy(source->tokenizer_digest, source->published.tokenizer_digest, sizeof source->tokenizer_digest);
    GIDD_TRY(finish_opening(source, args->cli));
    return gidd_published_check(&source->published, &source->params);
}

/* ---- both -------------------------------------------------------------------------------------------- */

gidd_status gidd_model_source_open(gidd_model_source *source, const gidd_model_source_args *args)
{
    memset(source, 0, sizeof *source);
    gidd_config_init(&source->config);
    return gidd_published_looks_like(args->path) ? open_published(source, args) : open_checkpoint(source, args);
}

void gidd_model_source_close(gidd_model_source *source)
{
    gidd_checkpoint_close(source->checkpoint);
    gidd_published_close(&source->published);
    gidd_params_release(&source->params);
    source->checkpoint = NULL;
}

gidd_status gidd_model_source_read(gidd_model_source *source, int64_t first, int64_t count, float *values)
{
    return source->checkpoint != NULL ? gidd_checkpoint_read(source->checkpoint, source->section, first, count, values)
                                      : gidd_published_read(&source->published, &source->params, first, count, values);
}
