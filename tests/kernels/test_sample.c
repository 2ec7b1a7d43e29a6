/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cases.h"
#include "kernels/harness.h"
#include "kernels/reference.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

// alpha, beta_other, beta_mask of SPEC section 4 in double.
static void marginal(double t, double p, int64_t V, double out[3])
{
    double c = sqrt(t) * sqrt(1.0 - t) * 2.0 * p / (1.0 - p);
    out[0] = (1.0 - t) / (1.0 + c);
    out[1] = c / ((double)(V - 1) * (1.0 + c));
    out[2] = t / (1.0 + c);
}

// SPEC section 9, written over whole vectors.
static void reference_posterior(double *post, const double *xhat, int64_t z,
                                const gidd_sample_step_args *a)
{
    double sum = 0.0, q_t_z = 0.0, beta_ts_z = 0.0, alpha_ts = a->alpha_t / a->alpha_s;
    for (int64_t j = 0; j < a->width; j++) {
        double beta_s = j == a->mask_id ? a->beta_mask_s : a->beta_other_s;
        double beta_t = j == a->mask_id ? a->beta_mask_t : a->beta_other_t;
        post[j] = a->alpha_s * xhat[j] + beta_s;
        if (j == z) {
            q_t_z = a->alpha_t * xhat[j] + beta_t;
            beta_ts_z = beta_t - alpha_ts * beta_s;
        }
    }
    for (int64_t j = 0; j < a->width; j++) {
        post[j] *= ((j == z ? alpha_ts : 0.0) + beta_ts_z) / q_t_z;
        if (a->kind == GIDD_SAMPLE_MDLM) {
            post[j] = j == a->mask_id ? a->move_s / a->move_t
                                      : xhat[j] * (a->move_t - a->move_s) / a->move_t;
        }
        post[j] = post[j] < a->min_p ? 0.0 : post[j];
        sum += post[j];
    }
    for (int64_t j = 0; a->min_p > 0.0 && j < a->width; j++) {
        post[j] /= sum;
    }
}

static int64_t reference_draw(const double *p, int64_t width, double u)
{
    double  cum = 0.0;
    int64_t below = 0; // SPEC section 8: entries with cum_j <= u, the last entry being 1.0001
    for (int64_t j = 0; j < width; j++) {
        cum += p[j];
        below += (j == width - 1 ? 1.0001 : cum) <= u;
    }
    return below;
}

static int64_t reference_best(const double *logits, int64_t width, int64_t mask_id)
{
    int64_t best = -1;
    for (int64_t j = 0; j < width; j++) {
        if (j != mask_id && (best < 0 || logits[j] > logits[best])) {
            best = j;
        }
    }
    return best;
}

typedef struct fixture {
    int32_t *z;
    uint8_t *fixed;
    double  *logits, *uniform;
    buffer   dev_z, dev_fixed, dev_logits, dev_uniform;
} fixture;

// -sum p log p of a softmax.
static double reference_entropy(const double *p, int64_t width)
{
    double entropy = 0.0;
    for (int64_t j = 0; j < width; j++) {
        entropy -= p[j] > 0.0 ? p[j] * log(p[j]) : 0.0;
    }
    return entropy;
}

static fixture make_fixture(gidd_device *device, sample_case c)
{
    fixture f = {.z = malloc((size_t)c.rows * sizeof *f.z),
                 .fixed = malloc((size_t)c.rows),
                 .logits = random_values(81, c.rows * c.stride, 4.0, device->dtype),
                 .uniform = malloc((size_t)c.rows * sizeof *f.uniform)};
    for (int64_t i = 0; i < c.rows; i++) {
        f.z[i] = i % 2 == 0 ? (int32_t)c.width - 1 : (int32_t)random_below(82, i, c.width);
        f.fixed[i] = i % 5 == 4;
        f.logits[i * c.stride + c.width - 1] =
            i % 3 == 0 ? 300.0 : 0.0; // the mask's must not matter
        f.uniform[i] = i == 0 ? 0.0 : (double)random_below(83, i, 1 << 30) * 0x1p-30;
    }
    f.dev_z = buffer_of_bytes(device, f.z, (size_t)c.rows * sizeof *f.z);
    f.dev_fixed = buffer_of_bytes(device, f.fixed, (size_t)c.rows);
    f.dev_logits = buffer_of(device, device->dtype, f.logits, c.rows * c.stride);
    f.dev_uniform = buffer_of_bytes(device, f.uniform, (size_t)c.rows * sizeof *f.uniform);
    return f;
}

static void release_fixture(fixture *f)
{
    buffer_release(&f->dev_z);
    buffer_release(&f->dev_fixed);
    buffer_release(&f->dev_logits);
    buffer_release(&f->dev_uniform);
    free(f->z);
    free(f->fixed);
    free(f->logits);
    free(f->uniform);
}

