/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention's launchers: bf16 with usual head sizes on tensor cores (attention_mma.cuh), the rest
 * by multiply-adds (attention_fma.cuh). Backward runs by queries, then by keys; the first leaves
 * delta [B][H][T] in the workspace for the second.
 */
#include "kernels/launch.cuh"

#include "kernels/attention_fma.cuh"
#include "kernels/attention_mma.cuh"

#include <limits.h>

GIDD_WORKSPACE(attention)(const gidd_device_limits *limits)
{
    return static_cast<size_t>(limits->B * limits->H * limits->T) * sizeof(float);
}

static gidd_status check_shape(const char *slot, int64_t B, int64_t T, int64_t H, int64_t d,
                               bool has_buffers)
{
    if (B < 1 || T < 1 || H < 1 || d < 2 || d > 128 || d % 2 != 0 || !has_buffers) {
        return gidd_fail(GIDD_ERR_ARG,
                         "%s: B %lld, T %lld, H %lld, head size %lld, or a buffer is missing", slot,
                         static_cast<long long>(B), static_cast<long long>(T),
                         static_cast<long long>(H), static_cast<long long>(d));
    }
    // places inside a sequence and blocks, of the smallest size, are counted in ints
    if (T > INT_MAX / 2 || H > INT_MAX / 3 / d / T || B > INT_MAX / H / blocks_for(T, FMA_ROWS)) {
        return gidd_fail(GIDD_ERR_ARG, "%s: %lld x %lld heads of %lld positions are too many", slot,
                         static_cast<long long>(B), static_cast<long long>(H),
                         static_cast<long long>(T));
    }
    return GIDD_OK;
}

template <typename Args> static attention_shape shape_of(const Args *args)
{
    attention_shape s = {};
    s.T = static_cast<int>(args->T);
    s.H = static_cast<int>(args->H);
    s.d = static_cast<int>(args->d);
    s.causal = args->kind == GIDD_ATTENTION_CAUSAL;
    s.scale = 1.0f / sqrtf(static_cast<float>(s.d));
    return s;
}

// One block for `rows` rows of each head.
static dim3 grid_of(attention_shape *s, int64_t B, int rows)
{
    s->blocks = static_cast<int>(blocks_for(s->T, rows));
    return dim3(static_cast<unsigned>(B * s->H * s->blocks));
}

// ---- forward ---------------------------------------------------------------------------------

template <int D>
static gidd_status launch_fwd_mma(gidd_device *device, const gidd_attention_fwd_args *args)
{
    attention_shape s = shape_of(args);
    dim3 grid = grid_of(&s, args->B, fwd_sizes<D>::ROWS);
    return launch(device, "attention_fwd", attention_fwd_mma<D>, grid, dim3(ATTENTION_THREADS),
                  fwd_sizes<D>::SHARED_BYTES, static_cast<bf16 *>(args->out), args->lse,
                  static_cast<const bf16 *>(args->qkv), args->rope, s);
}

template <typename E>
static gidd_status launch_fwd_fma(gidd_device *device, const gidd_attention_fwd_args *args)
{
    attention_shape s = shape_of(args);
    dim3 grid = grid_of(&s, args->B, FMA_ROWS);
    return launch(device, "attention_fwd", attention_fwd_fma<E>, grid, dim3(ATTENTION_THREADS),
                  fma_shared_bytes(args->d, 3, 1), static_cast<E *>(args->out), args->lse,
                  static_cast<const E *>(args->qkv), args->rope, s);
}

GIDD_LAUNCHER(attention_fwd)(gidd_device *device, const gidd_attention_fwd_args *args)
{
    GIDD_TRY(check_shape("attention_fwd", args->B, args->T, args->H, args->d,
                         args->out != nullptr && args->lse != nullptr && args->qkv != nullptr &&
                             args->rope != nullptr));
    if (device->dtype == GIDD_F32) {
        return launch_fwd_fma<float>(device, args);
    }
    if (is_aligned(args->out, 16) && is_aligned(args->qkv, 16) && is_aligned(args->rope, 16)) {
        switch (args->d) {
        case 32:
            return launch_fwd_mma<32>(device, args);
        case 64:
            return launch_fwd_mma<64>(device, args);
        case 96:
            return launch_fwd_mma<96>(device, args);
        case 128:
            return launch_fwd_mma<128>(device, args);
        default:
            break;
        }
    }
    return launch_fwd_fma<bf16>(device, args);
}

