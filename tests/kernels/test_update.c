/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/harness.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static gidd_update_state make_state(int64_t k)
{
    return (gidd_update_state){.lr = 5e-4f,
                               .beta1 = 0.9f,
                               .beta2 = 0.99f,
                               .epsilon = 1e-9f,
                               .weight_decay = 0.02f,
                               .bias1 = (float)(1.0 - pow(0.9, (double)(k + 1))),
                               .bias2 = (float)(1.0 - pow(0.99, (double)(k + 1))),
                               .clip = 1.0f};
}

// Norm of `count` gradients, the flat range handed over in pieces of `piece` chunks.
static gidd_update_state norm_of(gidd_device *device, const double *grads, int64_t count,
                                 int64_t piece, float clip)
{
    gidd_update_state state = make_state(3);
    int64_t           chunks = (count + GIDD_NORM_CHUNK - 1) / GIDD_NORM_CHUNK;
    double           *nothing = malloc((size_t)(chunks + 1) * sizeof *nothing);
    for (int64_t i = 0; i < chunks; i++) {
        nothing[i] = (double)NAN;
    }
    state.clip = clip;
    buffer dev = buffer_of(device, GIDD_F32, grads, count),
           dev_state = buffer_of_bytes(device, &state, sizeof state);
    buffer partials = buffer_of_bytes(device, nothing, (size_t)chunks * sizeof *nothing);
    for (int64_t first = 0; first < chunks; first += piece) {
        int64_t start = first * GIDD_NORM_CHUNK, length = piece * GIDD_NORM_CHUNK;
        CHECK_OK(device->kernels->grad_norm(
            device,
            &(gidd_grad_norm_args){.partials = (double *)partials.memory + first,
                                   .grads = (const float *)dev.memory + start,
                                   .count = count - start < length ? count - start : length}));
    }
    CHECK_OK(device->kernels->grad_norm_finish(
        device, &(gidd_grad_norm_finish_args){
                    .state = dev_state.memory, .partials = partials.memory, .count = chunks}));
    buffer_bytes(&dev_state, &state);
    buffer_release(&dev);
    buffer_release(&dev_state);
    buffer_release(&partials);
    free(nothing);
    return state;
}

Test(update, norm)
{
    gidd_device *device = open_test_device(GIDD_F32, 2);
    int64_t      counts[] = {1, 63, GIDD_NORM_CHUNK, GIDD_NORM_CHUNK + 1, 3 * GIDD_NORM_CHUNK - 2, 200001};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        double *grads = random_values(71, counts[i], 1.0, GIDD_F32), sum = 0.0;
        for (int64_t k = 0; k < counts[i]; k++) {
            sum += grads[k] * grads[k];
        }
        gidd_update_state whole = norm_of(device, grads, counts[i], 1000, 1.0f);
        gidd_update_state split = norm_of(device, grads, counts[i], 1, 1.0f);
        double            exact = sqrt(sum);
        cr_assert(fabs(whole.norm - exact) <= 1e-12 * exact, "%.17g %.17g", whole.norm, exact);
        cr_assert_eq(memcmp(&whole.norm, &split.norm, sizeof whole.norm), 0); // whatever the pieces
        cr_assert_eq(whole.skip, 0);
        double scale = exact > 1.0 ? 1.0 / (exact + 1e-6) : fmin(1.0, 1.0 / (exact + 1e-6));
        cr_assert(fabs((double)whole.grad_scale - scale) <= 0x1p-24 * scale);
        cr_assert_eq(norm_of(device, grads, counts[i], 1000, 0.0f).grad_scale, 1.0f); // no clipping
        free(grads);
    }
    gidd_device_close(device);
}

Test(update, a_norm_that_is_not_finite_skips)
{
    gidd_device *device = open_test_device(GIDD_F32, 2);
    double       wrong[] = {(double)NAN, HUGE_VAL, -HUGE_VAL};
    double      *grads = random_values(72, 70000, 1.0, GIDD_F32);
    for (int i = 0; i < 3; i++) {
        grads[69999] = wrong[i];
        gidd_update_state state = norm_of(device, grads, 70000, 1000, 1.0f);
        cr_assert(state.skip == 1 && state.grad_scale == 0.0f);
    }
    free(grads);
    gidd_device_close(device);
}

enum { COUNT = 10007 };

typedef struct optimiser {
    buffer theta, m, v, copy, grads, state;
} optimiser;

