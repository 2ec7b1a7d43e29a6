/* SPDX-License-Identifier: Apache-2.0
 *
 * Elementwise passes over flat buffers, limited by memory alone. Compiled without fused
 * multiply-adds (CMakeLists.txt): an element's result must not depend on the piece in which it was
 * handed over.
 */
#include "kernels/launch.cuh"

enum {
    THREADS = 256,
    WARPS = THREADS / WARP,
    QUAD = 4, // elements a thread handles at once
};

static gidd_status check_count(const char *slot, int64_t count, bool has_buffers)
{
    if (count < 0 || (count > 0 && !has_buffers)) {
        return gidd_fail(GIDD_ERR_ARG, "%s: %lld elements, or a buffer is missing", slot,
                         static_cast<long long>(count));
    }
    return GIDD_OK;
}

GIDD_WORKSPACE(update)(const gidd_device_limits *)
{
    return 0;
}

// ---- norm of the gradient --------------------------------------------------------------------

// Each warp sums one chunk: lane t takes elements 4t.. of each stretch of 128, whatever their
// alignment.
static __global__ void __launch_bounds__(THREADS)
    norm_kernel(gidd_grad_norm_args args, bool aligned)
{
    int64_t chunk = static_cast<int64_t>(blockIdx.x) * WARPS + warp_number();
    int64_t first = chunk * GIDD_NORM_CHUNK, left = args.count - first, most = GIDD_NORM_CHUNK;
    if (left <= 0) {
        return; // the whole warp: chunks are a warp's
    }
    const float *grads = args.grads + first;
    int count = static_cast<int>(left < most ? left : most);
    double sums[QUAD] = {0.0, 0.0, 0.0, 0.0};
    int at = lane_number() * QUAD;
#pragma unroll 4
    for (; at + QUAD <= count; at += WARP * QUAD) {
        float v[QUAD];
        if (aligned) {
            float4 quad = *reinterpret_cast<const float4 *>(grads + at);
            v[0] = quad.x, v[1] = quad.y, v[2] = quad.z, v[3] = quad.w;
        } else {
            v[0] = grads[at], v[1] = grads[at + 1], v[2] = grads[at + 2], v[3] = grads[at + 3];
        }
        for (int i = 0; i < QUAD; i++) {
            sums[i] += static_cast<double>(v[i]) * static_cast<double>(v[i]);
        }
    }
    for (int i = 0; at + i < count && i < QUAD; i++) {
        double v = static_cast<double>(grads[at + i]);
        sums[i] += v * v;
    }
    double sum = warp_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    if (lane_number() == 0) {
        args.partials[chunk] = sum;
    }
}

GIDD_LAUNCHER(grad_norm)(gidd_device *device, const gidd_grad_norm_args *args)
{
    GIDD_TRY(check_count("grad_norm", args->count, args->partials != NULL && args->grads != NULL));
    if (args->count == 0) {
        return GIDD_OK;
    }
    return launch(device, "grad_norm", norm_kernel,
                  blocks_for(args->count, static_cast<int64_t>(GIDD_NORM_CHUNK) * WARPS), THREADS,
                  0, *args, is_aligned(args->grads, 16));
}

// One block; thread t sums partials t, t + 256, ...
static __global__ void __launch_bounds__(THREADS) finish_kernel(gidd_grad_norm_finish_args args)
{
    __shared__ double scratch[WARPS];
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < args.count; i += THREADS) {
        sum += args.partials[i];
    }
    sum = block_sum<WARPS>(sum, scratch);
    if (threadIdx.x == 0) {
        gidd_update_state *state = args.state;
        double norm = sqrt(sum), clip = static_cast<double>(state->clip);
        bool skip = !isfinite(norm);
        double scale = clip > 0.0 ? clip / (norm + 1e-6) : 1.0;
        state->norm = norm;
        state->skip = skip;
        state->grad_scale = skip ? 0.0f : static_cast<float>(scale < 1.0 ? scale : 1.0);
    }
}

