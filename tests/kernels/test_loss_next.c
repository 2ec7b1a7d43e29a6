/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/loss_fixture.h"
#include "kernels/reference.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static const gidd_dtype dtypes[] = {GIDD_F32, GIDD_BF16};

static loss_fixture make_fixture(gidd_device *device, loss_case c)
{
    loss_fixture f = loss_fixture_of(device, device->kernels->loss_next, c, c.V);
    f.mask = malloc((size_t)c.rows * sizeof *f.mask);
    for (int64_t p = 0; p < c.rows; p++) {
        f.mask[p] = random_below(52, p, 4) > 0;
    }
    for (int64_t b = 0; b < f.B; b++) {
        f.coef[b].w_keep = 1.0f;
    }
    for (int64_t i = 0; i < c.rows * c.Vr; i++) {
        f.logits[i] = i % c.Vr < c.V ? f.logits[i] : 1e6; // the largest, and must not matter
    }
    loss_fixture_upload(&f);
    return f;
}

static void check_row(const loss_fixture *f, int64_t r, int64_t p, const double *term, const double *gradient,
                      double scale, double *exact)
{
    int     counts = p % f->c.T + 1 < f->c.T && f->mask[p] != 0;
    int32_t target = counts ? f->x[p + 1] : -1;
    double  g = scale * (double)f->coef[p / f->c.T].row_weight;
    double  nll = ref_loss_next(exact, f->logits + r * f->c.Vr, target, g, f->c.V, f->c.Vr);
    cr_assert(term[0] == 0.0 && term[2] == 0.0);
    cr_assert(fabs(term[1] - nll) <= 1e-5 * (1.0 + nll), "nll is %.9g, should be %.9g", term[1], nll);
    cr_assert_eq(term[3], -term[1]);
    check_values("dlogits", gradient, exact, f->c.Vr,
                 (gidd_tolerance){f->device->dtype, 1.0, 2.0 * largest_of(exact, f->c.Vr)});
    for (int64_t j = counts ? f->c.V : 0; j < f->c.Vr; j++) {
        cr_assert_eq(gradient[j], 0.0);
    }
}

static void check_case(gidd_device *device, loss_case c, int with_list)
{
    loss_fixture f = make_fixture(device, c);
    double      *exact = malloc((size_t)c.Vr * sizeof *exact), scale = 1.0 / 8.0;
    loss_results got = loss_fixture_run_both(&f, with_list, scale);
    for (int64_t r = 0; r < c.rows; r++) {
        int64_t p = with_list ? f.list[r] : r;
        check_row(&f, r, p, got.terms + p * 4, got.gradient + r * c.Vr, scale, exact);
    }
    loss_results_release(&got);
    free(exact);
    loss_fixture_release(&f);
}

Test(loss_next, rows)
{
    for (int t = 0; t < 2; t++) {
        gidd_device *device = open_test_device(dtypes[t], 2);
        for (int i = 0; i < COUNT_OF(loss_cases); i++) {
            check_case(device, loss_cases[i], i % 2);
        }
        gidd_device_close(device);
    }
}

// A row of a list that is longer than what it lists: zeros, and no terms.
Test(loss_next, rows_of_no_position)
{
    for (int t = 0; t < 2; t++) {
        gidd_device *device = open_test_device(dtypes[t], 1);
        loss_fixture f = make_fixture(device, (loss_case){.rows = 4, .T = 4, .V = 97, .Vr = 128, .spread = 1.0});
        f.list[2] = GIDD_NO_POSITION;
        loss_fixture_upload(&f);
        loss_fixture_run(&f, GIDD_LOSS_EVALUATE, 1, 1.0);
        check_buffer("logits", &f.dev_logits, f.logits, (gidd_tolerance){device->dtype, 0, 0});
        loss_fixture_run(&f, GIDD_LOSS_TRAIN, 1, 1.0);
        double *terms = buffer_values(&f.terms), *gradient = buffer_values(&f.dev_logits);
        cr_assert(isnan(terms[3 * 4]) && isfinite(terms[1 * 4]), "position 3 has been left out, 1 not");
        for (int64_t j = 0; j < 128; j++) {
            cr_assert_eq(gradient[2 * 128 + j], 0.0);
        }
        free(terms);
        free(gradient);
        loss_fixture_release(&f);
        gidd_device_close(device);
    }
}

// A NaN or an infinity among the logits must show in the terms, not vanish.
Test(loss_next, nan_is_not_swallowed)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    double       wrong[] = {(double)NAN, HUGE_VAL};
    for (int i = 0; i < 2; i++) {
        loss_fixture f = make_fixture(device, (loss_case){.rows = 4, .T = 4, .V = 97, .Vr = 128, .spread = 1.0});
        f.logits[1 * 128 + 40] = wrong[i];
        for (int p = 0; p < 4; p++) {
            f.mask[p] = 1;
        }
        loss_fixture_upload(&f);
        loss_fixture_run(&f, GIDD_LOSS_TRAIN, 0, 1.0);
        double *terms = buffer_values(&f.terms);
        cr_assert(!isfinite(terms[1 * 4 + 1]) && isfinite(terms[0 * 4 + 1]) && isfinite(terms[2 * 4 + 1]));
        free(terms);
        loss_fixture_release(&f);
    }
    gidd_device_close(device);
}
