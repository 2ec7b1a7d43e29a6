/* SPDX-License-Identifier: Apache-2.0 */
#include "model/tiny.h"

#include "base/rng.h"
#include "diffusion/corrupt.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SEED = 20, PARAM_WORDS = 1, TEXT = 2 };

static const gidd_model_shape tiny_shape = {.D = TINY_D,
                                            .L = TINY_L,
                                            .H = TINY_H,
                                            .C = TINY_C,
                                            .T = TINY_T,
                                            .V = TINY_V,
                                            .Vr = TINY_VR,
                                            .mask_id = TINY_MASK};

static double random_unit(uint64_t purpose, int64_t index)
{
    return gidd_uniform(SEED, GIDD_STREAM_TOKEN, purpose << 32 | (uint64_t)index, 0, 0);
}

static void randomise_params(tiny *t)
{
    float *values = calloc((size_t)t->params.memory_count, sizeof *values);
    for (int64_t i = 0; i < t->params.tensor_count; i++) {
        const gidd_tensor *tensor = &t->params.tensors[i];
        const double mean = tensor->init == GIDD_INIT_ONE ? 1.0 : 0.0;
        const double bound = tensor->dims == 2 ? 1.5 / sqrt((double)tensor->shape[1]) : 0.3;
        for (int64_t e = 0; e < tensor->count; e++) {
            const double u = random_unit(PARAM_WORDS, tensor->offset + e);
            values[tensor->at + e] = (float)(mean + bound * (2.0 * u - 1.0));
        }
    }
    cr_assert_eq(gidd_model_set_params(t->model, values), GIDD_OK);
    free(values);
}

static void open_model(tiny *t, const tiny_args *args)
{
    const gidd_model_args model = {
        .device = t->device,
        .params = &t->params,
        .mode = args->mode,
        .loss = args->loss,
        .recompute = args->recompute,
        .max_B = args->max_B > 0 ? args->max_B : TINY_B,
        .max_T = TINY_T,
        .head_rows = args->head_rows > 0 ? args->head_rows : TINY_ROWS,
    };
    cr_assert_eq(gidd_model_create(&model, &t->model), GIDD_OK, "%s", gidd_error_last()->text);
}

tiny *tiny_open(const tiny_args *args)
{
    tiny *t = calloc(1, sizeof *t);
    const gidd_device_args device = {.name = args->device != NULL ? args->device : "cpu", .dtype = args->dtype, .threads = 1};
    const gidd_process processes[] = {[GIDD_LOSS_GIDD] = GIDD_PROCESS_GIDD,
                                      [GIDD_LOSS_MDLM] = GIDD_PROCESS_MDLM,
                                      [GIDD_LOSS_NEXT] = GIDD_PROCESS_NONE};
    gidd_model_shape shape = tiny_shape;
    shape.type = args->loss == GIDD_LOSS_NEXT ? GIDD_MODEL_AUTOREGRESSIVE : GIDD_MODEL_DIFFUSION;
    const gidd_schedule_args schedule = {
        .process = processes[args->loss],
        .p_uniform = 0.1,
        .t_eps = 1e-4,
        .max_weight = 2.0,
        .vocab_size = TINY_V,
        .mask_id = TINY_MASK,
    };
    cr_assert_eq(gidd_device_open(&device, &t->device), GIDD_OK);
    shape.L = args->L > 0 ? args->L : TINY_L;
    cr_assert_eq(gidd_params_init(&t->params, &shape, 30000, 3), GIDD_OK);
    cr_assert_eq(gidd_schedule_init(&t->schedule, &schedule), GIDD_OK);
    open_model(t, args);
    randomise_params(t);
    t->memory = aligned_alloc(64, (gidd_batch_bytes(TINY_B, TINY_T) + 63) / 64 * 64);
    memset(t->memory, 0, gidd_batch_bytes(TINY_B, TINY_T));
    return t;
}

void tiny_close(tiny *t)
{
    gidd_model_destroy(t->model);
    gidd_params_release(&t->params);
    gidd_device_close(t->device);
    free(t->memory);
    free(t);
}

void tiny_fill_batch(tiny *t, int64_t first, int64_t B, int64_t T)
{
    gidd_batch *batch = &t->batch;
    int32_t scratch[TINY_ROWS];
    gidd_batch_layout(batch, B, T, t->memory);
    for (int64_t b = 0; b < B; b++) {
        const int64_t sample = first + b;
        const float time = (float)((double)(sample + 1) / (TINY_B + 1.5));
        gidd_corruption corruption;
        gidd_corruption_init(&corruption, &t->schedule, (double)time);
        gidd_schedule_coef(&t->schedule, time, &batch->coef[b]);
        for (int64_t i = 0; i < T; i++) {
            const int64_t p = b * T + i;
            batch->x[p] = (int32_t)(random_unit(TEXT, sample * TINY_T + i) * (TINY_V - 1));
            batch->attention_mask[p] = sample != TINY_B - 1 || i < TINY_T / 2;
            if (t->schedule.args.process == GIDD_PROCESS_NONE && i == T - 1) {
                batch->attention_mask[p] = 0; // as the loader does: nothing follows
            }
        }
        gidd_corrupt_row(&corruption, SEED, GIDD_STREAM_NOISE, (uint64_t)sample, batch->x + b * T,
                         T, batch->z + b * T);
    }
    gidd_batch_index(batch, TINY_V, scratch);
}

void tiny_forward(tiny *t)
{
    cr_assert_eq(gidd_model_load(t->model, &t->batch), GIDD_OK);
    cr_assert_eq(gidd_model_forward(t->model), GIDD_OK, "%s", gidd_error_last()->text);
}

void tiny_train(tiny *t, int accumulate, int skip_clean)
{
    const gidd_head_args head = {.mode = GIDD_LOSS_TRAIN,
                                 .scale = 1.0f / TINY_ROWS,
                                 .accumulate = accumulate,
                                 .skip_clean = skip_clean};
    tiny_forward(t);
    cr_assert_eq(gidd_model_head(t->model, &head), GIDD_OK, "%s", gidd_error_last()->text);
    cr_assert_eq(gidd_model_backward(t->model, &(gidd_backward_args){.accumulate = accumulate}),
                 GIDD_OK, "%s", gidd_error_last()->text);
}

double tiny_loss(tiny *t)
{
    const gidd_head_args head = {.mode = GIDD_LOSS_EVALUATE, .scale = 1.0f};
    gidd_loss_sums sums;
    cr_assert_eq(gidd_model_zero_sums(t->model), GIDD_OK);
    tiny_forward(t);
    cr_assert_eq(gidd_model_head(t->model, &head), GIDD_OK);
    cr_assert_eq(gidd_model_read_sums(t->model, &sums), GIDD_OK);
    return sums.loss / TINY_ROWS;
}

double tiny_distance(const float *a, const float *b, int64_t count)
{
    double difference = 0.0, size = 0.0;
    for (int64_t i = 0; i < count; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / size);
}
