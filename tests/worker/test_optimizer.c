/* SPDX-License-Identifier: Apache-2.0
 *
 * The update over buckets, against AdamW spelled out in float64. On the CPU device memory is the
 * host's.
 */
#include "worker/optimizer.h"

#include "base/rng.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const gidd_model_shape shape = {
    .D = 64, .L = 2, .H = 2, .C = 16, .T = 8, .V = 500, .Vr = 512, .mask_id = 499};

typedef struct fixture {
    gidd_device *device;
    gidd_params params;
    gidd_slice slice;
    gidd_model *model;
    gidd_optimizer *optimizer;
} fixture;

static void fill_gradients(fixture *f, double size, uint64_t seed)
{
    for (int64_t i = 0; i < f->params.tensor_count; i++) {
        const gidd_tensor *t = &f->params.tensors[i];
        for (int64_t e = 0; e < t->count; e++) {
            const uint64_t index = (uint64_t)(t->offset + e);
            const double u = gidd_uniform(seed, GIDD_STREAM_TOKEN, index, 0, 0);
            f->model->grads[t->at + e] = (float)(size * (2.0 * u - 1.0));
        }
    }
}

/* Buckets of about 100 KiB, several of them longer than one partial sum. `piece` < 0: all of them. */
static fixture *open_slice(gidd_dtype dtype, int64_t piece, int64_t pieces)
{
    fixture *f = calloc(1, sizeof *f);
    const gidd_device_args device = {.name = "cpu", .dtype = dtype, .threads = 1};
    cr_assert_eq(gidd_device_open(&device, &f->device), GIDD_OK);
    cr_assert_eq(gidd_params_init(&f->params, &shape, 400000, pieces), GIDD_OK);
    cr_assert(f->params.bucket_count > 2);
    cr_assert_eq(gidd_slice_init(&f->slice, &f->params, piece < 0 ? 0 : piece, piece < 0 ? 1 : pieces), GIDD_OK);
    const gidd_model_args model = {.device = f->device,
                                   .params = &f->params,
                                   .slice = &f->slice,
                                   .max_B = 1,
                                   .max_T = shape.T};
    cr_assert_eq(gidd_model_create(&model, &f->model), GIDD_OK);
    cr_assert_eq(gidd_model_init_params(f->model, 11), GIDD_OK);
    const gidd_optimizer_args args = {.device = f->device,
                                      .params = &f->params,
                                      .slice = &f->slice,
                                      .beta1 = 0.9,
                                      .beta2 = 0.99,
                                      .epsilon = 1e-9,
                                      .weight_decay = 0.02,
                                      .clip = 1.0};
    cr_assert_eq(gidd_optimizer_create(&args, &f->optimizer), GIDD_OK);
    return f;
}

static fixture *open_fixture(gidd_dtype dtype, int64_t pieces)
{
    return open_slice(dtype, -1, pieces);
}

static void close_fixture(fixture *f)
{
    gidd_optimizer_destroy(f->optimizer);
    gidd_model_destroy(f->model);
    cr_assert_eq(f->device->allocated_bytes, f->device->workspace_bytes);
    gidd_slice_release(&f->slice);
    gidd_params_release(&f->params);
    gidd_device_close(f->device);
    free(f);
}

/* One update of count `k` + 1; returns the norm. */
static double step(fixture *f, int64_t k, double lr, int *skipped_p)
{
    double norm = 0.0;
    cr_assert_eq(gidd_optimizer_step(f->optimizer, f->model, k, lr), GIDD_OK);
    cr_assert_eq(gidd_optimizer_read(f->optimizer, &norm, skipped_p), GIDD_OK);
    return norm;
}

static double norm_of(const fixture *f)
{
    double square = 0.0;
    for (int64_t i = 0; i < f->params.memory_count; i++) {
        square += (double)f->model->grads[i] * (double)f->model->grads[i];
    }
    return sqrt(square);
}