// ---- backward --------------------------------------------------------------------------------

template <int D>
static gidd_status launch_bwd_mma(gidd_device *device, const gidd_attention_bwd_args *args)
{
    attention_shape s = shape_of(args);
    dim3 grid = grid_of(&s, args->B, dq_sizes<D>::ROWS); // as many rows of keys as of queries
    auto delta = static_cast<float *>(device->workspace);
    auto dqkv = static_cast<bf16 *>(args->dqkv);
    auto dout = static_cast<const bf16 *>(args->dout);
    auto qkv = static_cast<const bf16 *>(args->qkv);
    static_assert(int(dq_sizes<D>::ROWS) == int(dkv_sizes<D>::ROWS), "one grid for both");
    GIDD_TRY(launch(device, "attention_bwd", attention_dq_mma<D>, grid, dim3(ATTENTION_THREADS),
                    dq_sizes<D>::SHARED_BYTES, dqkv, delta, dout,
                    static_cast<const bf16 *>(args->out), args->lse, qkv, args->rope, s));
    return launch(device, "attention_bwd", attention_dkv_mma<D>, grid, dim3(ATTENTION_THREADS),
                  dkv_sizes<D>::SHARED_BYTES, dqkv, delta, dout, args->lse, qkv, args->rope, s);
}

template <typename E>
static gidd_status launch_bwd_fma(gidd_device *device, const gidd_attention_bwd_args *args)
{
    attention_shape s = shape_of(args);
    dim3 grid = grid_of(&s, args->B, FMA_ROWS);
    auto delta = static_cast<float *>(device->workspace);
    auto dqkv = static_cast<E *>(args->dqkv);
    auto dout = static_cast<const E *>(args->dout), qkv = static_cast<const E *>(args->qkv);
    GIDD_TRY(launch(device, "attention_bwd", attention_dq_fma<E>, grid, dim3(ATTENTION_THREADS),
                    fma_shared_bytes(args->d, 4, 1), dqkv, delta, dout,
                    static_cast<const E *>(args->out), args->lse, qkv, args->rope, s));
    return launch(device, "attention_bwd", attention_dkv_fma<E>, grid, dim3(ATTENTION_THREADS),
                  fma_shared_bytes(args->d, 4, 2), dqkv, delta, dout, args->lse, qkv, args->rope,
                  s);
}

GIDD_LAUNCHER(attention_bwd)(gidd_device *device, const gidd_attention_bwd_args *args)
{
    GIDD_TRY(check_shape("attention_bwd", args->B, args->T, args->H, args->d,
                         args->dqkv != nullptr && args->dout != nullptr && args->out != nullptr &&
                             args->lse != nullptr && args->qkv != nullptr &&
                             args->rope != nullptr));
    GIDD_TRY(workspace_check(
        device, static_cast<size_t>(args->B * args->H * args->T) * sizeof(float), "attention_bwd"));
    if (device->dtype == GIDD_F32) {
        return launch_bwd_fma<float>(device, args);
    }
    if (is_aligned(args->dqkv, 16) && is_aligned(args->dout, 16) && is_aligned(args->out, 16) &&
        is_aligned(args->qkv, 16) && is_aligned(args->rope, 16)) {
        switch (args->d) {
        case 32:
            return launch_bwd_mma<32>(device, args);
        case 64:
            return launch_bwd_mma<64>(device, args);
        case 96:
            return launch_bwd_mma<96>(device, args);
        case 128:
            return launch_bwd_mma<128>(device, args);
        default:
            break;
        }
    }
    return launch_bwd_fma<bf16>(device, args);
}
