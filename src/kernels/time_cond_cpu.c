/* SPDX-License-Identifier: Apache-2.0
 *
 * A few rows of 128 numbers: plain loops, sums in double, no threads.
 */
#include "kernels/cpu.h"

#include <math.h>

enum { HALF = GIDD_TIME_FEATURES / 2 };

static double sigmoid(double v)
{
    return 1.0 / (1.0 + exp(-v));
}

static float silu(float v)
{
    return (float)((double)v * sigmoid((double)v));
}

static double silu_slope(float v)
{
    double s = sigmoid((double)v);
    return s * (1.0 + (double)v * (1.0 - s));
}

// SPEC section 2: cosines first, t unscaled.
static void features_of(float *features, float t)
{
    for (int i = 0; i < HALF; i++) {
        double angle = (double)t * exp(-log(10000.0) * i / HALF);
        features[i] = (float)cos(angle);
        features[HALF + i] = (float)sin(angle);
    }
}

// out = w in + bias, one row.
static void affine(float *out, const float *w, const float *bias, const float *in, int64_t outs,
                   int64_t ins)
{
    for (int64_t i = 0; i < outs; i++) {
        double sum = (double)bias[i];
        for (int64_t j = 0; j < ins; j++) {
            sum += (double)w[i * ins + j] * (double)in[j];
        }
        out[i] = (float)sum;
    }
}

gidd_status gidd_time_cond_fwd_cpu(gidd_device *device, const gidd_time_cond_fwd_args *args)
{
    int64_t C = args->C;
    if (args->B < 1 || C < 1 || args->features == NULL || args->hidden == NULL ||
        args->embedding == NULL || args->c == NULL || args->coef == NULL || args->w0 == NULL ||
        args->b0 == NULL || args->w2 == NULL || args->b2 == NULL) {
        return gidd_fail(GIDD_ERR_ARG, "time_cond_fwd: %lld rows of %lld, or a buffer is missing",
                         (long long)args->B, (long long)C);
    }
    (void)device;
    for (int64_t b = 0; b < args->B; b++) {
        float *features = args->features + b * GIDD_TIME_FEATURES;
        float *hidden = args->hidden + b * C, *embedding = args->embedding + b * C;
        float *c = args->c + b * C;
        features_of(features, args->coef[b].t);
        affine(hidden, args->w0, args->b0, features, C, GIDD_TIME_FEATURES);
        for (int64_t j = 0; j < C; j++) {
            c[j] = silu(hidden[j]); // c holds the inner activation until it gets its own value
        }
        affine(embedding, args->w2, args->b2, c, C, C);
        for (int64_t j = 0; j < C; j++) {
            c[j] = silu(embedding[j]);
        }
    }
    return GIDD_OK;
}

size_t gidd_time_cond_workspace_cpu(int64_t B, int64_t C)
{
    return (size_t)(3 * B * C) * sizeof(double);
}

// Gradients before the two SiLUs of row b, and the inner activation again.
static void row_back(const gidd_time_cond_bwd_args *args, int64_t b, double *d_embedding,
                     double *d_hidden, double *activation)
{
    int64_t C = args->C;
    for (int64_t i = 0; i < C; i++) {
        d_embedding[i] = (double)args->dc[b * C + i] * silu_slope(args->embedding[b * C + i]);
        activation[i] = (double)silu(args->hidden[b * C + i]);
        d_hidden[i] = 0.0;
    }
    for (int64_t i = 0; i < C; i++) {
        for (int64_t j = 0; j < C; j++) {
            d_hidden[j] += d_embedding[i] * (double)args->w2[i * C + j];
        }
    }
    for (int64_t j = 0; j < C; j++) {
        d_hidden[j] *= silu_slope(args->hidden[b * C + j]);
    }
}

static void put(float *target, double value, int accumulate)
{
    *target = (accumulate ? *target : 0.0f) + (float)value;
}

gidd_status gidd_time_cond_bwd_cpu(gidd_device *device, const gidd_time_cond_bwd_args *args)
{
    int64_t B = args->B, C = args->C;
    if (B < 1 || C < 1 || args->dw0 == NULL || args->db0 == NULL || args->dw2 == NULL ||
        args->db2 == NULL || args->dc == NULL || args->features == NULL || args->hidden == NULL ||
        args->embedding == NULL || args->w2 == NULL) {
        return gidd_fail(GIDD_ERR_ARG, "time_cond_bwd: %lld rows of %lld, or a buffer is missing",
                         (long long)B, (long long)C);
    }
    GIDD_TRY(gidd_workspace_check(device, gidd_time_cond_workspace_cpu(B, C), "time_cond_bwd"));
    double *d_embedding = device->workspace;
    double *d_hidden = d_embedding + B * C, *activation = d_hidden + B * C;
    for (int64_t b = 0; b < B; b++) {
        row_back(args, b, d_embedding + b * C, d_hidden + b * C, activation + b * C);
    }
    for (int64_t i = 0; i < C; i++) {
        double db0 = 0.0, db2 = 0.0;
        for (int64_t b = 0; b < B; b++) {
            db0 += d_hidden[b * C + i];
            db2 += d_embedding[b * C + i];
        }
        put(&args->db0[i], db0, args->accumulate);
        put(&args->db2[i], db2, args->accumulate);
        for (int64_t j = 0; j < C; j++) {
            double sum = 0.0;
            for (int64_t b = 0; b < B; b++) {
                sum += d_embedding[b * C + i] * activation[b * C + j];
            }
            put(&args->dw2[i * C + j], sum, args->accumulate);
        }
        for (int64_t j = 0; j < GIDD_TIME_FEATURES; j++) {
            double sum = 0.0;
            for (int64_t b = 0; b < B; b++) {
                sum += d_hidden[b * C + i] * (double)args->features[b * GIDD_TIME_FEATURES + j];
            }
            put(&args->dw0[i * GIDD_TIME_FEATURES + j], sum, args->accumulate);
        }
    }
    return GIDD_OK;
}
