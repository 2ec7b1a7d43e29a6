/* SPDX-License-Identifier: Apache-2.0
 *
 * One head of one sequence by one thread.
 */
#include "kernels/cpu.h"

#include "base/vmath.h"

#include <math.h>

enum { MAX_HEAD = 128 };

size_t gidd_attention_step_workspace_cpu(int64_t T, int threads)
{
    return (size_t)(gidd_scratch_floats(T) * threads) * sizeof(float);
}

// Half-split pairing (SPEC section 2): element i turns with element i + d/2.
static void rotate(float *target, const float *source, const float *rope, int64_t d, float factor)
{
    int64_t half = d / 2;
    for (int64_t i = 0; i < half; i++) {
        float a = source[i], b = source[i + half];
        float cosine = rope[2 * i], sine = rope[2 * i + 1];
        target[i] = (a * cosine - b * sine) * factor;
        target[i + half] = (b * cosine + a * sine) * factor;
    }
}

static void head_step(const gidd_attention_step_args *args, gidd_dtype dtype, int64_t b, int64_t h,
                      float *scores)
{
    int64_t      d = args->d, D = args->H * d, p = args->position, in = b * 3 * D + h * d;
    const float *rope = args->rope + p * d;
    float       *keys = args->keys + b * args->T * D + h * d, *values = args->values + b * args->T * D + h * d;
    float        q[MAX_HEAD], scratch[MAX_HEAD], sum = 0.0f;
    rotate(q, gidd_elements_in(args->qkv, in, d, dtype, scratch), rope, d, 1.0f / sqrtf((float)d));
    rotate(keys + p * D, gidd_elements_in(args->qkv, in + D, d, dtype, scratch), rope, d, 1.0f);
    memcpy(values + p * D, gidd_elements_in(args->qkv, in + 2 * D, d, dtype, scratch), (size_t)d * sizeof(float));
    for (int64_t j = 0; j <= p; j++) {
        float score = 0.0f;
#pragma omp simd reduction(+ : score)
        for (int64_t i = 0; i < d; i++) {
            score += q[i] * keys[j * D + i];
        }
        scores[j] = score;
    }
    float  largest = gidd_largest(scores, p + 1, -INFINITY);
    float *out = gidd_elements_out(args->out, b * D + h * d, dtype, scratch);
    memset(out, 0, (size_t)d * sizeof *out);
    for (int64_t j = 0; j <= p; j++) {
        float weight = gidd_expf(scores[j] - largest);
        sum += weight;
        for (int64_t i = 0; i < d; i++) {
            out[i] += weight * values[j * D + i];
        }
    }
    for (int64_t i = 0; i < d; i++) {
        out[i] /= sum;
    }
    gidd_elements_store(args->out, b * D + h * d, d, dtype, out);
}

gidd_status gidd_attention_step_cpu(gidd_device *device, const gidd_attention_step_args *args)
{
    if (args->B < 1 || args->T < 1 || args->H < 1 || args->d < 2 || args->d > MAX_HEAD ||
        args->d % 2 != 0 || args->position < 0 || args->position >= args->T || args->out == NULL ||
        args->keys == NULL || args->values == NULL || args->qkv == NULL || args->rope == NULL) {
        return gidd_fail(GIDD_ERR_ARG,
                         "attention_step: B %lld, position %lld of %lld, H %lld, head size %lld, or a "
                         "buffer is missing",
                         (long long)args->B, (long long)args->position, (long long)args->T,
                         (long long)args->H, (long long)args->d);
    }
    GIDD_TRY(gidd_workspace_check(device, gidd_attention_step_workspace_cpu(args->T, device->threads),
                                  "attention_step"));
    int64_t stride = gidd_scratch_floats(args->T);
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t head = 0; head < args->B * args->H; head++) {
        head_step(args, device->dtype, head / args->H, head % args->H,
                  (float *)device->workspace + stride * omp_get_thread_num());
    }
    return GIDD_OK;
}