static gidd_sample_step_args make_args(const fixture *f, sample_case c, gidd_sample_kind kind)
{
    double at_s[3], at_t[3];
    marginal(0.4, 0.2, c.width, at_s);
    marginal(0.5, 0.2, c.width, at_t);
    return (gidd_sample_step_args){.logits = f->dev_logits.memory,
                                   .z = f->dev_z.memory,
                                   .fixed = f->dev_fixed.memory,
                                   .uniform = f->dev_uniform.memory,
                                   .rows = c.rows,
                                   .width = c.width,
                                   .stride = c.stride,
                                   .mask_id = (int32_t)c.width - 1,
                                   .kind = kind,
                                   .temperature = c.temperature,
                                   .min_p = c.min_p,
                                   .alpha_s = at_s[0],
                                   .alpha_t = at_t[0],
                                   .beta_other_s = at_s[1],
                                   .beta_other_t = at_t[1],
                                   .beta_mask_s = at_s[2],
                                   .beta_mask_t = at_t[2],
                                   .move_s = 0.4,
                                   .move_t = 0.5};
}

// Posterior against the reference; ids against a draw from the very posterior that was written.
static void check_step(gidd_device *device, sample_case c, gidd_sample_kind kind)
{
    fixture               f = make_fixture(device, c);
    gidd_sample_step_args args = make_args(&f, c, kind);
    int32_t              *ids = malloc((size_t)c.rows * sizeof *ids),
            *plain = malloc((size_t)c.rows * sizeof *ids);
    double *posterior = malloc((size_t)(c.rows * c.width) * sizeof *posterior);
    double *exact = malloc((size_t)c.width * sizeof *exact),
           *xhat = malloc((size_t)c.width * sizeof *xhat),
           *entropy = malloc((size_t)c.rows * sizeof *entropy);
    memset(posterior, 0xff, (size_t)(c.rows * c.width) * sizeof *posterior);
    buffer z_out = buffer_of_bytes(device, f.z, (size_t)c.rows * sizeof *f.z);
    buffer dev_posterior =
        buffer_of_bytes(device, posterior, (size_t)(c.rows * c.width) * sizeof *posterior);
    args.z_out = z_out.memory;
    CHECK_OK(device->kernels->sample_step(device, &args));
    buffer_bytes(&z_out, plain);
    buffer dev_entropy = buffer_of_bytes(device, f.uniform, (size_t)c.rows * sizeof *entropy);
    args.entropy = dev_entropy.memory;
    CHECK_OK(device->kernels->sample_step(device, &args));
    buffer_bytes(&z_out, ids);
    buffer_bytes(&dev_entropy, entropy);
    cr_assert_eq(memcmp(ids, plain, (size_t)c.rows * sizeof *ids), 0);
    args.posterior = kind == GIDD_SAMPLE_ARGMAX ? NULL : dev_posterior.memory;
    CHECK_OK(device->kernels->sample_step(device, &args));
    buffer_bytes(&z_out, ids);
    buffer_bytes(&dev_posterior, posterior);
    cr_assert_eq(memcmp(ids, plain, (size_t)c.rows * sizeof *ids),
                 0); // asking for it changes nothing
    for (int64_t i = 0; i < c.rows; i++) {
        const double *logits = f.logits + i * c.stride, *p = posterior + i * c.width;
        int     may_change = !f.fixed[i] && (kind == GIDD_SAMPLE_GIDD || f.z[i] == args.mask_id);
        int64_t expected = reference_best(logits, c.width, args.mask_id);
        ref_softmax(xhat, logits, c.width, args.mask_id, c.temperature);
        double spread = may_change ? reference_entropy(xhat, c.width) : 0.0;
        cr_assert(fabs(entropy[i] - spread) <= 1e-12 * (1.0 + spread), "row %lld: %.17g %.17g",
                  (long long)i, entropy[i], spread);
        if (kind != GIDD_SAMPLE_ARGMAX) {
            double sum = 0.0;
            reference_posterior(exact, xhat, f.z[i], &args);
            for (int64_t j = 0; j < c.width; j++) {
                cr_assert(fabs(p[j] - exact[j]) <= 1e-12, "row %lld: %g %g", (long long)i, p[j],
                          exact[j]);
                sum += p[j];
            }
            cr_assert(fabs(sum - 1.0) < 1e-9);
            expected = reference_draw(p, c.width, f.uniform[i]);
        }
        cr_assert_eq(ids[i], may_change ? expected : f.z[i], "row %lld", (long long)i);
    }
    buffer_release(&z_out);
    buffer_release(&dev_posterior);
    buffer_release(&dev_entropy);
    free(entropy);
    free(ids);
    free(plain);
    free(posterior);
    free(exact);
    free(xhat);
    release_fixture(&f);
}

Test(sample, steps)
{
    for (int t = 0; t < 2; t++) {
        gidd_device *device = open_test_device(t == 0 ? GIDD_F32 : GIDD_BF16, 2);
        for (int i = 0; i < COUNT_OF(sample_cases); i++) {
            check_step(device, sample_cases[i], GIDD_SAMPLE_GIDD);
            check_step(device, sample_cases[i], GIDD_SAMPLE_MDLM);
            check_step(device, sample_cases[i], GIDD_SAMPLE_ARGMAX);
        }
        gidd_device_close(device);
    }
}

