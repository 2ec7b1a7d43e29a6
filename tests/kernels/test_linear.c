/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cases.h"
#include "kernels/harness.h"
#include "kernels/reference.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

// A device of one type may be asked for products of the other (modulations are fp32 on a bf16
// device).
static const struct {
    gidd_dtype device, product;
} types[] = {{GIDD_F32, GIDD_F32}, {GIDD_BF16, GIDD_BF16}, {GIDD_BF16, GIDD_F32}};

static void check_forward(gidd_device *device, linear_case c, gidd_dtype dtype)
{
    double *x = random_values(1, c.M * c.K, 1.0, dtype),
           *w = random_values(2, c.N * c.K, 1.0, dtype);
    double *bias = random_values(3, c.N, 1.0, dtype);
    double *exact = malloc((size_t)(c.M * c.N) * sizeof *exact);
    buffer  dev_x = buffer_of(device, dtype, x, c.M * c.K),
           dev_w = buffer_of(device, dtype, w, c.N * c.K);
    buffer dev_bias = buffer_of(device, dtype, bias, c.N);
    for (gidd_linear_epilogue epilogue = GIDD_LINEAR_NONE; epilogue <= GIDD_LINEAR_BIAS_GELU;
         epilogue++) {
        for (int keep_pre = 0; keep_pre < 2; keep_pre++) {
            buffer y = buffer_of(device, dtype, NULL, c.M * c.N),
                   pre = buffer_of(device, dtype, NULL, c.M * c.N);
            CHECK_OK(device->kernels->linear_fwd(
                device, &(gidd_linear_fwd_args){.y = y.memory,
                                                .pre = keep_pre ? pre.memory : NULL,
                                                .x = dev_x.memory,
                                                .w = dev_w.memory,
                                                .bias = dev_bias.memory,
                                                .M = c.M,
                                                .N = c.N,
                                                .K = c.K,
                                                .dtype = dtype,
                                                .epilogue = epilogue}));
            ref_linear(exact, x, w, epilogue == GIDD_LINEAR_NONE ? NULL : bias, c.M, c.N, c.K);
            gidd_tolerance tolerance = {dtype, (double)c.K + 1,
                                        fmax(1.0, largest_of(exact, c.M * c.N))};
            int            with_gelu = epilogue == GIDD_LINEAR_BIAS_GELU;
            if (with_gelu && keep_pre) {
                check_buffer("pre", &pre, exact, tolerance);
                free(exact);
                exact = buffer_values(&pre); // GELU is that of the number as it was stored
            }
            for (int64_t i = 0; with_gelu && i < c.M * c.N; i++) {
                exact[i] = ref_gelu(keep_pre ? exact[i] : round_to(exact[i], dtype));
            }
            int fuses = strcmp(device->kernels->device, "cuda") == 0; // GELU of the unrounded pre
            if (with_gelu && (!keep_pre || fuses)) {
                tolerance.largest *=
                    dtype == GIDD_BF16 ? 0x1p16 : 1.0; // pre may round the other way
            }
            check_buffer("y", &y, exact, tolerance);
            buffer_release(&y);
            buffer_release(&pre);
        }
    }
    buffer_release(&dev_x);
    buffer_release(&dev_w);
    buffer_release(&dev_bias);
    free(x);
    free(w);
    free(bias);
    free(exact);
}

