/* SPDX-License-Identifier: Apache-2.0 */
#include "model/ancestral.h"

#include "base/rng.h"
#include "diffusion/vocab.h"
#include "model/cache.h"

#include <stdlib.h>
#include <string.h>

enum { POSITION_BITS = 20 };

struct gidd_ancestral {
    gidd_ancestral_args args;
    gidd_vocab vocab;
    gidd_cache *cache;
    gidd_batch batch; /* [max_B][1] */
    void *batch_memory;
    double *uniform, *entropy;           /* [max_B] */
    int32_t *drawn, *masks;              /* [max_B] */
    uint8_t *done;                       /* [max_B] EOS has come */
    double *device_uniform, *device_entropy; /* on the device */
    int32_t *device_drawn, *device_masks;
};

static size_t device_bytes(const gidd_ancestral *a)
{
    return (size_t)a->args.model->max_B * 2 * (sizeof(double) + sizeof(int32_t));
}

static gidd_status allocate(gidd_ancestral *a)
{
    gidd_model *model = a->args.model;
    const size_t B = (size_t)model->max_B;
    const size_t batch_bytes = (gidd_batch_bytes(model->max_B, 1) + 63) / 64 * 64;
    void *memory = NULL;
    GIDD_TRY(gidd_cache_create(model, model->max_B, a->args.T, &a->cache));
    GIDD_TRY(gidd_device_alloc(model->device, device_bytes(a), "sampler", &memory));
    a->device_uniform = memory;
    a->device_entropy = a->device_uniform + B;
    a->device_drawn = (int32_t *)(void *)(a->device_entropy + B);
    a->device_masks = a->device_drawn + B;
    a->batch_memory = aligned_alloc(64, batch_bytes);
    a->uniform = calloc(B, sizeof(*a->uniform));
    a->entropy = calloc(B, sizeof(*a->entropy));
    a->drawn = calloc(B, sizeof(*a->drawn));
    a->masks = calloc(B, sizeof(*a->masks));
    a->done = calloc(B, sizeof(*a->done));
    if (a->batch_memory == NULL || a->uniform == NULL || a->entropy == NULL || a->drawn == NULL || a->masks == NULL || a->done == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to sample %zu sequences", B);
    }
    memset(a->batch_memory, 0, batch_bytes);
    for (size_t b = 0; b < B; b++) {
        a->masks[b] = a->vocab.mask;
    }
    return gidd_device_copy_in(model->device, a->device_masks, a->masks, B * sizeof(*a->masks));
}

gidd_status gidd_ancestral_create(const gidd_ancestral_args *args, gidd_ancestral **ancestral_p)
{
    if (args->T < 1 || args->T > args->model->max_T || args->T >= (int64_t)1 << POSITION_BITS ||
        !(args->temperature > 0.0) || !(args->min_p >= 0.0 && args->min_p < 1.0)) {
        return gidd_fail(GIDD_ERR_ARG, "samples of %lld tokens, at most %lld, at temperature %g with min_p %g",
                         (long long)args->T, (long long)args->model->max_T, args->temperature, args->min_p);
    }
    gidd_ancestral *a = calloc(1, sizeof(*a));
    if (a == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a sampler");
    }
    a->args = *args;
    a->vocab = gidd_vocab_of((int32_t)(args->model->params->shape.V - 2));
    gidd_status status = allocate(a);
    if (status != GIDD_OK) {
        gidd_ancestral_destroy(a);
        return status;
    }
    *ancestral_p = a;
    return GIDD_OK;
}

void gidd_ancestral_destroy(gidd_ancestral *a)
{
    if (a == NULL) {
        return;
    }
    gidd_cache_destroy(a->cache);
    if (a->device_uniform != NULL) {
        gidd_device_free(a->args.model->device, a->device_uniform, device_bytes(a));
    }
    free(a->batch_memory);
    free(a->uniform);
    free(a->entropy);
    free(a->drawn);
    free(a->masks);
    free(a->done);
    free(a);
}

/* The distribution of the next token is MDLM's posterior of a masked position that is unmasked for sure. */
static gidd_status draw_rows(gidd_ancestral *a, int64_t first, int64_t rows)
{
    gidd_model *model = a->args.model;
    const gidd_model_shape *s = &model->params->shape;
    void *logits = NULL;
    GIDD_TRY(gidd_model_logits(model, first, rows, &logits));
    const gidd_sample_step_args args = {
        .z_out = a->device_drawn + first,
        .entropy = a->device_entropy + first,
        .logits = logits,
        .z = a->device_masks + first,
        .uniform = a->device_uniform + first,
        .rows = rows,
        .width = s->V,
        .stride = s->Vr,
        .mask_id = s->mask_id,
        .kind = GIDD_SAMPLE_MDLM,
        .temperature = a->args.temperature,
        .min_p = a->args.min_p,
        .move_s = 0.0,
        .move_t = 1.0,
    };
    return model->device->kernels->sample_step(model->device, &args);
}

