/* SPDX-License-Identifier: Apache-2.0
 *
 * A few rows of 128 numbers, sums in double as on the CPU. A warp has one output.
 */
#include "kernels/launch.cuh"

enum {
    THREADS = 256,
    WARPS = THREADS / WARP,
    HALF = GIDD_TIME_FEATURES / 2,
};

GIDD_WORKSPACE(time_cond)(const gidd_device_limits *limits)
{
    return static_cast<size_t>(2 * limits->B * limits->C) * sizeof(double);
}

static __device__ __forceinline__ double sigmoid(double v)
{
    return 1.0 / (1.0 + exp(-v));
}

static __device__ __forceinline__ float silu(float v)
{
    return static_cast<float>(static_cast<double>(v) * sigmoid(static_cast<double>(v)));
}

static __device__ __forceinline__ double silu_slope(float v)
{
    double s = sigmoid(static_cast<double>(v));
    return s * (1.0 + static_cast<double>(v) * (1.0 - s));
}

// out = w in + bias of one row; every warp of the block takes outputs in turn.
static __device__ __forceinline__ void affine(float *out, const float *w, const float *bias,
                                              const float *in, int64_t outs, int64_t ins)
{
    for (int64_t i = warp_number(); i < outs; i += WARPS) {
        double sum = 0.0;
        for (int64_t j = lane_number(); j < ins; j += WARP) {
            sum += static_cast<double>(w[i * ins + j]) * static_cast<double>(in[j]);
        }
        sum = warp_sum(sum);
        if (lane_number() == 0) {
            out[i] = static_cast<float>(sum + static_cast<double>(bias[i]));
        }
    }
}

// One block has one sequence.
static __global__ void __launch_bounds__(THREADS) forward_kernel(gidd_time_cond_fwd_args args)
{
    int64_t b = blockIdx.x, C = args.C;
    int t = static_cast<int>(threadIdx.x);
    float *features = args.features + b * GIDD_TIME_FEATURES;
    float *hidden = args.hidden + b * C, *embedding = args.embedding + b * C, *c = args.c + b * C;
    if (t < HALF) {
        double angle = static_cast<double>(args.coef[b].t) * exp(-log(10000.0) * t / HALF);
        features[t] = static_cast<float>(cos(angle));
        features[HALF + t] = static_cast<float>(sin(angle));
    }
    __syncthreads();
    affine(hidden, args.w0, args.b0, features, C, GIDD_TIME_FEATURES);
    __syncthreads();
    for (int64_t j = t; j < C; j += THREADS) {
        c[j] = silu(hidden[j]); // c holds the inner activation until it gets its own value
    }
    __syncthreads();
    affine(embedding, args.w2, args.b2, c, C, C);
    __syncthreads();
    for (int64_t j = t; j < C; j += THREADS) {
        c[j] = silu(embedding[j]);
    }
}

GIDD_LAUNCHER(time_cond_fwd)(gidd_device *device, const gidd_time_cond_fwd_args *args)
{
    if (args->B < 1 || args->C < 1 || args->features == NULL || args->hidden == NULL ||
        args->embedding == NULL || args->c == NULL || args->coef == NULL || args->w0 == NULL ||
        args->b0 == NULL || args->w2 == NULL || args->b2 == NULL) {
        return gidd_fail(GIDD_ERR_ARG, "time_cond_fwd: %lld rows of %lld, or a buffer is missing",
                         static_cast<long long>(args->B), static_cast<long long>(args->C));
    }
    return launch(device, "time_cond_fwd", forward_kernel, static_cast<unsigned>(args->B), THREADS,
                  0, *args);
}

// Gradients before the two SiLUs of one sequence, into the workspace.
static __global__ void __launch_bounds__(THREADS)
    rows_back_kernel(gidd_time_cond_bwd_args args, double *d_embedding, double *d_hidden)
{
    int64_t b = blockIdx.x, C = args.C;
    d_embedding += b * C;
    d_hidden += b * C;
    for (int64_t i = threadIdx.x; i < C; i += THREADS) {
        d_embedding[i] =
            static_cast<double>(args.dc[b * C + i]) * silu_slope(args.embedding[b * C + i]);
    }
    __syncthreads();
    for (int64_t j = threadIdx.x; j < C; j += THREADS) {
        double sum = 0.0;
        for (int64_t i = 0; i < C; i++) {
            sum += d_embedding[i] * static_cast<double>(args.w2[i * C + j]);
        }
        d_hidden[j] = sum * silu_slope(args.hidden[b * C + j]);
    }
}

static __device__ __forceinline__ void put(float *target, double value, int accumulate)
{
    *target = (accumulate ? *target : 0.0f) + static_cast<float>(value);
}

/* Gradients of the parameters, sequences in order. Block i has row i of both matrices: column j of
 * W0, of W2, and last the two biases. */
static __global__ void __launch_bounds__(THREADS)
    parameters_back_kernel(gidd_time_cond_bwd_args args, const double *d_embedding,
                           const double *d_hidden)
{
    int64_t i = blockIdx.x, C = args.C;
    int64_t column = static_cast<int64_t>(blockIdx.y) * THREADS + threadIdx.x;
    double sum = 0.0;
    if (column < GIDD_TIME_FEATURES) {
        for (int64_t b = 0; b < args.B; b++) {
            sum += d_hidden[b * C + i] *
                   static_cast<double>(args.features[b * GIDD_TIME_FEATURES + column]);
        }
        put(&args.dw0[i * GIDD_TIME_FEATURES + column], sum, args.accumulate);
    } else if (column < GIDD_TIME_FEATURES + C) {
        int64_t j = column - GIDD_TIME_FEATURES;
        for (int64_t b = 0; b < args.B; b++) {
            sum += d_embedding[b * C + i] * static_cast<double>(silu(args.hidden[b * C + j]));
        }
        put(&args.dw2[i * C + j], sum, args.accumulate);
    } else if (column < GIDD_TIME_FEATURES + C + 2) {
        bool inner = column == GIDD_TIME_FEATURES + C;
        const double *from = inner ? d_hidden : d_embedding;
        for (int64_t b = 0; b < args.B; b++) {
            sum += from[b * C + i];
        }
        put(inner ? &args.db0[i] : &args.db2[i], sum, args.accumulate);
    }
}

GIDD_LAUNCHER(time_cond_bwd)(gidd_device *device, const gidd_time_cond_bwd_args *args)
{
    int64_t B = args->B, C = args->C;
    if (B < 1 || C < 1 || args->dw0 == NULL || args->db0 == NULL || args->dw2 == NULL ||
        args->db2 == NULL || args->dc == NULL || args->features == NULL || args->hidden == NULL ||
        args->embedding == NULL || args->w2 == NULL) {
        return gidd_fail(GIDD_ERR_ARG, "time_cond_bwd: %lld rows of %lld, or a buffer is missing",
                         static_cast<long long>(B), static_cast<long long>(C));
    }
    GIDD_TRY(
        workspace_check(device, static_cast<size_t>(2 * B * C) * sizeof(double), "time_cond_bwd"));
    double *d_embedding = static_cast<double *>(device->workspace);
    double *d_hidden = d_embedding + B * C;
    GIDD_TRY(launch(device, "time_cond_bwd", rows_back_kernel, static_cast<unsigned>(B), THREADS, 0,
                    *args, d_embedding, d_hidden));
    dim3 grid(static_cast<unsigned>(C), blocks_for(GIDD_TIME_FEATURES + C + 2, THREADS));
    return launch(device, "time_cond_bwd", parameters_back_kernel, grid, THREADS, 0, *args,
                  d_embedding, d_hidden);
}
