/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/emu/emu_block.h"
#include "kernels/kernels_cuda.h"
#include "kernels/loss_fixture.h"
#include "kernels/reference.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const gidd_dtype dtypes[] = {GIDD_F32, GIDD_BF16};

// Kept, masked, replaced in turn; special ids on purpose among the replaced.
static loss_fixture make_fixture(gidd_device *device, loss_case c, int mdlm)
{
    const gidd_kernels *k = device->kernels;
    loss_fixture        f = loss_fixture_of(device, mdlm ? k->loss_mdlm : k->loss_gidd, c, c.V - 1);
    f.mask_id = (int32_t)c.V - 1;
    f.z = malloc((size_t)c.rows * sizeof *f.z);
    for (int64_t p = 0; p < c.rows; p++) {
        f.z[p] = p % 3 == 0   ? f.x[p]
                 : p % 3 == 1 ? f.mask_id
                              : (int32_t)random_below(52, p, c.V - 1);
    }
    for (int64_t b = 0; b < f.B; b++) {
        double t = f.B == 1 ? 0.4 : 0.003 + 0.99 * (double)b / (double)(f.B - 1);
        float  weight = f.coef[b].row_weight;
        f.coef[b] = mdlm ? ref_coef_mdlm(t) : ref_coef_gidd(t, c.p_uniform, c.V);
        f.coef[b].row_weight = weight;
    }
    for (int64_t r = 0; r < c.rows; r += 2) {
        f.logits[r * c.Vr + f.mask_id] = 256.0; // the largest, and must not matter
    }
    loss_fixture_upload(&f);
    return f;
}

static double weight_of(const loss_fixture *f, int64_t p)
{
    const gidd_seq_coef *coef = &f->coef[p / f->c.T];
    float                w = f->z[p] == f->x[p]      ? coef->w_keep
                             : f->z[p] == f->mask_id ? coef->w_mask
                                                     : coef->w_other;
    return (double)w * (double)coef->row_weight;
}

// |computed - exact| <= 1e-5 (1 + |exact|): the bound of VECTORS for per-token arrays.
static void check_term(const char *what, double computed, double exact)
{
    cr_assert(fabs(computed - exact) <= 1e-5 * (1.0 + fabs(exact)), "%s is %.9g, should be %.9g",
              what, computed, exact);
}

static void check_case(gidd_device *device, loss_case c, int mdlm, int with_list)
{
    loss_fixture f = make_fixture(device, c, mdlm);
    double       scale = 1.0 / 8.0;
    double      *exact = malloc((size_t)c.Vr * sizeof *exact);
    loss_results got = loss_fixture_run_both(&f, with_list, scale);
    for (int64_t r = 0; r < c.rows; r++) {
        int64_t        p = with_list ? f.list[r] : r;
        const double  *logits = f.logits + r * c.Vr, *term = got.terms + p * 4;
        ref_loss_shape shape = {c.V, c.Vr, f.mask_id};
        double         g = scale * weight_of(&f, p);
        ref_loss_row   row =
            mdlm ? ref_loss_mdlm(exact, logits, f.x[p], f.z[p], g, shape)
                   : ref_loss_gidd(exact, logits, f.x[p], f.z[p], &f.coef[p / c.T], g, shape);
        check_term("kl", term[0], row.kl);
        check_term("is", term[1], row.is);
        check_term("log ratio", term[2], row.log_ratio);
        check_term("log p(x)", term[3], row.log_px);
        // a column costs an exponential, a product and a quotient; the row's two sums are nearly
        // exact
        check_values("dlogits", got.gradient + r * c.Vr, exact, c.Vr,
                     (gidd_tolerance){device->dtype, 1.0, 2.0 * largest_of(exact, c.Vr)});
        cr_assert_eq(got.gradient[r * c.Vr + f.mask_id], 0.0);
    }
    loss_results_release(&got);
    free(exact);
    loss_fixture_release(&f);
}

