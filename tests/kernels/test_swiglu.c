/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cases.h"
#include "kernels/harness.h"
#include "kernels/reference.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static const gidd_dtype dtypes[] = {GIDD_F32, GIDD_BF16};

// Gates reach from where SiLU is 0 to where it is the identity.
static void check_case(gidd_device *device, swiglu_case c, int in_place)
{
    int64_t count = c.rows * c.F;
    double *pre = random_values(21, 2 * count, c.spread, device->dtype);
    double *dy = random_values(22, count, 1.0, device->dtype);
    double *y = malloc((size_t)count * sizeof *y), *dpre = malloc((size_t)(2 * count) * sizeof *dpre);
    for (int64_t r = 0; r < c.rows; r++) {
        ref_swiglu(y + r * c.F, pre + r * 2 * c.F, c.F);
        ref_swiglu_bwd(dpre + r * 2 * c.F, dy + r * c.F, pre + r * 2 * c.F, c.F);
    }
    buffer dev_pre = buffer_of(device, device->dtype, pre, 2 * count);
    buffer dev_dy = buffer_of(device, device->dtype, dy, count);
    buffer dev_y = buffer_of(device, device->dtype, NULL, count);
    buffer dev_dpre = buffer_of(device, device->dtype, NULL, 2 * count);
    buffer *target = in_place ? &dev_pre : &dev_dpre;
    CHECK_OK(device->kernels->swiglu_fwd(
        device,
        &(gidd_swiglu_fwd_args){.y = dev_y.memory, .pre = dev_pre.memory, .rows = c.rows, .cols = c.F}));
    CHECK_OK(device->kernels->swiglu_bwd(device, &(gidd_swiglu_bwd_args){.dpre = target->memory,
                                                                         .dy = dev_dy.memory,
                                                                         .pre = dev_pre.memory,
                                                                         .rows = c.rows,
                                                                         .cols = c.F}));
    // one exponential, a quotient and three products: as a sum of few numbers
    check_buffer("y", &dev_y, y, (gidd_tolerance){device->dtype, 1.0, largest_of(y, count)});
    check_buffer("dpre", target, dpre,
                 (gidd_tolerance){device->dtype, 1.0, 1.0 + largest_of(dpre, 2 * count)});
    buffer *all[] = {&dev_pre, &dev_dy, &dev_y, &dev_dpre};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        buffer_release(all[i]);
    }
    free(pre);
    free(dy);
    free(y);
    free(dpre);
}

Test(swiglu, forward_and_backward)
{
    for (int t = 0; t < 2; t++) {
        gidd_device *device = open_test_device(dtypes[t], 2);
        for (int i = 0; i < COUNT_OF(swiglu_cases); i++) {
            check_case(device, swiglu_cases[i], i % 2);
        }
        gidd_device_close(device);
    }
}

// e^-gate overflows far below 0: the limit is 0, not NaN.
Test(swiglu, far_gates)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    double       pre[16] = {-3e3, -200, -89, -88, 88, 200, 3e3, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    double       exact[8] = {0, 0, 0, 0, 88, 200, 3e3, 0};
    buffer       dev_pre = buffer_of(device, GIDD_F32, pre, 16), y = buffer_of(device, GIDD_F32, NULL, 8);
    CHECK_OK(device->kernels->swiglu_fwd(
        device, &(gidd_swiglu_fwd_args){.y = y.memory, .pre = dev_pre.memory, .rows = 1, .cols = 8}));
    check_buffer("y", &y, exact, (gidd_tolerance){GIDD_F32, 1.0, 1e-29});
    buffer_release(&dev_pre);
    buffer_release(&y);
    gidd_device_close(device);
}