GIDD_LAUNCHER(grad_norm_finish)(gidd_device *device, const gidd_grad_norm_finish_args *args)
{
    GIDD_TRY(check_count("grad_norm_finish", args->count,
                         args->partials != NULL && args->state != NULL));
    if (args->state == NULL) {
        return gidd_fail(GIDD_ERR_ARG, "grad_norm_finish: no state");
    }
    return launch(device, "grad_norm_finish", finish_kernel, 1, THREADS, 0, *args);
}

// ---- AdamW -----------------------------------------------------------------------------------

// What does not change from element to element.
struct adamw_factors {
    float scale, decay, keep1, add1, keep2, add2, step, root, epsilon;
};

static __device__ __forceinline__ adamw_factors factors_of(const gidd_update_state *state)
{
    adamw_factors f;
    f.scale = state->grad_scale;
    f.decay = static_cast<float>(1.0 - static_cast<double>(state->lr) *
                                           static_cast<double>(state->weight_decay));
    f.keep1 = state->beta1;
    f.add1 = static_cast<float>(1.0 - static_cast<double>(state->beta1));
    f.keep2 = state->beta2;
    f.add2 = static_cast<float>(1.0 - static_cast<double>(state->beta2));
    f.step = static_cast<float>(static_cast<double>(state->lr) / static_cast<double>(state->bias1));
    f.root = static_cast<float>(1.0 / sqrt(static_cast<double>(state->bias2)));
    f.epsilon = state->epsilon;
    return f;
}

static __device__ __forceinline__ void adamw_element(float &theta, float &m, float &v, float grad,
                                                     const adamw_factors &f)
{
    float g = grad * f.scale;
    m = f.keep1 * m + f.add1 * g;
    v = f.keep2 * v + f.add2 * (g * g);
    theta = theta * f.decay - f.step * (m / (sqrtf(v) * f.root + f.epsilon));
}

static __device__ __forceinline__ void store_quad(float *p, const float (&v)[QUAD])
{
    *reinterpret_cast<float4 *>(p) = make_float4(v[0], v[1], v[2], v[3]);
}
static __device__ __forceinline__ void store_quad(bf16 *p, const float (&v)[QUAD])
{
    *reinterpret_cast<uint2 *>(p) = make_uint2(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]));
}
static __device__ __forceinline__ void load_quad(float (&v)[QUAD], const float *p)
{
    float4 quad = *reinterpret_cast<const float4 *>(p);
    v[0] = quad.x, v[1] = quad.y, v[2] = quad.z, v[3] = quad.w;
}

// Each thread: four elements of whole quads; the last count % 4 elements go to the last threads.
template <typename E>
static __global__ void __launch_bounds__(THREADS) adamw_kernel(gidd_adamw_args args, int64_t quads)
{
    if (args.state->skip) {
        return;
    }
    adamw_factors f = factors_of(args.state);
    int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    E *copy = static_cast<E *>(args.copy);
    if (i < quads) {
        int64_t at = i * QUAD;
        float theta[QUAD], m[QUAD], v[QUAD], grads[QUAD];
        load_quad(theta, args.theta + at);
        load_quad(m, args.m + at);
        load_quad(v, args.v + at);
        load_quad(grads, args.grads + at);
#pragma unroll
        for (int k = 0; k < QUAD; k++) {
            adamw_element(theta[k], m[k], v[k], grads[k], f);
        }
        store_quad(args.theta + at, theta);
        store_quad(args.m + at, m);
        store_quad(args.v + at, v);
        if (copy != NULL) {
            store_quad(copy + at, theta);
        }
        return;
    }
    int64_t at = quads * QUAD + (i - quads);
    if (at < args.count) {
        adamw_element(args.theta[at], args.m[at], args.v[at], args.grads[at], f);
        if (copy != NULL) {
            copy[at] = from_float<E>(args.theta[at]);
        }
    }
}