// Entries of no position: no term is written, and training leaves zeros in their rows.
static void check_unlisted(gidd_device *device, int mdlm)
{
    loss_case    c = {.rows = 6, .T = 3, .V = 97, .Vr = 128, .p_uniform = 0.1, .spread = 1.0};
    loss_fixture f = make_fixture(device, c, mdlm);
    f.list[4] = f.list[5] = GIDD_NO_POSITION; // without them positions 5 and 0 have no row
    loss_fixture_upload(&f);
    loss_fixture_run(&f, GIDD_LOSS_EVALUATE, 1, 1.0);
    check_buffer("logits after evaluation", &f.dev_logits, f.logits, (gidd_tolerance){device->dtype, 0, 0});
    loss_fixture_run(&f, GIDD_LOSS_TRAIN, 1, 1.0);
    double *terms = buffer_values(&f.terms), *gradient = buffer_values(&f.dev_logits);
    for (int64_t p = 0; p < c.rows; p++) {
        cr_assert_eq(isnan(terms[p * 4]) != 0, p == 0 || p == 5);
    }
    for (int64_t i = 4 * c.Vr; i < 6 * c.Vr; i++) {
        cr_assert_eq(gradient[i], 0.0);
    }
    free(terms);
    free(gradient);
    loss_fixture_release(&f);
}

Test(loss, rows_of_no_position)
{
    for (int t = 0; t < 2; t++) {
        gidd_device *device = open_test_device(dtypes[t], 2);
        check_unlisted(device, 0);
        check_unlisted(device, 1);
        gidd_device_close(device);
    }
}

static void check_all(int mdlm)
{
    for (int t = 0; t < 2; t++) {
        gidd_device *device = open_test_device(dtypes[t], 2);
        for (int i = 0; i < COUNT_OF(loss_cases); i++) {
            check_case(device, loss_cases[i], mdlm, i % 2);
        }
        gidd_device_close(device);
    }
}

Test(loss, gidd)
{
    check_all(0);
}

Test(loss, mdlm)
{
    check_all(1);
}

// Columns whose probability underflows: ordinary, padding, x and z. All results stay finite.
Test(loss, underflow_is_finite)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    loss_case    c = {.rows = 3, .T = 1, .V = 97, .Vr = 128, .p_uniform = 0.0, .spread = 1.0};
    loss_fixture f = make_fixture(device, c, 0);
    for (int64_t i = 0; i < c.rows * c.Vr; i++) {
        f.logits[i] = i % c.Vr == 5 ? 0.0 : -1000.0;
    }
    for (int64_t b = 0; b < 3; b++) {
        f.coef[b].row_weight = 1.0f;
    }
    f.coef[1].beta_other = 0.0f; // as if there were no uniform noise at all
    loss_fixture_upload(&f);
    loss_fixture_run(&f, GIDD_LOSS_TRAIN, 0, 1.0);
    double *terms = buffer_values(&f.terms), *gradient = buffer_values(&f.dev_logits);
    for (int64_t i = 0; i < c.rows * 4; i++) {
        cr_assert(isfinite(terms[i]), "term %lld is %g", (long long)i, terms[i]);
    }
    for (int64_t i = 0; i < c.rows * c.Vr; i++) {
        cr_assert(isfinite(gradient[i]), "dlogit %lld is %g", (long long)i, gradient[i]);
    }
    free(terms);
    free(gradient);
    loss_fixture_release(&f);
    gidd_device_close(device);
}

// A NaN or an infinity among the logits must show in the terms, not vanish.
Test(loss, nan_is_not_swallowed)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    double       wrong[] = {(double)NAN, HUGE_VAL};
    for (int i = 0; i < 2; i++) {
        loss_fixture f = make_fixture(device, loss_cases[1], 0);
        f.logits[3 * f.c.Vr + 40] = wrong[i];
        loss_fixture_upload(&f);
        loss_fixture_run(&f, GIDD_LOSS_TRAIN, 0, 1.0);
        double *terms = buffer_values(&f.terms);
        for (int term = 0; term < 4; term++) {
            cr_assert(!isfinite(terms[3 * 4 + term]) && isfinite(terms[2 * 4 + term]), "term %d",
                      term);
        }
        free(terms);
        loss_fixture_release(&f);
    }
    gidd_device_close(device);
}

/* What skipping clean rows loses (loss.skip_clean_rows): at p_u = 0 a row with z = x weighs next to
 * nothing, but its loss is w / xhat_x: 1e-5 at xhat_x = 1e-8, 1e-3 at 1e-10. */