static optimiser make_optimiser(gidd_device *device, const gidd_update_state *state)
{
    double *values[] = {
        random_values(73, COUNT, 1.0, GIDD_F32), random_values(74, COUNT, 0.1, GIDD_F32),
        random_values(75, COUNT, 0.1, GIDD_F32), random_values(76, COUNT, 3.0, GIDD_F32)};
    optimiser o;
    for (int i = 0; i < COUNT; i++) {
        values[2][i] = fabs(values[2][i]); // v is a mean of squares
        if (i % 10 == 0) {
            values[1][i] = values[2][i] = values[3][i] = 0.0; // never had a gradient
        }
    }
    o.theta = buffer_of(device, GIDD_F32, values[0], COUNT);
    o.m = buffer_of(device, GIDD_F32, values[1], COUNT);
    o.v = buffer_of(device, GIDD_F32, values[2], COUNT);
    o.grads = buffer_of(device, GIDD_F32, values[3], COUNT);
    o.copy = buffer_of(device, device->dtype, NULL, COUNT);
    o.state = buffer_of_bytes(device, state, sizeof *state);
    for (int i = 0; i < 4; i++) {
        free(values[i]);
    }
    return o;
}

static void release_optimiser(optimiser *o)
{
    buffer *all[] = {&o->theta, &o->m, &o->v, &o->copy, &o->grads, &o->state};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        buffer_release(all[i]);
    }
}

static void run_pieces(gidd_device *device, optimiser *o, int64_t piece, int with_copy)
{
    for (int64_t first = 0; first < COUNT; first += piece) {
        char *copy = (char *)o->copy.memory + (size_t)first * gidd_dtype_bytes(device->dtype);
        CHECK_OK(device->kernels->adamw(
            device, &(gidd_adamw_args){.theta = (float *)o->theta.memory + first,
                                       .m = (float *)o->m.memory + first,
                                       .v = (float *)o->v.memory + first,
                                       .copy = with_copy ? copy : NULL,
                                       .grads = (const float *)o->grads.memory + first,
                                       .state = o->state.memory,
                                       .count = COUNT - first < piece ? COUNT - first : piece}));
    }
}

static void check_adamw(gidd_dtype dtype)
{
    gidd_device      *device = open_test_device(dtype, 2);
    gidd_update_state state = make_state(2);
    state.grad_scale = 0.25f;
    optimiser o = make_optimiser(device, &state);
    double   *theta = buffer_values(&o.theta), *m = buffer_values(&o.m), *v = buffer_values(&o.v);
    double   *grads = buffer_values(&o.grads);
    double    lr = (double)state.lr, b1 = (double)state.beta1, b2 = (double)state.beta2;
    for (int i = 0; i < COUNT; i++) {
        double g = grads[i] * 0.25;
        theta[i] *= 1.0 - lr * (double)state.weight_decay;
        m[i] = b1 * m[i] + (1.0 - b1) * g;
        v[i] = b2 * v[i] + (1.0 - b2) * g * g;
        theta[i] -= lr / (double)state.bias1 * m[i] /
                    (sqrt(v[i]) / sqrt((double)state.bias2) + (double)state.epsilon);
    }
    run_pieces(device, &o, COUNT, 1);
    check_buffer("theta", &o.theta, theta, (gidd_tolerance){GIDD_F32, 1, 0.2});
    check_buffer("m", &o.m, m, (gidd_tolerance){GIDD_F32, 1, 0.2});
    check_buffer("v", &o.v, v, (gidd_tolerance){GIDD_F32, 1, 0.2});
    double *written = buffer_values(&o.theta), *copy = buffer_values(&o.copy);
    for (int i = 0; i < COUNT; i++) {
        cr_assert_eq(copy[i], round_to(written[i], dtype));
    }
    double *owned[] = {theta, m, v, grads, written, copy};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        free(owned[i]);
    }
    release_optimiser(&o);
    gidd_device_close(device);
}

Test(update, adamw_fp32)
{
    check_adamw(GIDD_F32);
}

Test(update, adamw_bf16)
{
    check_adamw(GIDD_BF16);
}

