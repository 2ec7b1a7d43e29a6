/* SPDX-License-Identifier: Apache-2.0
 *
 * Backward that recomputes gives the same bits as backward that reads what was kept, and keeps as much as the plan
 * says. That it does recompute is counted in test_flops.c.
 */
#include "model/activations.h"
#include "model/tiny.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 4 };

// Two micro-batches, the second one without clean rows, as the host sees their gradient.
static float *gradients_of(const char *device, gidd_dtype dtype, gidd_recompute recompute, size_t *bytes_p)
{
    tiny *t = tiny_open(&(tiny_args){.device = device, .dtype = dtype, .recompute = recompute, .L = BLOCKS});
    const size_t bytes = (size_t)t->params.memory_count * sizeof(float);
    float *gradients = malloc(bytes);
    tiny_fill_batch(t, 0, TINY_B, TINY_T);
    tiny_train(t, 0, 0);
    cr_assert_eq(gidd_device_synchronize(t->device), GIDD_OK);
    tiny_fill_batch(t, TINY_B, TINY_B - 1, TINY_T - 3);
    tiny_train(t, 1, 1);
    cr_assert_eq(gidd_device_copy_out(t->device, gradients, t->model->grads, bytes), GIDD_OK);
    tiny_close(t);
    *bytes_p = bytes;
    return gradients;
}

static void check_bits(const char *device, gidd_dtype dtype)
{
    size_t bytes = 0;
    float *kept = gradients_of(device, dtype, GIDD_RECOMPUTE_NONE, &bytes);
    for (int what = GIDD_RECOMPUTE_MLP; what <= GIDD_RECOMPUTE_BLOCK; what++) {
        float *again = gradients_of(device, dtype, (gidd_recompute)what, &bytes);
        cr_assert_eq(memcmp(kept, again, bytes), 0, "%s %s, recompute %d: other gradients", device,
                     dtype == GIDD_BF16 ? "bf16" : "fp32", what);
        free(again);
    }
    free(kept);
}

Test(recompute, gradients_are_the_same_bits)
{
    check_bits("cpu", GIDD_F32);
    check_bits("cpu", GIDD_BF16);
}

#ifdef GIDD_HAVE_EMU
Test(recompute, on_emu_too)
{
    check_bits("emu", GIDD_F32);
    check_bits("emu", GIDD_BF16);
}
#endif

// Elements of type E that a token takes in all blocks, in units of D, and fp32 values.
static size_t planned_bytes(gidd_recompute recompute)
{
    enum { TOKENS = TINY_ROWS, SCALARS = 4 + TINY_H };
    static const struct {
        int64_t kept, once, kept_f32, once_f32, embedding;
    } cases[] = {
        [GIDD_RECOMPUTE_NONE] = {18, 0, SCALARS, 0, 0},
        [GIDD_RECOMPUTE_MLP] = {8, 10, SCALARS - 2, 2, 0},
        [GIDD_RECOMPUTE_BLOCK] = {2, 16, 0, SCALARS, 1},
    };
    const int64_t wide = cases[recompute].kept * BLOCKS + cases[recompute].once + cases[recompute].embedding;
    const int64_t scalars = cases[recompute].kept_f32 * BLOCKS + cases[recompute].once_f32;
    return (size_t)TOKENS * ((size_t)(wide * TINY_D) * 2 + (size_t)scalars * 4);
}

Test(recompute, the_plan_keeps_what_the_header_says)
{
    for (int what = GIDD_RECOMPUTE_NONE; what <= GIDD_RECOMPUTE_BLOCK; what++) {
        tiny *t = tiny_open(&(tiny_args){.dtype = GIDD_BF16, .recompute = (gidd_recompute)what, .L = BLOCKS});
        const gidd_activations *a = t->model->activations;
        size_t bytes = 0;
        for (int64_t i = 0; i < a->table_count; i++) {
            bytes += a->table[i].area == GIDD_AREA_BLOCKS ? a->table[i].bytes : 0;
        }
        cr_assert_eq(bytes, planned_bytes((gidd_recompute)what), "recompute %d: %zu bytes", what, bytes);
        tiny_close(t);
    }
}

// configs/gidd-1b.yaml, bf16: everything that a rank has on its device, the moments included.
static double plan_gib(gidd_recompute recompute, int64_t sequences)
{
    const gidd_model_shape shape = {
        .D = 2048, .L = 24, .H = 32, .C = 128, .T = 512, .V = 50259, .Vr = 50304, .mask_id = 50258};
    gidd_device *device = NULL;
    gidd_params params;
    gidd_plan_line lines[16];
    int64_t count = 0;
    cr_assert_eq(gidd_device_open(&(gidd_device_args){.name = "cpu", .dtype = GIDD_BF16, .threads = 1}, &device),
                 GIDD_OK);
    cr_assert_eq(gidd_params_init(&params, &shape, (size_t)64 << 20, 1), GIDD_OK);
    cr_assert_eq(gidd_model_plan(&(gidd_model_args){.device = device,
                                                    .params = &params,
                                                    .recompute = recompute,
                                                    .max_B = sequences,
                                                    .max_T = shape.T},
                                 lines, 16, &count),
                 GIDD_OK);
    double bytes = 2.0 * 4.0 * (double)params.memory_count;
    for (int64_t i = 0; i < count; i++) {
        bytes += (double)lines[i].bytes;
    }
    gidd_params_release(&params);
    gidd_device_close(device);
    return bytes / 1073741824.0;
}

Test(recompute, lets_a_billion_parameters_fit_80_gb)
{
    const double gpu_gib = 79.0; // what such a GPU has, less what its driver takes
    cr_assert_gt(plan_gib(GIDD_RECOMPUTE_NONE, 64), gpu_gib);
    cr_assert_lt(plan_gib(GIDD_RECOMPUTE_NONE, 32), 0.75 * gpu_gib);
    cr_assert_lt(plan_gib(GIDD_RECOMPUTE_MLP, 64), 0.75 * gpu_gib);
    cr_assert_lt(plan_gib(GIDD_RECOMPUTE_BLOCK, 64), 0.5 * gpu_gib);
}