static void check_lost(gidd_device *device, double xhat)
{
    loss_case    c = {.rows = 1, .T = 1, .V = 50259, .Vr = 50304, .p_uniform = 0.0};
    loss_fixture f = make_fixture(device, c, 0);
    cr_assert_eq(f.z[0], f.x[0]);
    f.coef[0] = ref_coef_gidd(0.5, 0.0, c.V);
    for (int64_t j = 0; j < c.Vr; j++) {
        double others = (double)(c.Vr - 2); // neither x nor the mask
        double at_x = round_to(log(xhat / (1.0 - xhat) * others), device->dtype);
        f.logits[j] = j == f.x[0] ? at_x : 0.0;
    }
    loss_fixture_upload(&f);
    loss_fixture_run(&f, GIDD_LOSS_EVALUATE, 0, 1.0);
    double *exact = malloc((size_t)c.Vr * sizeof *exact);
    ref_softmax(exact, f.logits, c.Vr, f.mask_id, 1.0); // xhat_x, after rounding to E
    double         predicted = (double)f.coef[0].w_keep / exact[f.x[0]], lost[2];
    int32_t        one = 1;
    gidd_loss_sums sums[2] = {{.min_log_px = HUGE_VAL}, {.min_log_px = HUGE_VAL}};
    buffer         dev_a = buffer_of_bytes(device, &one, sizeof one);
    for (int skip = 0; skip < 2; skip++) {
        buffer dev_sums = buffer_of_bytes(device, &sums[skip], sizeof sums[skip]);
        CHECK_OK(device->kernels->loss_sums(device,
                                            &(gidd_loss_sums_args){.sums = dev_sums.memory,
                                                                   .terms = f.terms.memory,
                                                                   .x = f.dev_x.memory,
                                                                   .z = f.dev_z.memory,
                                                                   .attention_mask = dev_a.memory,
                                                                   .coef = f.dev_coef.memory,
                                                                   .B = 1,
                                                                   .T = 1,
                                                                   .mask_id = f.mask_id,
                                                                   .skip_clean = skip}));
        buffer_bytes(&dev_sums, &sums[skip]);
        buffer_release(&dev_sums);
        lost[skip] = sums[skip].loss;
    }
    // what the prediction leaves out: beta_x / (alpha xhat_x), at most 1e-3 here, and log rho
    cr_assert(fabs(lost[0] - lost[1] - predicted) < 2e-3 * predicted, "xhat %g: %g lost, not %g",
              xhat, lost[0] - lost[1], predicted);
    cr_assert(fabs(predicted * xhat - 1e-13) < 0.1e-13, "%g", predicted * xhat);
    cr_assert_eq(sums[0].clean_loss, lost[0]); // so an evaluation, which runs all rows, sees it
    cr_assert(fabs(sums[0].min_log_px - log(exact[f.x[0]])) < 1e-3);
    cr_assert(lost[1] == 0.0 && isinf(sums[1].min_log_px));
    free(exact);
    buffer_release(&dev_a);
    loss_fixture_release(&f);
}

Test(loss, what_skipping_a_clean_row_loses)
{
    for (int t = 0; t < 2; t++) {
        gidd_device *device = open_test_device(dtypes[t], 1);
        check_lost(device, 1e-6);
        check_lost(device, 1e-8);
        check_lost(device, 1e-10);
        gidd_device_close(device);
    }
}

#ifdef GIDD_HAVE_EMU
static void run_limited(gidd_dtype dtype, loss_case c, int mdlm, size_t shared_bytes,
                        gidd_loss_row *terms, void *gradient)
{
    gidd_device *device = NULL;
    CHECK_OK(gidd_device_open(&(gidd_device_args){.name = "emu", .dtype = dtype, .threads = 1},
                              &device));
    gidd_emu_set_shared_bytes(device, shared_bytes);
    loss_fixture f = make_fixture(device, c, mdlm);
    loss_fixture_run(&f, GIDD_LOSS_TRAIN, 0, 0.125);
    buffer_bytes(&f.terms, terms);
    buffer_bytes(&f.dev_logits, gradient);
    loss_fixture_release(&f);
    gidd_device_close(device);
}

// What of a row does not fit on chip is read again: bitwise the same results, kept or not.
Test(loss, rows_that_do_not_fit_on_chip)
{
    const size_t    limits[] = {GIDD_EMU_SHARED_BYTES, 99 * 1024, 64 * 1024, 1024};
    const loss_case cases[] = {{3, 3, 50259, 50304, 0.1, 5.0}, {9, 3, 1030, 1152, 0.0, 60.0}};
    for (int n = 0; n < 2 * 2 * COUNT_OF(cases); n++) {
        loss_case     c = cases[n / 4];
        gidd_dtype    dtype = dtypes[n / 2 % 2];
        size_t        bytes = (size_t)(c.rows * c.Vr) * gidd_dtype_bytes(dtype);
        gidd_loss_row expected_terms[9], terms[9];
        void         *expected = malloc(bytes), *gradient = malloc(bytes);
        run_limited(dtype, c, n % 2, limits[0], expected_terms, expected);
        for (int i = 1; i < COUNT_OF(limits); i++) {
            run_limited(dtype, c, n % 2, limits[i], terms, gradient);
            cr_assert_eq(memcmp(terms, expected_terms, (size_t)c.rows * sizeof *terms), 0);
            cr_assert_eq(memcmp(gradient, expected, bytes), 0, "%zu bytes", limits[i]);
        }
        free(expected);
        free(gradient);
    }
}
#endif

