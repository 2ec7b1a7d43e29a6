/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cases.h"
#include "kernels/harness.h"
#include "kernels/reference.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const gidd_dtype dtypes[] = {GIDD_F32, GIDD_BF16};

typedef struct fixture {
    gidd_device   *device;
    loss_case      c;
    int64_t        B;
    int32_t       *x, *mask, *list; // list: rows in another order
    gidd_seq_coef *coef;
    double        *logits;
    buffer         dev_x, dev_mask, dev_list, dev_coef, dev_logits, terms;
} fixture;

static fixture make_fixture(gidd_device *device, loss_case c)
{
    fixture f = {.device = device, .c = c, .B = c.rows / c.T};
    size_t  ids = (size_t)c.rows * sizeof(int32_t);
    f.x = malloc(ids);
    f.mask = malloc(ids);
    f.list = malloc(ids);
    f.coef = calloc((size_t)f.B, sizeof *f.coef);
    for (int64_t p = 0; p < c.rows; p++) {
        f.x[p] = (int32_t)random_below(51, p, c.V);
        f.mask[p] = random_below(52, p, 4) > 0;
        f.list[p] = (int32_t)((p + 1) % c.rows);
    }
    for (int64_t b = 0; b < f.B; b++) {
        f.coef[b].w_keep = 1.0f;
        f.coef[b].row_weight = b > 0 && b == f.B - 1 ? 0.0f : 1.0f; // as the padding of an evaluation
    }
    f.logits = random_values(53, c.rows * c.Vr, c.spread, device->dtype);
    for (int64_t i = 0; i < c.rows * c.Vr; i++) {
        f.logits[i] = i % c.Vr < c.V ? f.logits[i] : 1e6; // the largest, and must not matter
    }
    f.dev_x = buffer_of_bytes(device, f.x, ids);
    f.dev_mask = buffer_of_bytes(device, f.mask, ids);
    f.dev_list = buffer_of_bytes(device, f.list, ids);
    f.dev_coef = buffer_of_bytes(device, f.coef, (size_t)f.B * sizeof *f.coef);
    f.dev_logits = buffer_of(device, device->dtype, f.logits, c.rows * c.Vr);
    f.terms = buffer_of(device, GIDD_F32, NULL, c.rows * 4);
    return f;
}

static void release_fixture(fixture *f)
{
    buffer *all[] = {&f->dev_x, &f->dev_mask, &f->dev_list, &f->dev_coef, &f->dev_logits, &f->terms};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        buffer_release(all[i]);
    }
    void *owned[] = {f->x, f->mask, f->list, f->coef, f->logits};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        free(owned[i]);
    }
}

static void run(fixture *f, gidd_loss_mode mode, int with_list, double scale)
{
    CHECK_OK(f->device->kernels->loss_next(
        f->device, &(gidd_loss_args){.logits = f->dev_logits.memory,
                                     .terms = f->terms.memory,
                                     .x = f->dev_x.memory,
                                     .attention_mask = f->dev_mask.memory,
                                     .row_list = with_list ? f->dev_list.memory : NULL,
                                     .coef = f->dev_coef.memory,
                                     .rows = f->c.rows,
                                     .T = f->c.T,
                                     .V = f->c.V,
                                     .Vr = f->c.Vr,
                                     .scale = (float)scale,
                                     .mode = mode}));
}

static void check_row(const fixture *f, int64_t r, int64_t p, const double *term, const double *gradient,
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
    fixture f = make_fixture(device, c);
    double *exact = malloc((size_t)c.Vr * sizeof *exact), scale = 1.0 / 8.0;
    run(&f, GIDD_LOSS_EVALUATE, with_list, scale);
    double *evaluated = buffer_values(&f.terms);
    check_buffer("logits after evaluation", &f.dev_logits, f.logits,
                 (gidd_tolerance){device->dtype, 0, 0});
    run(&f, GIDD_LOSS_TRAIN, with_list, scale);
    double *terms = buffer_values(&f.terms), *gradient = buffer_values(&f.dev_logits);
    cr_assert_eq(memcmp(evaluated, terms, (size_t)(c.rows * 4) * sizeof *terms), 0);
    for (int64_t r = 0; r < c.rows; r++) {
        int64_t p = with_list ? f.list[r] : r;
        check_row(&f, r, p, terms + p * 4, gradient + r * c.Vr, scale, exact);
    }
    free(evaluated);
    free(terms);
    free(gradient);
    free(exact);
    release_fixture(&f);
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
        fixture      f = make_fixture(device, (loss_case){.rows = 4, .T = 4, .V = 97, .Vr = 128, .spread = 1.0});
        f.list[2] = GIDD_NO_POSITION;
        buffer_release(&f.dev_list);
        f.dev_list = buffer_of_bytes(device, f.list, 4 * sizeof *f.list);
        run(&f, GIDD_LOSS_EVALUATE, 1, 1.0);
        check_buffer("logits", &f.dev_logits, f.logits, (gidd_tolerance){device->dtype, 0, 0});
        run(&f, GIDD_LOSS_TRAIN, 1, 1.0);
        double *terms = buffer_values(&f.terms), *gradient = buffer_values(&f.dev_logits);
        cr_assert(isnan(terms[3 * 4]) && isfinite(terms[1 * 4]), "position 3 has been left out, 1 not");
        for (int64_t j = 0; j < 128; j++) {
            cr_assert_eq(gradient[2 * 128 + j], 0.0);
        }
        free(terms);
        free(gradient);
        release_fixture(&f);
        gidd_device_close(device);
    }
}

// A NaN or an infinity among the logits must show in the terms, not vanish.
Test(loss_next, nan_is_not_swallowed)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    double       wrong[] = {(double)NAN, HUGE_VAL};
    for (int i = 0; i < 2; i++) {
        fixture f = make_fixture(device, (loss_case){.rows = 4, .T = 4, .V = 97, .Vr = 128, .spread = 1.0});
        int32_t all[4] = {1, 1, 1, 1};
        f.logits[1 * 128 + 40] = wrong[i];
        buffer_release(&f.dev_logits);
        buffer_release(&f.dev_mask);
        f.dev_logits = buffer_of(device, GIDD_F32, f.logits, 4 * 128);
        f.dev_mask = buffer_of_bytes(device, all, sizeof all);
        run(&f, GIDD_LOSS_TRAIN, 0, 1.0);
        double *terms = buffer_values(&f.terms);
        cr_assert(!isfinite(terms[1 * 4 + 1]) && isfinite(terms[0 * 4 + 1]) && isfinite(terms[2 * 4 + 1]));
        free(terms);
        release_fixture(&f);
    }
    gidd_device_close(device);
}