/* a->drawn from the tokens at `position` of ids [B][T]. */
static gidd_status draw_next(gidd_ancestral *a, int64_t first_sample, int64_t B, int64_t position,
                             const int32_t *ids)
{
    gidd_model *model = a->args.model;
    gidd_batch_layout(&a->batch, B, 1, a->batch_memory);
    for (int64_t b = 0; b < B; b++) {
        const uint64_t index = (uint64_t)(first_sample + b) << POSITION_BITS | (uint64_t)(position + 1);
        a->batch.z[b] = ids[b * a->args.T + position];
        a->uniform[b] = gidd_uniform(a->args.seed, GIDD_STREAM_SAMPLE, index, 0, 0);
    }
    GIDD_TRY(gidd_model_load(model, &a->batch));
    GIDD_TRY(gidd_device_copy_in(model->device, a->device_uniform, a->uniform, (size_t)B * sizeof(*a->uniform)));
    GIDD_TRY(gidd_cache_forward(a->cache, position));
    for (int64_t first = 0; first < B; first += model->head_rows) {
        const int64_t left = B - first, rows = left < model->head_rows ? left : model->head_rows;
        GIDD_TRY(draw_rows(a, first, rows));
    }
    GIDD_TRY(gidd_device_copy_out(model->device, a->entropy, a->device_entropy, (size_t)B * sizeof(*a->entropy)));
    return gidd_device_copy_out(model->device, a->drawn, a->device_drawn, (size_t)B * sizeof(*a->drawn));
}

/* The token at `position` of row b: what is given, PAD behind the end, or what was drawn. */
static int32_t choose(const gidd_ancestral *a, int64_t b, int64_t position, const int32_t *given)
{
    const int32_t forced = given != NULL ? given[b * a->args.T + position] : -1;
    if (forced >= 0) {
        return forced;
    }
    return position == 0 ? a->vocab.bos : a->done[b] ? a->vocab.pad : a->drawn[b];
}

/* Sets the column; returns whether every sequence has ended. */
static int set_column(gidd_ancestral *a, int64_t B, int64_t position, const int32_t *given, int32_t *ids)
{
    int all_done = 1;
    for (int64_t b = 0; b < B; b++) {
        const int32_t id = choose(a, b, position, given);
        ids[b * a->args.T + position] = id;
        a->done[b] = position > 0 && (a->done[b] || id == a->vocab.eos); // BOS has the same id
        all_done = all_done && a->done[b];
    }
    return all_done;
}

/* Entropies of the predictions of `position`, before its column is set. */
static void note_entropy(const gidd_ancestral *a, int64_t B, int64_t position, const int32_t *given, double *entropy)
{
    const int64_t T = a->args.T;
    for (int64_t b = 0; b < B; b++) {
        const int is_drawn = !a->done[b] && (given == NULL || given[b * T + position] < 0);
        entropy[b * (T - 1) + position - 1] = is_drawn ? a->entropy[b] : 0.0;
    }
}

static gidd_status generate_batch(gidd_ancestral *a, int64_t first_sample, int64_t B, const int32_t *given,
                                  int32_t *ids, double *entropy)
{
    const int64_t T = a->args.T;
    int all_done = set_column(a, B, 0, given, ids);
    for (int64_t position = 1; position < T; position++) {
        if (!all_done || given != NULL) { // otherwise only PAD follows
            GIDD_TRY(draw_next(a, first_sample, B, position - 1, ids));
        }
        if (entropy != NULL) {
            note_entropy(a, B, position, given, entropy);
        }
        all_done = set_column(a, B, position, given, ids);
        if (a->args.progress != NULL) {
            a->args.progress(a->args.context, position, T - 1, ids, B);
        }
    }
    return GIDD_OK;
}

gidd_status gidd_ancestral_generate(gidd_ancestral *a, int64_t first_sample, int64_t count,
                                    const int32_t *given, int32_t *ids, double *entropy)
{
    const int64_t most = a->args.model->max_B, T = a->args.T;
    if (first_sample < 0 || count < 0 || first_sample + count >= (int64_t)1 << (63 - POSITION_BITS)) {
        return gidd_fail(GIDD_ERR_ARG, "samples %lld + %lld", (long long)first_sample, (long long)count);
    }
    for (int64_t done = 0; done < count; done += most) {
        const int64_t B = count - done < most ? count - done : most;
        GIDD_TRY(generate_batch(a, first_sample + done, B, given != NULL ? given + done * T : NULL,
                                ids + done * T, entropy != NULL ? entropy + done * (T - 1) : NULL));
    }
    return GIDD_OK;
}
