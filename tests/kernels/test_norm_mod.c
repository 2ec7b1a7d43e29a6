/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cases.h"
#include "kernels/harness.h"
#include "kernels/reference.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static const gidd_dtype dtypes[] = {GIDD_F32, GIDD_BF16};

enum { TAIL = 3 }; // entries of no row behind a list

// Everything that one case needs; vectors in double as the reference reads them.
typedef struct fixture {
    gidd_device     *device;
    gidd_dtype       dtype;
    norm_mod_case    c;
    int64_t          rows, u_rows, listed, stride; // u_rows: TAIL more than are listed, where there is a list
    gidd_mod_offsets at;
    int32_t         *list; // rows of u
    double          *x, *y, *gain, *mods;
    buffer           dev_x, dev_y, dev_gain, dev_mods, dev_list;
    buffer           x_out, u, mean, rstd;
} fixture;

static fixture make_fixture(gidd_device *device, norm_mod_case c)
{
    fixture f = {.device = device, .dtype = device->dtype, .c = c, .rows = c.B * c.T};
    f.stride = 5 * c.D + 3;
    f.at = (gidd_mod_offsets){.shift = c.D + 1, .scale = 3 * c.D + 2, .gate = 0};
    f.list = malloc((size_t)(f.rows + TAIL) * sizeof *f.list);
    for (int64_t r = 0; r < f.rows; r++) {
        if (!c.row_list || random_below(5, r, 2) == 0) {
            f.list[f.listed++] = (int32_t)r;
        }
    }
    f.u_rows = c.row_list ? f.listed + TAIL : f.listed;
    for (int64_t i = f.listed; i < f.u_rows; i++) {
        f.list[i] = GIDD_NO_POSITION;
    }
    f.x = random_values(11, f.rows * c.D, 2.0, f.dtype);
    f.y = random_values(12, f.rows * c.D, 2.0, f.dtype);
    f.gain = random_values(13, c.D, 1.5, GIDD_F32);
    f.mods = random_values(14, c.B * f.stride, 1.0, GIDD_F32);
    f.dev_x = buffer_of(device, f.dtype, f.x, f.rows * c.D);
    f.dev_y = buffer_of(device, f.dtype, f.y, f.rows * c.D);
    f.dev_gain = buffer_of(device, GIDD_F32, f.gain, c.D);
    f.dev_mods = buffer_of(device, GIDD_F32, f.mods, c.B * f.stride);
    f.dev_list = buffer_of_bytes(device, f.list, (size_t)f.u_rows * sizeof *f.list);
    f.x_out = buffer_of(device, f.dtype, NULL, f.rows * c.D);
    f.u = buffer_of(device, f.dtype, NULL, f.u_rows * c.D);
    f.mean = buffer_of(device, GIDD_F32, NULL, f.rows);
    f.rstd = buffer_of(device, GIDD_F32, NULL, f.rows);
    return f;
}

static void run_forward(fixture *f)
{
    CHECK_OK(f->device->kernels->norm_mod_fwd(
        f->device, &(gidd_norm_mod_fwd_args){.x_out = f->x_out.memory,
                                             .u = f->u.memory,
                                             .mean = f->mean.memory,
                                             .rstd = f->rstd.memory,
                                             .x = f->dev_x.memory,
                                             .y = f->c.with_y ? f->dev_y.memory : NULL,
                                             .gain = f->dev_gain.memory,
                                             .mods = f->dev_mods.memory,
                                             .row_list = f->c.row_list ? f->dev_list.memory : NULL,
                                             .u_rows = f->u_rows,
                                             .at = f->at,
                                             .stride = f->stride,
                                             .rows = f->rows,
                                             .cols = f->c.D,
                                             .T = f->c.T}));
}

static void release_fixture(fixture *f)
{
    buffer *all[] = {&f->dev_x, &f->dev_y, &f->dev_gain, &f->dev_mods, &f->dev_list,
                     &f->x_out, &f->u,     &f->mean,     &f->rstd};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        buffer_release(all[i]);
    }
    free(f->list);
    free(f->x);
    free(f->y);
    free(f->gain);
    free(f->mods);
}

static const double *mods_of(const fixture *f, int64_t row, int64_t offset)
{
    return f->mods + row / f->c.T * f->stride + offset;
}

