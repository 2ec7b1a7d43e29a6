/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cases.h"
#include "kernels/harness.h"
#include "kernels/reference.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static void check_case(gidd_device *device, attention_case c, gidd_attention_kind kind)
{
    gidd_dtype          dtype = device->dtype;
    int64_t             D = c.H * c.d, positions = c.B * c.T, turns = c.T * c.d;
    ref_attention_shape shape = {c.B, c.T, c.H, c.d, kind == GIDD_ATTENTION_CAUSAL};
    double             *qkv = random_values(41, positions * 3 * D, 2.0, dtype),
           *dout = random_values(42, positions * D, 1.0, dtype);
    double *rope = malloc((size_t)turns * sizeof *rope);
    double *exact = malloc((size_t)(positions * 3 * D) * sizeof *exact);
    double *exact_lse = malloc((size_t)(positions * c.H) * sizeof *exact_lse);
    ref_rope(rope, c.T, c.d);
    for (int64_t i = 0; i < turns; i++) {
        rope[i] = round_to(rope[i], GIDD_F32);
    }
    buffer dev_qkv = buffer_of(device, dtype, qkv, positions * 3 * D),
           dev_rope = buffer_of(device, GIDD_F32, rope, turns);
    buffer out = buffer_of(device, dtype, NULL, positions * D),
           lse = buffer_of(device, GIDD_F32, NULL, positions * c.H);
    CHECK_OK(
        device->kernels->attention_fwd(device, &(gidd_attention_fwd_args){.out = out.memory,
                                                                          .lse = lse.memory,
                                                                          .qkv = dev_qkv.memory,
                                                                          .rope = dev_rope.memory,
                                                                          .B = c.B,
                                                                          .T = c.T,
                                                                          .H = c.H,
                                                                          .d = c.d,
                                                                          .kind = kind}));
    ref_attention(exact, exact_lse, qkv, rope, shape);
    // an error of a score (d terms, |score| <= 4 d/sqrt(d)) is a relative error of its probability
    double         score = 4.0 * sqrt((double)c.d) + 1.0;
    gidd_tolerance tolerance = {dtype, (double)(c.T + c.d), 2.0 * score};
    check_buffer("out", &out, exact, tolerance);
    check_buffer("lse", &lse, exact_lse,
                 (gidd_tolerance){GIDD_F32, (double)(c.T + c.d), score + 8.0});

    double *kept_out = buffer_values(&out), *kept_lse = buffer_values(&lse);
    buffer  dqkv = buffer_of(device, dtype, NULL, positions * 3 * D),
           dev_dout = buffer_of(device, dtype, dout, positions * D);
    CHECK_OK(
        device->kernels->attention_bwd(device, &(gidd_attention_bwd_args){.dqkv = dqkv.memory,
                                                                          .dout = dev_dout.memory,
                                                                          .out = out.memory,
                                                                          .lse = lse.memory,
                                                                          .qkv = dev_qkv.memory,
                                                                          .rope = dev_rope.memory,
                                                                          .B = c.B,
                                                                          .T = c.T,
                                                                          .H = c.H,
                                                                          .d = c.d,
                                                                          .kind = kind}));
    ref_attention_bwd(exact, dout, kept_out, kept_lse, qkv, rope, shape);
    tolerance.largest = score * (1.0 + largest_of(exact, positions * 3 * D));
    check_buffer("dqkv", &dqkv, exact, tolerance);
    buffer *all[] = {&dev_qkv, &dev_rope, &out, &lse, &dqkv, &dev_dout};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        buffer_release(all[i]);
    }
    double *owned[] = {qkv, dout, rope, exact, exact_lse, kept_out, kept_lse};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        free(owned[i]);
    }
}

static void check_all(gidd_dtype dtype, gidd_attention_kind kind)
{
    gidd_device *device = open_test_device(dtype, 2);
    for (int i = 0; i < COUNT_OF(attention_cases); i++) {
        check_case(device, attention_cases[i], kind);
    }
    gidd_device_close(device);
}

Test(attention, full_fp32)
{
    check_all(GIDD_F32, GIDD_ATTENTION_FULL);
}

Test(attention, full_bf16)
{
    check_all(GIDD_BF16, GIDD_ATTENTION_FULL);
}

Test(attention, causal_fp32)
{
    check_all(GIDD_F32, GIDD_ATTENTION_CAUSAL);
}

Test(attention, causal_bf16)
{
    check_all(GIDD_BF16, GIDD_ATTENTION_CAUSAL);
}

// Scores of +-100 must not overflow: softmax subtracts the largest.
Test(attention, large_scores)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    double       qkv[2 * 3 * 2] = {100, 0, 100, 0, 1, 2, -100, 0, -100, 0, 3, 4}; // T 2, d 2
    double       rope[2 * 2] = {1, 0, 1, 0};
    double exact_out[4] = {1, 2, 3, 4}, score = 10000.0 / sqrt(2.0), exact_lse[2] = {score, score};
    buffer dev_qkv = buffer_of(device, GIDD_F32, qkv, 12),
           dev_rope = buffer_of(device, GIDD_F32, rope, 4);
    buffer out = buffer_of(device, GIDD_F32, NULL, 4), lse = buffer_of(device, GIDD_F32, NULL, 2);
    CHECK_OK(
        device->kernels->attention_fwd(device, &(gidd_attention_fwd_args){.out = out.memory,
                                                                          .lse = lse.memory,
                                                                          .qkv = dev_qkv.memory,
                                                                          .rope = dev_rope.memory,
                                                                          .B = 1,
                                                                          .T = 2,
                                                                          .H = 1,
                                                                          .d = 2}));
    check_buffer("out", &out, exact_out, (gidd_tolerance){GIDD_F32, 4, 4.0});
    check_buffer("lse", &lse, exact_lse, (gidd_tolerance){GIDD_F32, 4, score});
    buffer_release(&dev_qkv);
    buffer_release(&dev_rope);
    buffer_release(&out);
    buffer_release(&lse);
    gidd_device_close(device);
}