/* theta, m and v in float64, from the same fp32 gradients. */
static void reference_step(double *theta, double *m, double *v, const float *g, int64_t n,
                           double norm, int64_t k, double lr)
{
    const double scale = fmin(1.0, 1.0 / (norm + 1e-6));
    const double bias1 = 1.0 - pow(0.9, (double)k + 1.0), bias2 = 1.0 - pow(0.99, (double)k + 1.0);
    for (int64_t i = 0; i < n; i++) {
        const double gi = scale * (double)g[i];
        theta[i] *= 1.0 - lr * 0.02;
        m[i] = 0.9 * m[i] + 0.1 * gi;
        v[i] = 0.99 * v[i] + 0.01 * gi * gi;
        theta[i] -= lr / bias1 * m[i] / (sqrt(v[i]) / sqrt(bias2) + 1e-9);
    }
}

/* Steps 0 (lr 0) to 4, with gradients above the clip and below it. A parameter of about 1 is
 * rounded twice in each of 4 updates, by 2^-24 = 6e-8; an update is 1e-2 with a relative error of
 * some 1e-6. */
Test(optimizer, updates_are_adamw)
{
    fixture *f = open_fixture(GIDD_F32, 3);
    const int64_t n = f->params.memory_count;
    double *theta = calloc((size_t)n, 8), *m = calloc((size_t)n, 8), *v = calloc((size_t)n, 8);
    for (int64_t i = 0; i < n; i++) {
        theta[i] = (double)f->model->master[i];
    }
    for (int64_t k = 0; k < 5; k++) {
        const double lr = k == 0 ? 0.0 : 1e-2;
        int skipped = 0;
        fill_gradients(f, k == 2 ? 1e-5 : 1e-1, (uint64_t)k);
        const double want = norm_of(f), got = step(f, k, lr, &skipped);
        cr_assert(fabs(got - want) < 1e-12 * want && !skipped);
        cr_assert((got > 1.0) == (k != 2));
        reference_step(theta, m, v, f->model->grads, n, want, k, lr);
    }
    for (int64_t i = 0; i < n; i++) {
        cr_assert(fabs((double)f->model->master[i] - theta[i]) < 6e-7, "element %d: %g, %g", (int)i,
                  (double)f->model->master[i], theta[i]);
    }
    free(theta);
    free(m);
    free(v);
    close_fixture(f);
}

Test(optimizer, the_first_step_fills_moments_and_changes_no_parameter)
{
    fixture *f = open_fixture(GIDD_F32, 1);
    const size_t bytes = (size_t)f->params.memory_count * sizeof(float);
    float *before = malloc(bytes);
    int skipped = 0;
    memcpy(before, f->model->master, bytes);
    fill_gradients(f, 1e-1, 1);
    (void)step(f, 0, 0.0, &skipped);
    cr_assert_arr_eq(f->model->master, before, bytes);
    cr_assert_neq(f->optimizer->m[0], 0.0f);
    cr_assert_neq(f->optimizer->v[0], 0.0f);
    free(before);
    close_fixture(f);
}

/* The average starts as the masters, follows each update, to the bit, and stands still where one is skipped. */
Test(optimizer, the_average_follows_the_masters)
{
    fixture *f = open_fixture(GIDD_BF16, 2);
    const int64_t n = f->params.memory_count;
    const float keep = 0.9f, add = (float)(1.0 - (double)keep);
    float *want = malloc((size_t)n * sizeof(float));
    gidd_optimizer_args args = f->optimizer->args;
    args.ema_decay = 0.9;
    args.slice = NULL;
    gidd_optimizer_destroy(f->optimizer);
    cr_assert_eq(gidd_optimizer_create(&args, &f->optimizer), GIDD_OK);
    cr_assert_eq(gidd_optimizer_start_average(f->optimizer, f->model), GIDD_OK);
    for (int64_t i = 0; i < n; i++) {
        want[i] = f->model->master[i];
        cr_assert_eq(f->optimizer->average[i], want[i]);
    }
    for (int64_t k = 0; k < 4; k++) {
        int skipped = 0;
        fill_gradients(f, 1e-1, (uint64_t)k);
        if (k == 2) {
            f->model->grads[0] = NAN;
        }
        (void)step(f, k, 1e-2, &skipped);
        cr_assert_eq(skipped, k == 2);
        for (int64_t i = 0; i < n; i++) {
            if (k != 2) {
                const float kept = keep * want[i], added = add * f->model->master[i];
                want[i] = kept + added;
            }
            cr_assert_eq(f->optimizer->average[i], want[i], "step %d, element %d", (int)k, (int)i);
        }
    }
    free(want);
    close_fixture(f);
}