// However ranks cut the flat range, and with any number of threads: the same bits.
Test(update, pieces_do_not_matter)
{
    static float whole[COUNT], split[COUNT];
    int64_t      pieces[] = {1, 3, 17, 1000, 4097};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        for (int run = 0; run < 2; run++) {
            gidd_device      *device = open_test_device(GIDD_BF16, run == 0 ? 1 : 2);
            gidd_update_state state = make_state(0);
            state.grad_scale = 0.7f;
            optimiser o = make_optimiser(device, &state);
            run_pieces(device, &o, run == 0 ? COUNT : pieces[i], 0);
            buffer_bytes(&o.theta, run == 0 ? whole : split);
            release_optimiser(&o);
            gidd_device_close(device);
        }
        cr_assert_eq(memcmp(whole, split, sizeof whole), 0, "pieces of %lld", (long long)pieces[i]);
    }
}

Test(update, skip_changes_nothing)
{
    gidd_device      *device = open_test_device(GIDD_F32, 2);
    gidd_update_state state = make_state(2);
    state.skip = 1;
    optimiser o = make_optimiser(device, &state);
    float    *before = malloc(sizeof(float) * COUNT), *after = malloc(sizeof(float) * COUNT);
    buffer    all[] = {o.theta, o.m, o.v};
    buffer_bytes(&o.theta, before);
    run_pieces(device, &o, COUNT, 0);
    buffer_bytes(&o.theta, after);
    cr_assert_eq(memcmp(before, after, sizeof(float) * COUNT), 0);
    (void)all;
    free(before);
    free(after);
    release_optimiser(&o);
    gidd_device_close(device);
}

// The average of `before` and theta, handed over in pieces.
static void run_ema(gidd_device *device, const double *before, const double *theta, const gidd_update_state *state,
                    int64_t piece, float *after)
{
    buffer average = buffer_of(device, GIDD_F32, before, COUNT), source = buffer_of(device, GIDD_F32, theta, COUNT),
           dev_state = buffer_of_bytes(device, state, sizeof *state);
    for (int64_t first = 0; first < COUNT; first += piece) {
        CHECK_OK(device->kernels->ema(
            device, &(gidd_ema_args){.average = (float *)average.memory + first,
                                     .theta = (const float *)source.memory + first,
                                     .state = dev_state.memory,
                                     .decay = 0.999f,
                                     .count = COUNT - first < piece ? COUNT - first : piece}));
    }
    buffer_bytes(&average, after);
    buffer_release(&average);
    buffer_release(&source);
    buffer_release(&dev_state);
}

// Exactly the two products and the sum, whatever the device and the pieces; a skipped update leaves it alone.
Test(update, ema)
{
    static float      after[COUNT];
    const int64_t     pieces[] = {COUNT, 1000, 17};
    gidd_device      *device = open_test_device(GIDD_BF16, 2);
    gidd_update_state state = make_state(2);
    double *before = random_values(78, COUNT, 1.0, GIDD_F32), *theta = random_values(79, COUNT, 1.0, GIDD_F32);
    const float keep = 0.999f, add = (float)(1.0 - (double)keep);
    for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++) {
        run_ema(device, before, theta, &state, pieces[p], after);
        for (int i = 0; i < COUNT; i++) {
            float kept = keep * (float)before[i], added = add * (float)theta[i];
            cr_assert_eq(after[i], kept + added, "element %d", i);
        }
    }
    state.skip = 1;
    run_ema(device, before, theta, &state, COUNT, after);
    for (int i = 0; i < COUNT; i++) {
        cr_assert_eq(after[i], (float)before[i]);
    }
    free(before);
    free(theta);
    gidd_device_close(device);
}

Test(update, cast)
{
    for (int t = 0; t < 2; t++) {
        gidd_dtype   dtype = t == 0 ? GIDD_F32 : GIDD_BF16;
        gidd_device *device = open_test_device(dtype, 2);
        double      *values = random_values(77, COUNT, 100.0, GIDD_F32);
        values[5] = (double)NAN;
        values[6] = HUGE_VAL;
        buffer source = buffer_of(device, GIDD_F32, values, COUNT),
               target = buffer_of(device, dtype, NULL, COUNT);
        CHECK_OK(device->kernels->cast(
            device,
            &(gidd_cast_args){.target = target.memory, .source = source.memory, .count = COUNT}));
        for (int i = 0; i < COUNT; i++) {
            values[i] = round_to(values[i], dtype);
        }
        double *cast = buffer_values(&target);
        for (int i = 0; i < COUNT; i++) {
            cr_assert(cast[i] == values[i] || (isnan(cast[i]) && isnan(values[i])));
        }
        free(cast);
        free(values);
        buffer_release(&source);
        buffer_release(&target);
        gidd_device_close(device);
    }
}
