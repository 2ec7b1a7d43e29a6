/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cases.h"
#include "kernels/harness.h"
#include "kernels/reference.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static const gidd_dtype dtypes[] = {GIDD_F32, GIDD_BF16};

typedef struct fixture {
    gidd_device  *device;
    rms_norm_case c;
    int64_t       numbers;
    double       *x, *y, *gain;
    buffer        dev_x, dev_y, dev_gain, x_out, u, rstd;
} fixture;

static fixture make_fixture(gidd_device *device, rms_norm_case c)
{
    fixture f = {.device = device, .c = c, .numbers = c.rows * c.D};
    f.x = random_values(11, f.numbers, 2.0, device->dtype);
    f.y = random_values(12, f.numbers, 2.0, device->dtype);
    f.gain = random_values(13, c.D, 1.5, GIDD_F32);
    f.dev_x = buffer_of(device, device->dtype, f.x, f.numbers);
    f.dev_y = buffer_of(device, device->dtype, f.y, f.numbers);
    f.dev_gain = buffer_of(device, GIDD_F32, f.gain, c.D);
    f.x_out = buffer_of(device, device->dtype, c.with_y ? NULL : f.x, f.numbers);
    f.u = buffer_of(device, device->dtype, NULL, f.numbers);
    f.rstd = buffer_of(device, GIDD_F32, NULL, c.rows);
    return f;
}

static void run_forward(fixture *f)
{
    CHECK_OK(f->device->kernels->rms_norm_fwd(
        f->device, &(gidd_rms_norm_fwd_args){.x_out = f->c.with_y ? f->x_out.memory : NULL,
                                             .u = f->u.memory,
                                             .rstd = f->rstd.memory,
                                             .x = f->dev_x.memory,
                                             .y = f->c.with_y ? f->dev_y.memory : NULL,
                                             .gain = f->dev_gain.memory,
                                             .rows = f->c.rows,
                                             .cols = f->c.D}));
}

static void release_fixture(fixture *f)
{
    buffer *all[] = {&f->dev_x, &f->dev_y, &f->dev_gain, &f->x_out, &f->u, &f->rstd};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        buffer_release(all[i]);
    }
    free(f->x);
    free(f->y);
    free(f->gain);
}

static void check_forward(gidd_device *device, rms_norm_case c)
{
    fixture f = make_fixture(device, c);
    run_forward(&f);
    double *exact = malloc((size_t)f.numbers * sizeof *exact);
    double *rstd = malloc((size_t)c.rows * sizeof *rstd);
    for (int64_t i = 0; i < f.numbers; i++) {
        exact[i] = f.x[i] + (c.with_y ? f.y[i] : 0.0);
    }
    check_buffer("x'", &f.x_out, exact, (gidd_tolerance){device->dtype, c.with_y, 4.0});
    double *x = buffer_values(&f.x_out); // the sum of squares is that of the stored x'
    for (int64_t r = 0; r < c.rows; r++) {
        ref_rms_norm(exact + r * c.D, rstd + r, x + r * c.D, f.gain, c.D);
    }
    check_buffer("rstd", &f.rstd, rstd,
                 (gidd_tolerance){GIDD_F32, (double)c.D, largest_of(rstd, c.rows)});
    check_buffer("u", &f.u, exact,
                 (gidd_tolerance){device->dtype, (double)c.D, largest_of(exact, f.numbers) + 1.0});
    free(exact);
    free(rstd);
    free(x);
    release_fixture(&f);
}

static void check_backward(gidd_device *device, rms_norm_case c, int with_above, int accumulate)
{
    fixture f = make_fixture(device, c);
    run_forward(&f);
    double *x = buffer_values(&f.x_out), *rstd = buffer_values(&f.rstd);
    double *du = random_values(15, f.numbers, 1.0, device->dtype);
    double *above = random_values(16, f.numbers, 1.0, device->dtype);
    double *old = random_values(17, c.D, 1.0, GIDD_F32);
    double *dx = calloc((size_t)f.numbers, sizeof *dx), *dgain = calloc((size_t)c.D, sizeof *dgain);
    for (int64_t r = 0; r < c.rows; r++) {
        ref_rms_norm_bwd(dx + r * c.D, dgain, du + r * c.D, x + r * c.D, rstd[r], f.gain, c.D);
    }
    for (int64_t i = 0; i < f.numbers; i++) {
        dx[i] += with_above ? above[i] : 0.0;
    }
    for (int64_t j = 0; j < c.D; j++) {
        dgain[j] += accumulate ? old[j] : 0.0;
    }
    buffer dev_du = buffer_of(device, device->dtype, du, f.numbers);
    buffer dev_dx = buffer_of(device, device->dtype, with_above ? above : NULL, f.numbers);
    buffer dev_dgain = buffer_of(device, GIDD_F32, accumulate ? old : NULL, c.D);
    CHECK_OK(device->kernels->rms_norm_bwd(
        device, &(gidd_rms_norm_bwd_args){.dx = dev_dx.memory,
                                          .dgain = dev_dgain.memory,
                                          .du = dev_du.memory,
                                          .dx_out = with_above ? dev_dx.memory : NULL,
                                          .x_out = f.x_out.memory,
                                          .rstd = f.rstd.memory,
                                          .gain = f.dev_gain.memory,
                                          .rows = c.rows,
                                          .cols = c.D,
                                          .accumulate = accumulate}));
    double largest = 1.0 + largest_of(dx, f.numbers) + largest_of(dgain, c.D);
    check_buffer("dx", &dev_dx, dx, (gidd_tolerance){device->dtype, (double)c.D, largest});
    check_buffer("dgain", &dev_dgain, dgain,
                 (gidd_tolerance){GIDD_F32, (double)(c.rows + c.D), largest});
    buffer *all[] = {&dev_du, &dev_dx, &dev_dgain};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        buffer_release(all[i]);
    }
    double *owned[] = {x, rstd, du, above, old, dx, dgain};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        free(owned[i]);
    }
    release_fixture(&f);
}

Test(rms_norm, forward)
{
    for (int t = 0; t < 2; t++) {
        gidd_device *device = open_test_device(dtypes[t], 2);
        for (int i = 0; i < COUNT_OF(rms_norm_cases); i++) {
            check_forward(device, rms_norm_cases[i]);
        }
        gidd_device_close(device);
    }
}

Test(rms_norm, backward)
{
    for (int t = 0; t < 2; t++) {
        gidd_device *device = open_test_device(dtypes[t], 2);
        for (int i = 0; i < COUNT_OF(rms_norm_cases); i++) {
            check_backward(device, rms_norm_cases[i], 1, 0);
            check_backward(device, rms_norm_cases[i], 0, 1);
        }
        gidd_device_close(device);
    }
}

// A row of zeros has a gain of 1/sqrt(1e-6) and no more.
Test(rms_norm, zeros_are_finite)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    fixture      f = make_fixture(device, (rms_norm_case){.rows = 2, .D = 16});
    double       zeros[32] = {0};
    buffer_release(&f.dev_x);
    f.dev_x = buffer_of(device, GIDD_F32, zeros, 32);
    run_forward(&f);
    double rstd[2] = {1000.0, 1000.0};
    check_buffer("rstd", &f.rstd, rstd, (gidd_tolerance){GIDD_F32, 1.0, 1000.0});
    check_buffer("u", &f.u, zeros, (gidd_tolerance){GIDD_F32, 0.0, 0.0});
    release_fixture(&f);
    gidd_device_close(device);
}