static void check_backward_data(gidd_device *device, linear_case c, gidd_dtype dtype)
{
    double *dy = random_values(4, c.M * c.N, 1.0, dtype),
           *w = random_values(5, c.N * c.K, 1.0, dtype);
    double *pre = random_values(6, c.M * c.K, 4.0, dtype);
    double *exact = malloc((size_t)(c.M * c.K) * sizeof *exact);
    buffer  dev_dy = buffer_of(device, dtype, dy, c.M * c.N),
           dev_w = buffer_of(device, dtype, w, c.N * c.K);
    buffer dev_pre = buffer_of(device, dtype, pre, c.M * c.K);
    ref_linear_bwd_data(exact, dy, w, c.M, c.N, c.K);
    gidd_tolerance tolerance = {dtype, (double)c.N + 4, fmax(1.0, largest_of(exact, c.M * c.K))};
    for (int with_gelu = 0; with_gelu < 2; with_gelu++) {
        buffer dx = buffer_of(device, dtype, NULL, c.M * c.K);
        CHECK_OK(device->kernels->linear_bwd_data(
            device, &(gidd_linear_bwd_data_args){.dx = dx.memory,
                                                 .dy = dev_dy.memory,
                                                 .w = dev_w.memory,
                                                 .pre = with_gelu ? dev_pre.memory : NULL,
                                                 .M = c.M,
                                                 .N = c.N,
                                                 .K = c.K,
                                                 .dtype = dtype}));
        for (int64_t i = 0; with_gelu && i < c.M * c.K; i++) {
            exact[i] *= ref_gelu_slope(pre[i]);
        }
        check_buffer(with_gelu ? "dx * gelu'" : "dx", &dx, exact, tolerance);
        buffer_release(&dx);
    }
    buffer_release(&dev_dy);
    buffer_release(&dev_w);
    buffer_release(&dev_pre);
    free(dy);
    free(w);
    free(pre);
    free(exact);
}

static void check_backward_weight(gidd_device *device, linear_case c, gidd_dtype dtype)
{
    double *dy = random_values(7, c.M * c.N, 1.0, dtype),
           *x = random_values(8, c.M * c.K, 1.0, dtype);
    double *old_dw = random_values(9, c.N * c.K, 1.0, GIDD_F32),
           *old_db = random_values(10, c.N, 1.0, GIDD_F32);
    double *dw = malloc((size_t)(c.N * c.K) * sizeof *dw), *db = malloc((size_t)c.N * sizeof *db);
    buffer  dev_dy = buffer_of(device, dtype, dy, c.M * c.N),
           dev_x = buffer_of(device, dtype, x, c.M * c.K);
    ref_linear_bwd_weight(dw, db, dy, x, c.M, c.N, c.K);
    gidd_tolerance tolerance = {GIDD_F32, (double)c.M + 2,
                                1.0 + largest_of(dw, c.N * c.K) + largest_of(db, c.N)};
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        buffer dev_dw = buffer_of(device, GIDD_F32, accumulate ? old_dw : NULL, c.N * c.K);
        buffer dev_db = buffer_of(device, GIDD_F32, accumulate ? old_db : NULL, c.N);
        CHECK_OK(device->kernels->linear_bwd_weight(
            device, &(gidd_linear_bwd_weight_args){.dw = dev_dw.memory,
                                                   .dbias = dev_db.memory,
                                                   .dy = dev_dy.memory,
                                                   .x = dev_x.memory,
                                                   .M = c.M,
                                                   .N = c.N,
                                                   .K = c.K,
                                                   .dtype = dtype,
                                                   .accumulate = accumulate}));
        for (int64_t i = 0; accumulate && i < c.N * c.K; i++) {
            dw[i] += old_dw[i];
        }
        for (int64_t i = 0; accumulate && i < c.N; i++) {
            db[i] += old_db[i];
        }
        check_buffer("dw", &dev_dw, dw, tolerance);
        check_buffer("dbias", &dev_db, db, tolerance);
        buffer_release(&dev_dw);
        buffer_release(&dev_db);
    }
    buffer_release(&dev_dy);
    buffer_release(&dev_x);
    free(dy);
    free(x);
    free(old_dw);
    free(old_db);
    free(dw);
    free(db);
}

static void for_all(void (*check)(gidd_device *, linear_case, gidd_dtype))
{
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        gidd_device *device = open_test_device(types[t].device, 2);
        for (int i = 0; i < COUNT_OF(linear_cases); i++) {
            check(device, linear_cases[i], types[t].product);
        }
        gidd_device_close(device);
    }
}

Test(linear, forward)
{
    for_all(check_forward);
}

Test(linear, backward_data)
{
    for_all(check_backward_data);
}

Test(linear, backward_weight)
{
    for_all(check_backward_weight);
}