/* Infinity in the last bucket, or NaN in the first: nothing changes, and the next step goes on. */
Test(optimizer, a_gradient_that_is_not_finite_changes_nothing)
{
    fixture *f = open_fixture(GIDD_BF16, 2);
    const size_t bytes = (size_t)f->params.memory_count * sizeof(float);
    float *saved[3] = {malloc(bytes), malloc(bytes), malloc(bytes)};
    uint16_t *copy = malloc(bytes / 2);
    int skipped = 0;
    fill_gradients(f, 1e-1, 1);
    (void)step(f, 0, 1e-2, &skipped);
    float *const arrays[3] = {f->model->master, f->optimizer->m, f->optimizer->v};
    for (int i = 0; i < 3; i++) {
        memcpy(saved[i], arrays[i], bytes);
    }
    memcpy(copy, f->model->weights, bytes / 2);
    for (int bad = 0; bad < 2; bad++) {
        const gidd_tensor *last = gidd_params_find(&f->params, "vocab_embed.embedding");
        fill_gradients(f, 1e-1, 2);
        f->model->grads[bad == 0 ? 0 : last->at + last->count - 1] = bad == 0 ? NAN : INFINITY;
        cr_assert_not(isfinite(step(f, 1, 1e-2, &skipped)));
        cr_assert_eq(skipped, 1);
        for (int i = 0; i < 3; i++) {
            cr_assert_arr_eq(arrays[i], saved[i], bytes);
        }
        cr_assert_arr_eq(f->model->weights, copy, bytes / 2);
    }
    fill_gradients(f, 1e-1, 3);
    cr_assert(isfinite(step(f, 2, 1e-2, &skipped)) && !skipped);
    cr_assert(memcmp(f->model->master, saved[0], bytes) != 0);
    for (int i = 0; i < 3; i++) {
        free(saved[i]);
    }
    free(copy);
    close_fixture(f);
}

Test(optimizer, the_bf16_copy_follows_and_padding_stays_zero)
{
    fixture *f = open_fixture(GIDD_BF16, 7);
    int skipped = 0;
    int64_t padding = 0;
    fill_gradients(f, 1e-1, 1);
    (void)step(f, 3, 1e-2, &skipped);
    for (int64_t i = 0; i < f->params.memory_count; i++) {
        const uint32_t bits = (uint32_t)((const uint16_t *)f->model->weights)[i] << 16;
        float value = 0.0f;
        memcpy(&value, &bits, sizeof value);
        cr_assert(fabsf(value - f->model->master[i]) <= 0x1p-8f * fabsf(f->model->master[i]));
    }
    for (int64_t b = 0; b < f->params.bucket_count; b++) {
        const gidd_param_bucket *bucket = &f->params.buckets[b];
        for (int64_t i = bucket->at + bucket->count; i < bucket->at + bucket->padded_count; i++) {
            cr_assert_eq(f->model->master[i], 0.0f);
            cr_assert_eq(f->optimizer->m[i], 0.0f);
            padding++;
        }
    }
    cr_assert(padding > 0);
    close_fixture(f);
}

/* To the bit: partial sums leave padding out. */
Test(optimizer, the_norm_does_not_depend_on_the_number_of_ranks)
{
    double norms[3];
    const int64_t pieces[3] = {1, 3, 8};
    for (int i = 0; i < 3; i++) {
        fixture *f = open_fixture(GIDD_F32, pieces[i]);
        int skipped = 0;
        fill_gradients(f, 1e-1, 1);
        norms[i] = step(f, 0, 1e-2, &skipped);
        close_fixture(f);
    }
    cr_assert(norms[0] == norms[1] && norms[1] == norms[2]);
}

enum { RANKS = 3 };

/* What gidd_replicate_norm does: every partial sum is somebody's. */
static void exchange_partials(fixture *const *ranks)
{
    const int64_t count = ranks[0]->slice.chunk_count;
    for (int64_t i = 0; i < count; i++) {
        double sum = 0.0;
        for (int r = 0; r < RANKS; r++) {
            sum += ranks[r]->optimizer->partials[i];
        }
        for (int r = 0; r < RANKS; r++) {
            ranks[r]->optimizer->partials[i] = sum;
        }
    }
}