// Four equal logits are exactly 1/4 each: where < and <= differ. The mask (id 4, last) has
// probability 0.
Test(sample, ties_are_strict)
{
    enum { ROWS = 6, WIDTH = 5 };
    gidd_device *device = open_test_device(GIDD_F32, 1);
    double       logits[ROWS * WIDTH] = {0}, uniform[ROWS] = {0.0, 0.25, 0.5, 0.75, 0.2499, 0.9999};
    int32_t      z[ROWS] = {0, 0, 0, 0, 4, 4}, out[ROWS], expected[ROWS] = {0, 1, 2, 3, 0, 3};
    double       score[ROWS];
    buffer       dev_logits = buffer_of(device, GIDD_F32, logits, ROWS * WIDTH);
    buffer       dev_u = buffer_of_bytes(device, uniform, sizeof uniform);
    buffer       dev_z = buffer_of_bytes(device, z, sizeof z),
           dev_out = buffer_of_bytes(device, z, sizeof z);
    buffer dev_best = buffer_of_bytes(device, z, sizeof z);
    buffer dev_score = buffer_of_bytes(device, uniform, sizeof uniform);
    CHECK_OK(
        device->kernels->correct_step(device, &(gidd_correct_step_args){.proposal = dev_out.memory,
                                                                        .score = dev_score.memory,
                                                                        .best = dev_best.memory,
                                                                        .logits = dev_logits.memory,
                                                                        .z = dev_z.memory,
                                                                        .uniform = dev_u.memory,
                                                                        .rows = ROWS,
                                                                        .width = WIDTH,
                                                                        .stride = WIDTH,
                                                                        .mask_id = 4,
                                                                        .temperature = 1.0}));
    buffer_bytes(&dev_out, out);
    buffer_bytes(&dev_score, score);
    for (int i = 0; i < ROWS; i++) {
        cr_assert_eq(out[i], expected[i], "%d: %d", i, out[i]);
        cr_assert_eq(score[i], out[i] == z[i] ? 0.0 : 0.25);
    }
    buffer *all[] = {&dev_logits, &dev_u, &dev_z, &dev_out, &dev_best, &dev_score};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        buffer_release(all[i]);
    }
    gidd_device_close(device);
}

Test(sample, corrections)
{
    for (int t = 0; t < 2; t++) {
        gidd_device *device = open_test_device(t == 0 ? GIDD_F32 : GIDD_BF16, 2);
        for (int n = 0; n < COUNT_OF(sample_cases); n++) {
            sample_case c = sample_cases[n];
            fixture     f = make_fixture(device, c);
            size_t      ids_bytes = (size_t)c.rows * sizeof(int32_t);
            int32_t    *proposal = malloc(ids_bytes), *best = malloc(ids_bytes);
            double     *score = malloc((size_t)c.rows * sizeof *score),
                   *p = malloc((size_t)c.width * sizeof *p);
            buffer dev_p = buffer_of_bytes(device, f.z, ids_bytes),
                   dev_b = buffer_of_bytes(device, f.z, ids_bytes);
            buffer dev_s = buffer_of_bytes(device, f.uniform, (size_t)c.rows * sizeof *score);
            CHECK_OK(device->kernels->correct_step(
                device, &(gidd_correct_step_args){.proposal = dev_p.memory,
                                                  .score = dev_s.memory,
                                                  .best = dev_b.memory,
                                                  .logits = f.dev_logits.memory,
                                                  .z = f.dev_z.memory,
                                                  .uniform = f.dev_uniform.memory,
                                                  .rows = c.rows,
                                                  .width = c.width,
                                                  .stride = c.stride,
                                                  .mask_id = (int32_t)c.width - 1,
                                                  .temperature = c.temperature}));
            buffer_bytes(&dev_p, proposal);
            buffer_bytes(&dev_b, best);
            buffer_bytes(&dev_s, score);
            for (int64_t i = 0; i < c.rows; i++) {
                const double *logits = f.logits + i * c.stride;
                double        before = 0.0, y;
                ref_softmax(p, logits, c.width, c.width - 1, c.temperature);
                for (int64_t j = 0; j < proposal[i]; j++) {
                    before += p[j];
                }
                y = p[proposal[i]]; // the draw, up to rounding of the running sum
                cr_assert(f.uniform[i] >= before - 1e-12 && f.uniform[i] < before + y + 1e-12);
                cr_assert(fabs(score[i] - (proposal[i] != f.z[i] ? y : 0.0)) <= 1e-12);
                cr_assert_eq(best[i], reference_best(logits, c.width, c.width - 1));
            }
            buffer_release(&dev_p);
            buffer_release(&dev_b);
            buffer_release(&dev_s);
            free(proposal);
            free(best);
            free(score);
            free(p);
            release_fixture(&f);
        }
        gidd_device_close(device);
    }
}