GIDD_LAUNCHER(adamw)(gidd_device *device, const gidd_adamw_args *args)
{
    GIDD_TRY(check_count("adamw", args->count,
                         args->theta != NULL && args->m != NULL && args->v != NULL &&
                             args->grads != NULL && args->state != NULL));
    if (args->count == 0) {
        return GIDD_OK;
    }
    size_t copy_bytes = QUAD * gidd_dtype_bytes(device->dtype);
    bool aligned = is_aligned(args->theta, 16) && is_aligned(args->m, 16) &&
                   is_aligned(args->v, 16) && is_aligned(args->grads, 16) &&
                   (args->copy == NULL || is_aligned(args->copy, copy_bytes));
    int64_t quads = aligned ? args->count / QUAD : 0; // a piece that begins anywhere goes singly
    int64_t items = quads + (args->count - quads * QUAD);
    return launch(device, "adamw",
                  device->dtype == GIDD_BF16 ? adamw_kernel<bf16> : adamw_kernel<float>,
                  blocks_for(items, THREADS), THREADS, 0, *args, quads);
}

// ---- running average -------------------------------------------------------------------------

static __global__ void __launch_bounds__(THREADS) ema_kernel(gidd_ema_args args, int64_t quads)
{
    if (args.state->skip) {
        return;
    }
    float keep = args.decay, add = static_cast<float>(1.0 - static_cast<double>(args.decay));
    int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i < quads) {
        float average[QUAD], theta[QUAD];
        load_quad(average, args.average + i * QUAD);
        load_quad(theta, args.theta + i * QUAD);
#pragma unroll
        for (int k = 0; k < QUAD; k++) {
            average[k] = keep * average[k] + add * theta[k];
        }
        store_quad(args.average + i * QUAD, average);
        return;
    }
    int64_t at = quads * QUAD + (i - quads);
    if (at < args.count) {
        args.average[at] = keep * args.average[at] + add * args.theta[at];
    }
}

GIDD_LAUNCHER(ema)(gidd_device *device, const gidd_ema_args *args)
{
    GIDD_TRY(check_count("ema", args->count,
                         args->average != NULL && args->theta != NULL && args->state != NULL));
    if (args->count == 0) {
        return GIDD_OK;
    }
    bool aligned = is_aligned(args->average, 16) && is_aligned(args->theta, 16);
    int64_t quads = aligned ? args->count / QUAD : 0; // a piece that begins anywhere goes singly
    int64_t items = quads + (args->count - quads * QUAD);
    return launch(device, "ema", ema_kernel, blocks_for(items, THREADS), THREADS, 0, *args, quads);
}

// ---- cast ------------------------------------------------------------------------------------

template <typename E>
static __global__ void __launch_bounds__(THREADS) cast_kernel(gidd_cast_args args, int64_t quads)
{
    int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    E *target = static_cast<E *>(args.target);
    if (i < quads) {
        float v[QUAD];
        load_quad(v, args.source + i * QUAD);
        store_quad(target + i * QUAD, v);
        return;
    }
    int64_t at = quads * QUAD + (i - quads);
    if (at < args.count) {
        target[at] = from_float<E>(args.source[at]);
    }
}

GIDD_LAUNCHER(cast)(gidd_device *device, const gidd_cast_args *args)
{
    GIDD_TRY(check_count("cast", args->count, args->target != NULL && args->source != NULL));
    if (args->count == 0) {
        return GIDD_OK;
    }
    bool aligned = is_aligned(args->source, 16) &&
                   is_aligned(args->target, QUAD * gidd_dtype_bytes(device->dtype));
    int64_t quads = aligned ? args->count / QUAD : 0;
    int64_t items = quads + (args->count - quads * QUAD);
    return launch(device, "cast",
                  device->dtype == GIDD_BF16 ? cast_kernel<bf16> : cast_kernel<float>,
                  blocks_for(items, THREADS), THREADS, 0, *args, quads);
}
