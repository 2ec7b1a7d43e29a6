/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cases.h"
#include "kernels/harness.h"
#include "kernels/reference.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const gidd_dtype dtypes[] = {GIDD_F32, GIDD_BF16};

/* Position after position gives what causal attention over all of them gives. */
static void check_case(gidd_device *device, attention_case c)
{
    int64_t             D = c.H * c.d, rows = c.B * c.T;
    ref_attention_shape shape = {.B = c.B, .T = c.T, .H = c.H, .d = c.d, .causal = 1};
    double             *qkv = random_values(31, rows * 3 * D, 1.5, device->dtype);
    double             *rope = malloc((size_t)(c.T * c.d) * sizeof *rope);
    double             *exact = malloc((size_t)(rows * D) * sizeof *exact);
    double             *lse = malloc((size_t)(c.B * c.H * c.T) * sizeof *lse);
    double             *input = malloc((size_t)(c.B * 3 * D) * sizeof *input);
    double             *wanted = malloc((size_t)(c.B * D) * sizeof *wanted);
    ref_rope(rope, c.T, c.d);
    ref_attention(exact, lse, qkv, rope, shape);
    buffer dev_rope = buffer_of(device, GIDD_F32, rope, c.T * c.d);
    buffer keys = buffer_of(device, GIDD_F32, NULL, rows * D); // NaN where nothing was kept yet
    buffer values = buffer_of(device, GIDD_F32, NULL, rows * D);
    for (int64_t p = 0; p < c.T; p++) {
        for (int64_t b = 0; b < c.B; b++) {
            memcpy(input + b * 3 * D, qkv + (b * c.T + p) * 3 * D, (size_t)(3 * D) * sizeof *input);
            memcpy(wanted + b * D, exact + (b * c.T + p) * D, (size_t)D * sizeof *wanted);
        }
        buffer dev_qkv = buffer_of(device, device->dtype, input, c.B * 3 * D);
        buffer out = buffer_of(device, device->dtype, NULL, c.B * D);
        CHECK_OK(device->kernels->attention_step(
            device, &(gidd_attention_step_args){.out = out.memory,
                                                .keys = keys.memory,
                                                .values = values.memory,
                                                .qkv = dev_qkv.memory,
                                                .rope = dev_rope.memory,
                                                .B = c.B,
                                                .T = c.T,
                                                .H = c.H,
                                                .d = c.d,
                                                .position = p}));
        // a score is a sum of d products, an output one of p + 1; the error of a score of size d times
        // 1.5^2 / sqrt(d) scales a probability
        double of_scores = 2.25 * sqrt((double)c.d);
        check_buffer("out", &out, wanted,
                     (gidd_tolerance){device->dtype, (double)(c.d + p + 1), 1.5 * (1.0 + of_scores)});
        buffer_release(&dev_qkv);
        buffer_release(&out);
    }
    buffer_release(&dev_rope);
    buffer_release(&keys);
    buffer_release(&values);
    double *owned[] = {qkv, rope, exact, lse, input, wanted};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        free(owned[i]);
    }
}

Test(attention_step, is_causal_attention)
{
    for (int t = 0; t < 2; t++) {
        gidd_device *device = open_test_device(dtypes[t], 2);
        for (int i = 0; i < COUNT_OF(attention_cases); i++) {
            if (attention_cases[i].T <= 131) {
                check_case(device, attention_cases[i]);
            }
        }
        gidd_device_close(device);
    }
}

Test(attention_step, refuses_a_position_behind_the_end)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    float        memory[64] = {0};
    buffer       any = buffer_of_bytes(device, memory, sizeof memory);
    gidd_status  status = device->kernels->attention_step(
        device, &(gidd_attention_step_args){.out = any.memory,
                                            .keys = any.memory,
                                            .values = any.memory,
                                            .qkv = any.memory,
                                            .rope = any.memory,
                                            .B = 1,
                                            .T = 2,
                                            .H = 1,
                                            .d = 4,
                                            .position = 2});
    cr_assert_eq(status, GIDD_ERR_ARG);
    buffer_release(&any);
    gidd_device_close(device);
}
