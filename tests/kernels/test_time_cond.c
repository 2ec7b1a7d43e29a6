/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/harness.h"
#include "kernels/reference.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { FEATURES = 256, MAX_B = 5, MAX_C = 128 };

// Parameters in one array: w0, b0, w2, b2.
static int64_t parameter_count(int64_t C)
{
    return C * FEATURES + C + C * C + C;
}

// sum_b dc[b] . c[b] in float64, and c where wanted.
static double objective(const double *parameters, const double *t, const double *dc, int64_t B,
                        int64_t C, double *features, double *hidden, double *embedding, double *c)
{
    const double *w0 = parameters, *b0 = w0 + C * FEATURES, *w2 = b0 + C, *b2 = w2 + C * C;
    double        sum = 0.0;
    for (int64_t b = 0; b < B; b++) {
        ref_time_cond(features + b * FEATURES, hidden + b * C, embedding + b * C, c + b * C, t[b],
                      w0, b0, w2, b2, C);
        for (int64_t i = 0; i < C; i++) {
            sum += dc[b * C + i] * c[b * C + i];
        }
    }
    return sum;
}

static void check_case(gidd_device *device, int64_t B, int64_t C, int accumulate)
{
    static double features[MAX_B * FEATURES], hidden[MAX_B * MAX_C], embedding[MAX_B * MAX_C],
        c[MAX_B * MAX_C];
    int64_t count = parameter_count(C);
    double *parameters = random_values(31, count, 0.3, GIDD_F32),
           *dc = random_values(32, B * C, 1.0, GIDD_F32);
    double       *old = random_values(33, count, 1.0, GIDD_F32);
    gidd_seq_coef coef[MAX_B];
    double        t[MAX_B];
    memset(coef, 0, sizeof coef);
    for (int64_t b = 0; b < B; b++) {
        coef[b].t = b == 0 ? 1e-4f : 0.9999f * (float)(b + 1) / (float)B;
        t[b] = (double)coef[b].t;
    }
    buffer w = buffer_of(device, GIDD_F32, parameters, count);
    buffer dw = buffer_of(device, GIDD_F32, accumulate ? old : NULL, count);
    buffer dev_coef = buffer_of_bytes(device, coef, (size_t)B * sizeof *coef);
    buffer f = buffer_of(device, GIDD_F32, NULL, B * FEATURES),
           h = buffer_of(device, GIDD_F32, NULL, B * C);
    buffer e = buffer_of(device, GIDD_F32, NULL, B * C),
           dev_c = buffer_of(device, GIDD_F32, NULL, B * C);
    buffer dev_dc = buffer_of(device, GIDD_F32, dc, B * C);
    float *at = w.memory, *gradient = dw.memory;
    CHECK_OK(device->kernels->time_cond_fwd(
        device, &(gidd_time_cond_fwd_args){.features = f.memory,
                                           .hidden = h.memory,
                                           .embedding = e.memory,
                                           .c = dev_c.memory,
                                           .coef = dev_coef.memory,
                                           .w0 = at,
                                           .b0 = at + C * FEATURES,
                                           .w2 = at + C * FEATURES + C,
                                           .b2 = at + C * FEATURES + C + C * C,
                                           .B = B,
                                           .C = C}));
    CHECK_OK(device->kernels->time_cond_bwd(
        device, &(gidd_time_cond_bwd_args){.dw0 = gradient,
                                           .db0 = gradient + C * FEATURES,
                                           .dw2 = gradient + C * FEATURES + C,
                                           .db2 = gradient + C * FEATURES + C + C * C,
                                           .dc = dev_dc.memory,
                                           .features = f.memory,
                                           .hidden = h.memory,
                                           .embedding = e.memory,
                                           .w2 = at + C * FEATURES + C,
                                           .B = B,
                                           .C = C,
                                           .accumulate = accumulate}));
    (void)objective(parameters, t, dc, B, C, features, hidden, embedding, c);
    gidd_tolerance tolerance = {GIDD_F32, FEATURES + 2.0 * (double)C,
                                1.0 + largest_of(hidden, B * C)};
    check_buffer("features", &f, features, (gidd_tolerance){GIDD_F32, 1, 1.0});
    check_buffer("hidden", &h, hidden, tolerance);
    check_buffer("embedding", &e, embedding, tolerance);
    check_buffer("c", &dev_c, c, tolerance);
    double *computed = buffer_values(&dw);
    for (int64_t n = 0; n < 60; n++) { // the gradient, by a 4-point difference of the reference
        int64_t i = n < 8 ? count - 1 - n : random_below(34, n, count);
        double  step = 1e-3, kept = parameters[i], values[4], moves[] = {-2, -1, 1, 2};
        for (int k = 0; k < 4; k++) {
            parameters[i] = kept + moves[k] * step;
            values[k] = objective(parameters, t, dc, B, C, features, hidden, embedding, c);
        }
        parameters[i] = kept;
        double exact = (values[0] - 8.0 * values[1] + 8.0 * values[2] - values[3]) / (12.0 * step) +
                       (accumulate ? old[i] : 0.0);
        check_values("gradient", computed + i, &exact, 1,
                     (gidd_tolerance){GIDD_F32, FEATURES + 2.0 * (double)C, 10.0});
    }
    for (int64_t i = 0; i < count; i++) {
        cr_assert(isfinite(computed[i]), "gradient %lld was not written", (long long)i);
    }
    buffer *all[] = {&w, &dw, &dev_coef, &f, &h, &e, &dev_c, &dev_dc};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        buffer_release(all[i]);
    }
    free(parameters);
    free(dc);
    free(old);
    free(computed);
}

Test(time_cond, forward_and_gradient)
{
    gidd_device *device = open_test_device(GIDD_BF16, 2); // fp32 whatever the device's type is
    check_case(device, 1, 1, 0);
    check_case(device, 3, 7, 1);
    check_case(device, 5, 128, 0);
    check_case(device, 2, 128, 1);
    gidd_device_close(device);
}
