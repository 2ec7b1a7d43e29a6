/* SPDX-License-Identifier: Apache-2.0 */
#include "model/cache.h"

#include "model/activations.h"
#include "model/architecture.h"

#include <stdlib.h>

static int64_t layer_elements(const gidd_cache *cache) // keys or values of a layer
{
    return cache->B * cache->T * cache->model->params->shape.D;
}

static size_t cache_bytes(const gidd_cache *cache)
{
    return (size_t)(2 * cache->model->params->shape.L * layer_elements(cache)) * sizeof(*cache->memory);
}

gidd_status gidd_cache_create(gidd_model *model, int64_t B, int64_t T, gidd_cache **cache_p)
{
    if (model->params->shape.type != GIDD_MODEL_AUTOREGRESSIVE || B < 1 || B > model->max_B || T < 1 ||
        T > model->max_T) {
        return gidd_fail(GIDD_ERR_ARG,
                         "keys of %lld sequences of %lld tokens, of an autoregressive model of at most %lld x %lld",
                         (long long)B, (long long)T, (long long)model->max_B, (long long)model->max_T);
    }
    gidd_cache *cache = calloc(1, sizeof(*cache));
    if (cache == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a cache of keys");
    }
    *cache = (gidd_cache){.model = model, .B = B, .T = T};
    void *memory = NULL;
    gidd_status status = gidd_device_alloc(model->device, cache_bytes(cache), "keys and values", &memory);
    if (status != GIDD_OK) {
        free(cache);
        return status;
    }
    cache->memory = memory;
    *cache_p = cache;
    return GIDD_OK;
}

void gidd_cache_destroy(gidd_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    gidd_device_free(cache->model->device, cache->memory, cache_bytes(cache));
    free(cache);
}

gidd_status gidd_cache_attend(gidd_model *model, int64_t layer)
{
    const gidd_cache *cache = model->activations->cache;
    const gidd_block *block = &model->activations->blocks[layer];
    const gidd_model_shape *s = &model->params->shape;
    const int64_t each = layer_elements(cache);
    const gidd_attention_step_args args = {
        .out = block->attn,
        .keys = cache->memory + 2 * layer * each,
        .values = cache->memory + (2 * layer + 1) * each,
        .qkv = block->qkv,
        .rope = model->activations->rope,
        .B = model->batch.B,
        .T = cache->T,
        .H = s->H,
        .d = s->D / s->H,
        .position = cache->position,
    };
    return model->device->kernels->attention_step(model->device, &args);
}

gidd_status gidd_cache_forward(gidd_cache *cache, int64_t position)
{
    gidd_model *model = cache->model;
    if (model->batch.B > cache->B || model->batch.T != 1 || position < 0 || position >= cache->T) {
        return gidd_fail(GIDD_ERR_ARG, "position %lld of %lld, a batch of %lld x %lld, at most %lld x 1",
                         (long long)position, (long long)cache->T, (long long)model->batch.B,
                         (long long)model->batch.T, (long long)cache->B);
    }
    cache->position = position;
    model->activations->cache = cache;
    gidd_status status = gidd_model_forward(model);
    model->activations->cache = NULL;
    return status;
}