static void check_forward(gidd_device *device, norm_mod_case c)
{
    fixture f = make_fixture(device, c);
    int64_t D = c.D;
    run_forward(&f);
    double *exact = malloc((size_t)(f.rows * D) * sizeof *exact);
    for (int64_t i = 0; i < f.rows * D; i++) {
        exact[i] = f.x[i] + (c.with_y ? mods_of(&f, i / D, f.at.gate)[i % D] * f.y[i] : 0.0);
    }
    check_buffer("x'", &f.x_out, exact, (gidd_tolerance){f.dtype, c.with_y, 4.0});
    free(exact);
    exact = malloc((size_t)(f.u_rows * D + 1) * sizeof *exact);
    double *x = buffer_values(&f.x_out); // statistics are those of the stored x'
    double *mean = malloc((size_t)f.rows * sizeof *mean),
           *rstd = malloc((size_t)f.rows * sizeof *rstd);
    double *all = malloc((size_t)(f.rows * D) * sizeof *all);
    for (int64_t r = 0; r < f.rows; r++) {
        ref_norm(all + r * D, mean + r, rstd + r, x + r * D, f.gain, mods_of(&f, r, f.at.scale),
                 mods_of(&f, r, f.at.shift), D);
    }
    for (int64_t i = 0; i < f.u_rows * D; i++) {
        exact[i] = i / D < f.listed ? all[f.list[i / D] * D + i % D] : (double)NAN; // left as it was
    }
    check_buffer("mean", &f.mean, mean, (gidd_tolerance){GIDD_F32, (double)D, 1.0});
    check_buffer("rstd", &f.rstd, rstd,
                 (gidd_tolerance){GIDD_F32, (double)D, largest_of(rstd, f.rows)});
    check_buffer("u", &f.u, exact,
                 (gidd_tolerance){f.dtype, (double)D, largest_of(exact, f.listed * D) + 1.0});
    free(exact);
    free(x);
    free(mean);
    free(rstd);
    free(all);
    release_fixture(&f);
}

// Gradients of all inputs, by the reference, from what the forward kept.
typedef struct gradients {
    double *dx, *dy, *dgain, *dmods;
    double  largest;
} gradients;

static gradients reference_backward(const fixture *f, const double *du, const double *dx_out,
                                    const double *kept_x, const double *mean, const double *rstd)
{
    int64_t   D = f->c.D;
    gradients g = {.dx = calloc((size_t)(f->rows * D), sizeof(double)),
                   .dy = calloc((size_t)(f->rows * D), sizeof(double)),
                   .dgain = calloc((size_t)D, sizeof(double)),
                   .dmods = calloc((size_t)(f->c.B * f->stride), sizeof(double))};
    double   *du_of_row = calloc((size_t)(f->rows * D), sizeof(double));
    for (int64_t i = 0; i < f->listed; i++) {
        memcpy(du_of_row + f->list[i] * D, du + i * D, (size_t)D * sizeof *du);
    }
    for (int64_t r = 0; r < f->rows; r++) {
        const double *scale = mods_of(f, r, f->at.scale), *gate = mods_of(f, r, f->at.gate);
        double       *dmods = g.dmods + r / f->c.T * f->stride;
        ref_norm_bwd(g.dx + r * D, du_of_row + r * D, kept_x + r * D, mean[r], rstd[r], f->gain,
                     scale, D);
        for (int64_t j = 0; j < D; j++) {
            int64_t i = r * D + j;
            double  xhat = (kept_x[i] - mean[r]) * rstd[r];
            g.dx[i] += dx_out != NULL ? dx_out[i] : 0.0;
            g.dy[i] = gate[j] * g.dx[i];
            dmods[f->at.shift + j] += du_of_row[i];
            dmods[f->at.scale + j] += du_of_row[i] * xhat * f->gain[j];
            dmods[f->at.gate + j] += g.dx[i] * f->y[i];
            g.dgain[j] += du_of_row[i] * (1.0 + scale[j]) * xhat;
        }
    }
    g.largest = 1.0 + largest_of(g.dx, f->rows * D) + largest_of(g.dgain, D) +
                largest_of(g.dmods, f->c.B * f->stride);
    free(du_of_row);
    return g;
}

static void check_mods(const fixture *f, const buffer *dmods, const gradients *g,
                       gidd_tolerance tolerance)
{
    double *computed = buffer_values(dmods);
    for (int64_t i = 0; i < f->c.B * f->stride; i++) {
        int64_t offset = i % f->stride;
        int     written = (offset >= f->at.shift && offset < f->at.shift + f->c.D) ||
                      (offset >= f->at.scale && offset < f->at.scale + f->c.D) ||
                      (f->c.with_y && offset >= f->at.gate && offset < f->at.gate + f->c.D);
        double exact = written ? g->dmods[i] : (double)NAN; // what is not ours keeps its NaN
        check_values("dmods", computed + i, &exact, 1, tolerance);
    }
    free(computed);
}