static void expect_same_slice(const fixture *whole, const fixture *rank)
{
    const size_t element = gidd_dtype_bytes(whole->device->dtype);
    for (int64_t b = 0; b < rank->slice.part_count; b++) {
        const gidd_slice_part *part = &rank->slice.parts[b];
        const size_t bytes = (size_t)part->count * sizeof(float);
        cr_assert_arr_eq(gidd_model_own_master(rank->model, part), whole->model->master + part->at, bytes);
        cr_assert_arr_eq(rank->optimizer->m + part->own, whole->optimizer->m + part->at, bytes);
        cr_assert_arr_eq(rank->optimizer->v + part->own, whole->optimizer->v + part->at, bytes);
        cr_assert_arr_eq((char *)rank->model->weights + (size_t)part->at * element,
                         (char *)whole->model->weights + (size_t)part->at * element,
                         (size_t)part->count * element);
    }
}

/* The tensors that are read in fp32: the slices' parts make the whole, and each is one rank's. */
static void expect_exact(const fixture *whole, fixture *const *ranks)
{
    for (int64_t i = 0; i < whole->params.tensor_count; i++) {
        const gidd_tensor *t = &whole->params.tensors[i];
        for (int64_t e = 0; t->exact_at >= 0 && e < t->count; e++) {
            float sum = 0.0f, want = whole->model->master[t->at + e];
            for (int r = 0; r < RANKS; r++) {
                float value = ranks[r]->model->exact[t->exact_at + e];
                cr_assert(value == 0.0f || value == want, "%s", t->name);
                sum += value;
            }
            cr_assert_eq(sum, want, "%s", t->name);
        }
    }
}

/* Three ranks with a slice each do what one rank with everything does, to the bit: norm, masters, moments,
 * E copy. Their state is a third of it. */
static void slices_against_whole(gidd_dtype dtype)
{
    fixture *whole = open_fixture(dtype, RANKS), *ranks[RANKS];
    double norm = 0.0;
    int skipped = 0;
    for (int r = 0; r < RANKS; r++) {
        ranks[r] = open_slice(dtype, r, RANKS);
        cr_assert_eq(ranks[r]->slice.own_count * RANKS, whole->slice.own_count);
        size_t saved = (size_t)whole->slice.own_count / RANKS * 2 * 4 * 2; // two thirds of two moments
        cr_assert(ranks[r]->device->allocated_bytes <= whole->device->allocated_bytes - saved);
        cr_assert_eq(ranks[r]->model->exact != NULL, dtype == GIDD_BF16);
        expect_same_slice(whole, ranks[r]);
    }
    for (int64_t k = 0; k < 4; k++) { // the third gradient is not finite
        fill_gradients(whole, k == 1 ? 1e-5 : 1e-1, (uint64_t)k);
        whole->model->grads[0] = k == 2 ? NAN : 1.0f;
        const double want = step(whole, k, 1e-2, &skipped);
        for (int r = 0; r < RANKS; r++) {
            memcpy(ranks[r]->model->grads, whole->model->grads, (size_t)whole->params.memory_count * sizeof(float));
            cr_assert_eq(gidd_optimizer_set(ranks[r]->optimizer, k, 1e-2), GIDD_OK);
            cr_assert_eq(gidd_optimizer_norm(ranks[r]->optimizer, ranks[r]->model), GIDD_OK);
        }
        exchange_partials(ranks);
        for (int r = 0; r < RANKS; r++) {
            cr_assert_eq(gidd_optimizer_apply(ranks[r]->optimizer, ranks[r]->model), GIDD_OK);
            cr_assert_eq(gidd_model_refresh_exact(ranks[r]->model), GIDD_OK);
            cr_assert_eq(gidd_optimizer_read(ranks[r]->optimizer, &norm, &skipped), GIDD_OK);
            cr_assert_eq(memcmp(&norm, &want, sizeof norm) == 0 || k == 2, 1);
            cr_assert_eq(skipped, k == 2);
            expect_same_slice(whole, ranks[r]);
        }
        if (dtype == GIDD_BF16) {
            expect_exact(whole, ranks);
        }
    }
    for (int r = 0; r < RANKS; r++) {
        close_fixture(ranks[r]);
    }
    close_fixture(whole);
}

Test(optimizer, slices_are_the_whole_in_fp32)
{
    slices_against_whole(GIDD_F32);
}

Test(optimizer, slices_are_the_whole_in_bf16)
{
    slices_against_whole(GIDD_BF16);
}