// Sums of a small batch, written out by hand.
Test(loss, sums)
{
    gidd_device  *device = open_test_device(GIDD_F32, 2);
    int32_t       x[6] = {1, 2, 3, 4, 5, 6}, z[6] = {1, 9, 4, 4, 9, 9}, a[6] = {1, 1, 1, 1, 1, 0};
    gidd_loss_row rows[6] = {{1, 2, 0, -3},    {3, 4, 0, -1},  {5, 6, 0, -1},
                             {7, 8, 0, -0.5f}, {9, 10, 0, -1}, {11, 12, 0, -1}};
    gidd_seq_coef coef[3] = {{.w_keep = 2,
                              .w_mask = 3,
                              .w_other = 5,
                              .omega_keep = 7,
                              .omega_mask = 11,
                              .omega_other = 13,
                              .row_weight = 1},
                             {.w_keep = 1,
                              .w_mask = 1,
                              .w_other = 1,
                              .omega_keep = 1,
                              .omega_mask = 1,
                              .omega_other = 1,
                              .row_weight = 1},
                             {.w_keep = 1,
                              .w_mask = 1,
                              .w_other = 1,
                              .omega_keep = 1,
                              .omega_mask = 1,
                              .omega_other = 1,
                              .row_weight = 0}};
    for (int skip = 0; skip < 2; skip++) {
        gidd_loss_sums sums = {.loss = 100.0, .min_log_px = HUGE_VAL};
        if (skip) {
            rows[0].kl = NAN; // never written, must not be read
            rows[3].kl = NAN;
        }
        buffer dev_rows = buffer_of_bytes(device, rows, sizeof rows),
               dev_x = buffer_of_bytes(device, x, sizeof x);
        buffer dev_z = buffer_of_bytes(device, z, sizeof z),
               dev_a = buffer_of_bytes(device, a, sizeof a);
        buffer dev_coef = buffer_of_bytes(device, coef, sizeof coef),
               dev_sums = buffer_of_bytes(device, &sums, sizeof sums);
        CHECK_OK(device->kernels->loss_sums(device,
                                            &(gidd_loss_sums_args){.sums = dev_sums.memory,
                                                                   .terms = dev_rows.memory,
                                                                   .x = dev_x.memory,
                                                                   .z = dev_z.memory,
                                                                   .attention_mask = dev_a.memory,
                                                                   .coef = dev_coef.memory,
                                                                   .B = 3,
                                                                   .T = 2,
                                                                   .mask_id = 9,
                                                                   .skip_clean = skip}));
        buffer_bytes(&dev_sums, &sums);
        double clean = 2 * 3 + 1 * 15, clean_elbo = 7 * 3 + 1 * 15;
        cr_assert_eq(sums.loss, 100.0 + 3 * 7 + 1 * 11 + (skip ? 0 : clean));
        cr_assert_eq(sums.elbo, 11 * 7 + 1 * 11 + (skip ? 0 : clean_elbo));
        cr_assert_eq(sums.w_kl, 3 * 3 + 5 + (skip ? 0 : 2 * 1 + 7));
        cr_assert_eq(sums.w_is, 3 * 4 + 6 + (skip ? 0 : 2 * 2 + 8));
        cr_assert(sums.positions == 4 && sums.tokens == 4 && sums.w == 2 + 3 + 1 + 1);
        cr_assert(sums.noised_tokens == 2 && sums.nonfinite == 0);
        cr_assert_eq(sums.clean_loss, skip ? 0 : clean);
        cr_assert_eq(sums.clean_elbo, skip ? 0 : clean_elbo);
        cr_assert_eq(sums.min_log_px, skip ? HUGE_VAL : -3.0);
        buffer *all[] = {&dev_rows, &dev_x, &dev_z, &dev_a, &dev_coef, &dev_sums};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
            buffer_release(all[i]);
        }
    }
    gidd_device_close(device);
}
