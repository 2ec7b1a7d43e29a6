/* SPDX-License-Identifier: Apache-2.0 */
#include "model/tiny.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Logits of the loaded batch after its forward, as floats. */
static void read_logits(tiny *t, float *logits)
{
    const int64_t rows = t->batch.B * t->batch.T, at_once = t->model->head_rows;
    for (int64_t first = 0; first < rows; first += at_once) {
        const int64_t n = rows - first < at_once ? rows - first : at_once;
        void *memory = NULL;
        cr_assert_eq(gidd_model_logits(t->model, first, n, &memory), GIDD_OK);
        if (t->device->dtype == GIDD_F32) {
            memcpy(logits + first * TINY_VR, memory, (size_t)(n * TINY_VR) * sizeof *logits);
        } else { /* bf16 is the upper half of a float */
            for (int64_t i = 0; i < n * TINY_VR; i++) {
                const uint32_t bits = (uint32_t)((const uint16_t *)memory)[i] << 16;
                memcpy(&logits[first * TINY_VR + i], &bits, sizeof bits);
            }
        }
    }
}

static void logits_of(const tiny_args *args, int64_t first, int64_t B, int64_t T, float *logits)
{
    tiny *t = tiny_open(args);
    tiny_fill_batch(t, first, B, T);
    tiny_forward(t);
    read_logits(t, logits);
    tiny_close(t);
}

static float train_logits[TINY_ROWS * TINY_VR], other_logits[TINY_ROWS * TINY_VR];

Test(model, inference_and_training_give_the_same_logits)
{
    for (int dtype = GIDD_F32; dtype <= GIDD_BF16; dtype++) {
        tiny_args args = {.dtype = (gidd_dtype)dtype, .mode = GIDD_MODEL_TRAIN};
        logits_of(&args, 0, TINY_B, TINY_T, train_logits);
        args.mode = GIDD_MODEL_INFER;
        logits_of(&args, 0, TINY_B, TINY_T, other_logits);
        cr_assert_arr_eq(train_logits, other_logits, sizeof train_logits);
        cr_assert(isfinite(train_logits[0]) && train_logits[0] != train_logits[1]);
    }
}

/* Rows of logits do not depend on how many are made at once; a smaller batch or a shorter text is
 * the same in a larger model. */
Test(model, logits_do_not_depend_on_sizes)
{
    logits_of(&(tiny_args){.mode = GIDD_MODEL_INFER}, 0, TINY_B, TINY_T, train_logits);
    logits_of(&(tiny_args){.mode = GIDD_MODEL_INFER, .head_rows = 13}, 0, TINY_B, TINY_T,
              other_logits);
    cr_assert(tiny_distance(other_logits, train_logits, TINY_ROWS * TINY_VR) < 1e-6);

    logits_of(&(tiny_args){.mode = GIDD_MODEL_INFER, .max_B = 1}, 2, 1, TINY_T, other_logits);
    cr_assert(tiny_distance(other_logits, train_logits + 2 * TINY_T * TINY_VR, TINY_T * TINY_VR) <
              1e-6);

    logits_of(&(tiny_args){.mode = GIDD_MODEL_INFER}, 2, 1, 6, train_logits);
    logits_of(&(tiny_args){.mode = GIDD_MODEL_INFER, .max_B = 1}, 2, 1, 6, other_logits);
    cr_assert(tiny_distance(other_logits, train_logits, 6 * TINY_VR) < 1e-6);
}

/* A value passes some 12 roundings to 2^-9 in a block and 4 outside, with random signs: 2^-9
 * sqrt(28) = 1 %; three times that for what the network amplifies. Above 0.01 % it must be, or
 * nothing was rounded. */
Test(model, bf16_is_close_to_fp32)
{
    logits_of(&(tiny_args){.dtype = GIDD_F32}, 0, TINY_B, TINY_T, train_logits);
    logits_of(&(tiny_args){.dtype = GIDD_BF16}, 0, TINY_B, TINY_T, other_logits);
    const double distance = tiny_distance(other_logits, train_logits, TINY_ROWS * TINY_VR);
    cr_assert(distance < 3e-2 && distance > 1e-4, "%g", distance);
}

Test(model, initial_logits_are_zero)
{
    tiny *t = tiny_open(&(tiny_args){.mode = GIDD_MODEL_INFER});
    cr_assert_eq(gidd_model_init_params(t->model, 5), GIDD_OK);
    tiny_fill_batch(t, 0, TINY_B, TINY_T);
    tiny_forward(t);
    read_logits(t, train_logits);
    for (int64_t i = 0; i < TINY_ROWS * TINY_VR; i++) {
        cr_assert_eq(train_logits[i], 0.0f);
    }
    tiny_close(t);
}

/* ---- Memory ---------------------------------------------------------------------------------- */

static size_t planned_bytes(const tiny *t, gidd_model_mode mode)
{
    gidd_plan_line lines[16];
    int64_t count = 0;
    size_t bytes = 0;
    const gidd_model_args args = {.device = t->device,
                                  .params = &t->params,
                                  .mode = mode,
                                  .max_B = TINY_B,
                                  .max_T = TINY_T,
                                  .head_rows = TINY_ROWS};
    cr_assert_eq(gidd_model_plan(&args, lines, 16, &count), GIDD_OK);
    cr_assert(count >= 5 && count <= 8);
    for (int64_t i = 0; i < count; i++) {
        bytes += lines[i].bytes;
    }
    return bytes;
}