Test(linear, no_rows)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    buffer dw = buffer_of(device, GIDD_F32, NULL, 6), db = buffer_of(device, GIDD_F32, NULL, 2);
    double zeros[6] = {0};
    buffer some = buffer_of(device, GIDD_F32, zeros, 6);
    CHECK_OK(device->kernels->linear_bwd_weight(device,
                                                &(gidd_linear_bwd_weight_args){.dw = dw.memory,
                                                                               .dbias = db.memory,
                                                                               .dy = some.memory,
                                                                               .x = some.memory,
                                                                               .N = 2,
                                                                               .K = 3}));
    check_buffer("dw", &dw, zeros, (gidd_tolerance){GIDD_F32, 1, 0});
    check_buffer("dbias", &db, zeros, (gidd_tolerance){GIDD_F32, 1, 0});
    buffer_release(&dw);
    buffer_release(&db);
    buffer_release(&some);
    gidd_device_close(device);
}

Test(linear, gelu_at_extremes)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    double       bias[] = {0.0,  -0.0,  1e-30, -1e-30, 1e-40, 5.0,   -5.0,       -12.0,
                           30.0, -30.0, 1e10,  -1e10,  1e30,  -1e30, (double)NAN};
    enum { COUNT = sizeof bias / sizeof *bias };
    double w[COUNT] = {0}, x[1] = {0}, slopes[COUNT], values[COUNT], ones[COUNT];
    for (int i = 0; i < COUNT; i++) {
        bias[i] = round_to(bias[i], GIDD_F32);
        values[i] = ref_gelu(bias[i]);
        slopes[i] = fabs(bias[i]) > 1e9 ? (bias[i] > 0.0) : ref_gelu_slope(bias[i]);
        ones[i] = 1.0;
    }
    buffer dev_b = buffer_of(device, GIDD_F32, bias, COUNT),
           dev_w = buffer_of(device, GIDD_F32, w, COUNT);
    buffer dev_x = buffer_of(device, GIDD_F32, x, 1), y = buffer_of(device, GIDD_F32, NULL, COUNT);
    CHECK_OK(device->kernels->linear_fwd(
        device, &(gidd_linear_fwd_args){.y = y.memory,
                                        .x = dev_x.memory,
                                        .w = dev_w.memory,
                                        .bias = dev_b.memory,
                                        .M = 1,
                                        .N = COUNT,
                                        .K = 1,
                                        .epilogue = GIDD_LINEAR_BIAS_GELU}));
    check_buffer("gelu", &y, values, (gidd_tolerance){GIDD_F32, 1, 1.0});
    buffer dev_one = buffer_of(device, GIDD_F32, ones, COUNT),
           dx = buffer_of(device, GIDD_F32, NULL, COUNT);
    CHECK_OK(
        device->kernels->linear_bwd_data(device, &(gidd_linear_bwd_data_args){.dx = dx.memory,
                                                                              .dy = dev_one.memory,
                                                                              .w = dev_one.memory,
                                                                              .pre = dev_b.memory,
                                                                              .M = 1,
                                                                              .N = 1,
                                                                              .K = COUNT}));
    check_buffer("gelu'", &dx, slopes, (gidd_tolerance){GIDD_F32, 1, 1.0});
    buffer_release(&dev_b);
    buffer_release(&dev_w);
    buffer_release(&dev_x);
    buffer_release(&y);
    buffer_release(&dev_one);
    buffer_release(&dx);
    gidd_device_close(device);
}

// Shapes are built once; a second round of calls allocates nothing.
Test(linear, nothing_is_allocated_twice)
{
    gidd_device *device = open_test_device(GIDD_F32, 2);
    check_forward(device, linear_cases[4], GIDD_F32);
    buffer x = buffer_of(device, GIDD_F32, NULL, 64 * 64);
    buffer w = buffer_of(device, GIDD_F32, NULL, 64 * 64),
           y = buffer_of(device, GIDD_F32, NULL, 64 * 64);
    int64_t counts[3];
    for (int round = 0; round < 3; round++) {
        counts[round] = device->allocation_count;
        CHECK_OK(device->kernels->linear_fwd(
            device, &(gidd_linear_fwd_args){
                        .y = y.memory, .x = x.memory, .w = w.memory, .M = 64, .N = 64, .K = 64}));
    }
    cr_assert(counts[1] > counts[0]);
    cr_assert_eq(counts[2], counts[1]);
    buffer_release(&x);
    buffer_release(&w);
    buffer_release(&y);
    gidd_device_close(device);
}
