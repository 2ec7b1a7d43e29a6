/* SPDX-License-Identifier: Apache-2.0
 *
 * Elementwise passes over flat buffers. Compiled without fused multiply-adds (CMakeLists.txt).
 */
#include "kernels/cpu.h"

#include <math.h>

enum {
    PIECE = 4096,    // elements handled at once by one thread
    NORM_BLOCK = 64, // accumulators of a sum of squares
};

static gidd_status check_count(const char *slot, int64_t count, int has_buffers)
{
    if (count < 0 || (count > 0 && !has_buffers)) {
        return gidd_fail(GIDD_ERR_ARG, "%s: %lld elements, or a buffer is missing", slot,
                         (long long)count);
    }
    return GIDD_OK;
}

// NORM_BLOCK running sums in double, added up in order at the end.
static double sum_of_squares(const float *values, int64_t count)
{
    double  sums[NORM_BLOCK] = {0.0}, total = 0.0;
    int64_t whole = count / NORM_BLOCK * NORM_BLOCK;
    for (int64_t first = 0; first < whole; first += NORM_BLOCK) {
        for (int i = 0; i < NORM_BLOCK; i++) {
            double value = (double)values[first + i];
            sums[i] += value * value;
        }
    }
    for (int64_t i = whole; i < count; i++) {
        sums[i - whole] += (double)values[i] * (double)values[i];
    }
    for (int i = 0; i < NORM_BLOCK; i++) {
        total += sums[i];
    }
    return total;
}

gidd_status gidd_grad_norm_cpu(gidd_device *device, const gidd_grad_norm_args *args)
{
    GIDD_TRY(check_count("grad_norm", args->count, args->partials != NULL && args->grads != NULL));
    int64_t chunks = (args->count + GIDD_NORM_CHUNK - 1) / GIDD_NORM_CHUNK;
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        int64_t first = chunk * GIDD_NORM_CHUNK, left = args->count - first;
        args->partials[chunk] =
            sum_of_squares(args->grads + first, left < GIDD_NORM_CHUNK ? left : GIDD_NORM_CHUNK);
    }
    return GIDD_OK;
}

gidd_status gidd_grad_norm_finish_cpu(gidd_device *device, const gidd_grad_norm_finish_args *args)
{
    (void)device;
    GIDD_TRY(check_count("grad_norm_finish", args->count, args->partials != NULL));
    gidd_update_state *state = args->state;
    double             sum = 0.0;
    for (int64_t i = 0; i < args->count; i++) {
        sum += args->partials[i];
    }
    state->norm = sqrt(sum);
    state->skip = !isfinite(state->norm);
    double scale = state->clip > 0.0f ? (double)state->clip / (state->norm + 1e-6) : 1.0;
    state->grad_scale = state->skip ? 0.0f : (float)(scale < 1.0 ? scale : 1.0);
    return GIDD_OK;
}

// What does not change from element to element.
typedef struct adamw_factors {
    float scale, decay, keep1, add1, keep2, add2, step, root, epsilon;
} adamw_factors;

static adamw_factors factors_of(const gidd_update_state *state)
{
    return (adamw_factors){
        .scale = state->grad_scale,
        .decay = (float)(1.0 - (double)state->lr * (double)state->weight_decay),
        .keep1 = state->beta1,
        .add1 = (float)(1.0 - (double)state->beta1),
        .keep2 = state->beta2,
        .add2 = (float)(1.0 - (double)state->beta2),
        .step = (float)((double)state->lr / (double)state->bias1),
        .root = (float)(1.0 / sqrt((double)state->bias2)),
        .epsilon = state->epsilon,
    };
}

static void adamw_piece(float *restrict theta, float *restrict m, float *restrict v,
                        const float *restrict grads, int64_t count, const adamw_factors *at)
{
    adamw_factors f = *at;
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        float g = grads[i] * f.scale;
        float first = f.keep1 * m[i] + f.add1 * g;
        float second = f.keep2 * v[i] + f.add2 * (g * g);
        m[i] = first;
        v[i] = second;
        theta[i] = theta[i] * f.decay - f.step * (first / (sqrtf(second) * f.root + f.epsilon));
    }
}

gidd_status gidd_adamw_cpu(gidd_device *device, const gidd_adamw_args *args)
{
    GIDD_TRY(check_count("adamw", args->count,
                         args->theta != NULL && args->m != NULL && args->v != NULL &&
                             args->grads != NULL && args->state != NULL));
    if (args->count == 0 || args->state->skip) {
        return GIDD_OK;
    }
    adamw_factors factors = factors_of(args->state);
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t first = 0; first < args->count; first += PIECE) {
        int64_t count = args->count - first < PIECE ? args->count - first : PIECE;
        adamw_piece(args->theta + first, args->m + first, args->v + first, args->grads + first,
                    count, &factors);
        if (args->copy != NULL && device->dtype == GIDD_BF16) {
            gidd_bf16_write((uint16_t *)args->copy + first, args->theta + first, count);
        } else if (args->copy != NULL) {
            memcpy((float *)args->copy + first, args->theta + first, (size_t)count * sizeof(float));
        }
    }
    return GIDD_OK;
}

gidd_status gidd_ema_cpu(gidd_device *device, const gidd_ema_args *args)
{
    GIDD_TRY(check_count("ema", args->count, args->average != NULL && args->theta != NULL && args->state != NULL));
    if (args->count == 0 || args->state->skip) {
        return GIDD_OK;
    }
    float *restrict average = args->average;
    const float *restrict theta = args->theta;
    const float keep = args->decay, add = (float)(1.0 - (double)args->decay);
#pragma omp parallel for simd num_threads(device->threads) schedule(static)
    for (int64_t i = 0; i < args->count; i++) {
        average[i] = keep * average[i] + add * theta[i];
    }
    return GIDD_OK;
}

gidd_status gidd_cast_cpu(gidd_device *device, const gidd_cast_args *args)
{
    GIDD_TRY(check_count("cast", args->count, args->target != NULL && args->source != NULL));
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t first = 0; first < args->count; first += PIECE) {
        int64_t count = args->count - first < PIECE ? args->count - first : PIECE;
        if (device->dtype == GIDD_BF16) {
            gidd_bf16_write((uint16_t *)args->target + first, args->source + first, count);
        } else {
            memcpy((float *)args->target + first, args->source + first,
                   (size_t)count * sizeof(float));
        }
    }
    return GIDD_OK;
}
