/* SPDX-License-Identifier: Apache-2.0
 *
 * The masters of a run that starts from a trained model: model.init_from, or the step 0 that an import made.
 */
#include "base/log.h"
#include "worker/model_source.h"
#include "worker/worker.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What may change between the model and the run: all that leaves tensors and ids as they are.
static int may_differ(const char *name)
{
    static const char *const free_keys[] = {"model.p_uniform", "model.context", "diffusion.process", "diffusion.t_eps"};
    for (size_t i = 0; i < sizeof free_keys / sizeof *free_keys; i++) {
        if (strcmp(name, free_keys[i]) == 0) {
            return 1;
        }
    }
    return 0;
}

static gidd_status compare_key(void *context, const char *name, gidd_config_class class, const char *before,
                               const char *after)
{
    gidd_worker *worker = context;
    size_t       used = strlen(worker->origin);
    (void)class;
    if (may_differ(name)) {
        (void)snprintf(worker->origin + used, sizeof worker->origin - used, "; %s %.40s, was %.40s", name, after, before);
        return GIDD_OK;
    }
    if (strncmp(name, "model.", 6) == 0 && strcmp(name, "model.init_from") != 0) {
        return gidd_fail(GIDD_ERR_CONFIG, "%s: %s: the model to start from has '%.100s', not '%.100s'",
                         gidd_config_place(worker->config, name), name, before, after);
    }
    return GIDD_OK;
}

static gidd_status compare_tokenizer(const gidd_worker *worker, const gidd_model_source *source)
{
    const gidd_data_info *info = gidd_data_set_info(worker->data);
    int                   is_other = source->base_ids != info->vocab_size;
    if (source->tokenizer_digest[0] != '\0') {
        is_other |= strcmp(source->tokenizer_digest, info->tokenizer_digest) != 0;
    }
    if (is_other) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s has a tokenizer of %d ids (digest %s), the run's data were made with another "
                         "(%d ids, %s)", source->path, (int)source->base_ids, source->tokenizer_digest,
                         (int)info->vocab_size, info->tokenizer_digest);
    }
    return GIDD_OK;
}

static gidd_status read_source(void *context, int64_t first, int64_t count, float *values)
{
    return gidd_model_source_read(context, first, count, values);
}

static gidd_status take_model(gidd_worker *worker, gidd_model_source *source)
{
    (void)snprintf(worker->origin, sizeof worker->origin, "%.300s, step %" PRId64, source->path, source->step);
    GIDD_TRY(compare_tokenizer(worker, source));
    GIDD_TRY(gidd_config_compare(&source->config, worker->config, compare_key, worker));
    if (worker->is_coordinator) {
        gidd_log(GIDD_LOG_INFO, "run", "starting from %s", worker->origin);
    }
    if (!worker->has_slice) {
        return GIDD_OK;
    }
    GIDD_TRY(gidd_worker_fill_section(worker, 0, read_source, source));
    return gidd_model_refresh(worker->model);
}

gidd_status gidd_worker_initialise(gidd_worker *worker, const char *path)
{
    gidd_model_source *source = calloc(1, sizeof *source);
    if (source == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to read a model");
    }
    gidd_status status = gidd_model_source_open(source, &(gidd_model_source_args){.path = path});
    if (status == GIDD_OK) {
        status = take_model(worker, source);
    }
    gidd_model_source_close(source);
    free(source);
    return status;
}