Test(model, the_plan_is_what_is_allocated)
{
    for (int k = 0; k < 4; k++) {
        const gidd_model_mode mode = k % 2 == 0 ? GIDD_MODEL_TRAIN : GIDD_MODEL_INFER;
        const gidd_dtype dtype = k < 2 ? GIDD_F32 : GIDD_BF16;
        tiny *t = tiny_open(&(tiny_args){.dtype = dtype, .mode = mode});
        const size_t used = t->device->allocated_bytes - t->device->workspace_bytes;
        cr_assert_eq(used, planned_bytes(t, mode) + 2 * sizeof(gidd_loss_sums));
        cr_assert(mode == GIDD_MODEL_INFER || planned_bytes(t, GIDD_MODEL_INFER) < used / 4 * 3);
        gidd_model_destroy(t->model);
        cr_assert_eq(t->device->allocated_bytes, t->device->workspace_bytes);
        t->model = NULL;
        tiny_close(t);
    }
}

Test(model, steps_allocate_nothing_after_the_second)
{
    tiny *t = tiny_open(&(tiny_args){.head_rows = 20});
    tiny_fill_batch(t, 0, TINY_B, TINY_T);
    for (int i = 0; i < 2; i++) { /* the kernels' caches fill in the first steps */
        tiny_train(t, i, 0);
    }
    const int64_t before = t->device->allocation_count;
    for (int i = 0; i < 3; i++) {
        tiny_train(t, i > 0, 0);
        (void)tiny_loss(t);
    }
    cr_assert_eq(t->device->allocation_count, before);
    tiny_close(t);
}

/* A large vocabulary's logits come in equal chunks of whole tiles, below the limit. */
Test(model, rows_of_logits_are_chosen_by_size)
{
    const gidd_model_shape shape = {
        .D = 8, .L = 1, .H = 1, .C = 8, .T = 512, .V = 50259, .Vr = 50304, .mask_id = 50258};
    gidd_device *device = NULL;
    gidd_params params;
    gidd_plan_line lines[8];
    int64_t count = 0;
    cr_assert_eq(gidd_device_open(&(gidd_device_args){.name = "cpu", .threads = 1}, &device),
                 GIDD_OK);
    cr_assert_eq(gidd_params_init(&params, &shape, 1 << 20, 1), GIDD_OK);
    const gidd_model_args args = {
        .device = device, .params = &params, .mode = GIDD_MODEL_INFER, .max_B = 64, .max_T = 512};
    cr_assert_eq(gidd_model_plan(&args, lines, 8, &count), GIDD_OK);
    for (int64_t i = 0; i < count; i++) {
        if (strstr(lines[i].name, "logits") != NULL) {
            cr_assert(lines[i].bytes > (size_t)400 << 20 && lines[i].bytes < (size_t)520 << 20,
                      "%zu", lines[i].bytes);
        }
    }
    gidd_params_release(&params);
    gidd_device_close(device);
}

/* ---- Parameters ------------------------------------------------------------------------------ */

Test(model, initial_parameters_are_the_tables)
{
    tiny *t = tiny_open(&(tiny_args){.mode = GIDD_MODEL_INFER, .dtype = GIDD_BF16});
    float *want = malloc((size_t)t->params.memory_count * sizeof *want);
    gidd_params_fill(&t->params, 5, 0, t->params.memory_count, want);
    cr_assert_eq(gidd_model_init_params(t->model, 5), GIDD_OK);
    cr_assert_arr_eq(t->model->master, want, (size_t)t->params.memory_count * sizeof *want);
    const uint16_t *copy = t->model->weights;
    for (int64_t i = 0; i < t->params.memory_count; i++) {
        const uint32_t bits = (uint32_t)copy[i] << 16;
        float value = 0.0f;
        memcpy(&value, &bits, sizeof value);
        cr_assert(fabsf(value - want[i]) <= 0x1p-8f * fabsf(want[i]));
    }
    free(want);
    tiny_close(t);
}

/* ---- Misuse ---------------------------------------------------------------------------------- */

Test(model, calls_out_of_order_are_refused)
{
    tiny *t = tiny_open(&(tiny_args){0});
    const gidd_head_args train = {.mode = GIDD_LOSS_TRAIN, .scale = 1.0f};
    const gidd_head_args listed = {.mode = GIDD_LOSS_EVALUATE, .scale = 1.0f, .skip_clean = 1};
    void *logits = NULL;
    cr_assert_eq(gidd_model_forward(t->model), GIDD_ERR_ARG);
    tiny_fill_batch(t, 0, TINY_B, TINY_T);
    tiny_forward(t);
    cr_assert_eq(gidd_model_backward(t->model, &(gidd_backward_args){0}), GIDD_ERR_ARG);
    cr_assert_eq(gidd_model_logits(t->model, 0, TINY_ROWS + 1, &logits), GIDD_ERR_ARG);
    cr_assert_eq(gidd_model_logits(t->model, TINY_ROWS, 1, &logits), GIDD_ERR_ARG);
    cr_assert_eq(gidd_model_head(t->model, &listed), GIDD_OK);
    cr_assert_eq(gidd_model_logits(t->model, 0, 1, &logits), GIDD_ERR_ARG);
    tiny_forward(t);
    cr_assert_eq(gidd_model_head(t->model, &train), GIDD_OK);
    cr_assert_eq(gidd_model_backward(t->model, &(gidd_backward_args){0}), GIDD_OK);
    cr_assert_eq(gidd_model_backward(t->model, &(gidd_backward_args){0}), GIDD_ERR_ARG);
    tiny_close(t);

    t = tiny_open(&(tiny_args){.mode = GIDD_MODEL_INFER, .max_B = 2});
    tiny_fill_batch(t, 0, 3, TINY_T);
    cr_assert_eq(gidd_model_load(t->model, &t->batch), GIDD_ERR_ARG);
    tiny_fill_batch(t, 0, 2, TINY_T);
    tiny_forward(t);
    cr_assert_eq(gidd_model_head(t->model, &train), GIDD_ERR_ARG);
    tiny_close(t);
}