static void check_backward(gidd_device *device, norm_mod_case c, int with_above, int accumulate)
{
    fixture f = make_fixture(device, c);
    int64_t D = c.D, numbers = f.rows * D;
    run_forward(&f);
    double *x = buffer_values(&f.x_out), *mean = buffer_values(&f.mean),
           *rstd = buffer_values(&f.rstd);
    double *du = random_values(15, f.u_rows * D, 1.0, f.dtype);
    double *above = random_values(16, numbers, 1.0, f.dtype),
           *old = random_values(17, D, 1.0, GIDD_F32);
    for (int64_t i = f.listed * D; i < f.u_rows * D; i++) {
        du[i] = (double)NAN; // of no row
    }
    gradients g = reference_backward(&f, du, with_above ? above : NULL, x, mean, rstd);
    buffer    dev_du = buffer_of(device, f.dtype, du, f.u_rows * D);
    buffer    dx =
        buffer_of(device, f.dtype, with_above ? above : NULL, numbers); // dx may alias dx_out
    buffer dy = buffer_of(device, f.dtype, NULL, numbers);
    buffer dgain = buffer_of(device, GIDD_F32, accumulate ? old : NULL, D);
    buffer dmods = buffer_of(device, GIDD_F32, NULL, c.B * f.stride);
    CHECK_OK(device->kernels->norm_mod_bwd(
        device, &(gidd_norm_mod_bwd_args){.dx = dx.memory,
                                          .dy = c.with_y ? dy.memory : NULL,
                                          .dgain = dgain.memory,
                                          .dmods = dmods.memory,
                                          .du = dev_du.memory,
                                          .dx_out = with_above ? dx.memory : NULL,
                                          .x_out = f.x_out.memory,
                                          .y = c.with_y ? f.dev_y.memory : NULL,
                                          .mean = f.mean.memory,
                                          .rstd = f.rstd.memory,
                                          .gain = f.dev_gain.memory,
                                          .mods = f.dev_mods.memory,
                                          .row_list = c.row_list ? f.dev_list.memory : NULL,
                                          .u_rows = f.u_rows,
                                          .at = f.at,
                                          .stride = f.stride,
                                          .rows = f.rows,
                                          .cols = D,
                                          .T = c.T,
                                          .accumulate = accumulate}));
    for (int64_t j = 0; accumulate && j < D; j++) {
        g.dgain[j] += old[j];
    }
    check_buffer("dx", &dx, g.dx, (gidd_tolerance){f.dtype, (double)D, g.largest});
    if (c.with_y) {
        check_buffer("dy", &dy, g.dy, (gidd_tolerance){f.dtype, (double)D, g.largest});
    }
    gidd_tolerance sums = {GIDD_F32, (double)(f.rows + D), g.largest};
    check_buffer("dgain", &dgain, g.dgain, sums);
    check_mods(&f, &dmods, &g, sums);
    buffer *all[] = {&dev_du, &dx, &dy, &dgain, &dmods};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        buffer_release(all[i]);
    }
    double *owned[] = {x, mean, rstd, du, above, old, g.dx, g.dy, g.dgain, g.dmods};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        free(owned[i]);
    }
    release_fixture(&f);
}

Test(norm_mod, forward)
{
    for (int t = 0; t < 2; t++) {
        gidd_device *device = open_test_device(dtypes[t], 2);
        for (int i = 0; i < COUNT_OF(norm_mod_cases); i++) {
            check_forward(device, norm_mod_cases[i]);
        }
        gidd_device_close(device);
    }
}

Test(norm_mod, backward)
{
    for (int t = 0; t < 2; t++) {
        gidd_device *device = open_test_device(dtypes[t], 2);
        for (int i = 0; i < COUNT_OF(norm_mod_cases); i++) {
            check_backward(device, norm_mod_cases[i], 1, 0);
            check_backward(device, norm_mod_cases[i], 0, 1);
        }
        gidd_device_close(device);
    }
}

// One thread and three give the same bits.
Test(norm_mod, threads_do_not_matter)
{
    unsigned char *bits[2];
    for (int run = 0; run < 2; run++) {
        gidd_device *device = open_test_device(GIDD_F32, run == 0 ? 1 : 3);
        fixture      f = make_fixture(device, norm_mod_cases[2]);
        run_forward(&f);
        bits[run] = malloc(f.u.bytes);
        buffer_bytes(&f.u, bits[run]);
        if (run == 1) {
            cr_assert_eq(memcmp(bits[0], bits[1], f.u.bytes), 0);
        }
        release_fixture(&f);
        gidd_device_close(device);
    }
    free(bits[0]);
    free(bits[1]);
}

// Equal rows give equal bits wherever they lie: a loop that first steps up to an aligned address would
// sum in another order there.
Test(norm_mod, addresses_do_not_matter)
{
    enum { ROWS = 16, D = 40 }; // rows 160 bytes apart
    gidd_device  *device = open_test_device(GIDD_F32, 1);
    norm_mod_case c = {.B = 1, .T = ROWS, .D = D};
    fixture       f = make_fixture(device, c);
    float         u[ROWS * D];
    for (int i = 0; i < ROWS * D; i++) {
        f.x[i] = f.x[i % D];
    }
    buffer_release(&f.dev_x);
    f.dev_x = buffer_of(device, GIDD_F32, f.x, ROWS * D);
    run_forward(&f);
    buffer_bytes(&f.u, u);
    for (int row = 1; row < ROWS; row++) {
        cr_assert_eq(memcmp(u, u + row * D, D * sizeof *u), 0, "row %d", row);
    }
    release_fixture(&f);
    gidd_device_close(device);
}
