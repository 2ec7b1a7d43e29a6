/* SPDX-License-Identifier: Apache-2.0
 *
 * Gated activation, eight columns a thread.
 */
#include "kernels/launch.cuh"

enum { PACK = 8, THREADS = 256 };

static __device__ __forceinline__ float sigmoid(float v)
{
    return 1.0f / (1.0f + expf(-v));
}

// Where this thread's gates lie; -1: behind the end. The values lie `cols` further.
static __device__ __forceinline__ int64_t first_gate(int64_t rows, int64_t cols, int64_t *y_p)
{
    int64_t packs = cols / PACK;
    int64_t index = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    int64_t row = index / packs, column = index % packs * PACK;
    *y_p = row * cols + column;
    return row < rows ? row * 2 * cols + column : -1;
}

template <typename E>
static __global__ void __launch_bounds__(THREADS) fwd_kernel(gidd_swiglu_fwd_args args)
{
    int64_t out, at = first_gate(args.rows, args.cols, &out);
    if (at < 0) {
        return;
    }
    const E *pre = static_cast<const E *>(args.pre);
    float gate[PACK], value[PACK];
    load8(gate, pre + at);
    load8(value, pre + at + args.cols);
#pragma unroll
    for (int k = 0; k < PACK; k++) {
        value[k] *= gate[k] * sigmoid(gate[k]);
    }
    store8(static_cast<E *>(args.y) + out, value);
}

template <typename E>
static __global__ void __launch_bounds__(THREADS) bwd_kernel(gidd_swiglu_bwd_args args)
{
    int64_t in, at = first_gate(args.rows, args.cols, &in);
    if (at < 0) {
        return;
    }
    const E *pre = static_cast<const E *>(args.pre);
    float gate[PACK], value[PACK], dy[PACK];
    load8(gate, pre + at);
    load8(value, pre + at + args.cols);
    load8(dy, static_cast<const E *>(args.dy) + in);
#pragma unroll
    for (int k = 0; k < PACK; k++) {
        float g = gate[k], e = expf(-fabsf(g)); // in (0, 1]: nothing overflows
        float major = 1.0f / (1.0f + e);        // the larger of s and 1 - s, each without cancellation
        float minor = e * major;
        float s = g < 0.0f ? minor : major, rest = g < 0.0f ? major : minor;
        gate[k] = dy[k] * value[k] * s * (1.0f + g * rest);
        value[k] = dy[k] * g * s;
    }
    store8(static_cast<E *>(args.dpre) + at, gate);
    store8(static_cast<E *>(args.dpre) + at + args.cols, value);
}

static gidd_status check(const char *slot, int64_t rows, int64_t cols, const void *a, const void *b,
                         const void *c)
{
    if (rows < 0 || cols < 1 || a == NULL || b == NULL || c == NULL) {
        return gidd_fail(GIDD_ERR_ARG, "%s: %lld rows of %lld, or a missing buffer", slot,
                         static_cast<long long>(rows), static_cast<long long>(cols));
    }
    if (cols % PACK != 0 || !is_aligned(a, 16) || !is_aligned(b, 16) || !is_aligned(c, 16)) {
        return gidd_fail(GIDD_ERR_ARG, "%s: rows of %lld: a multiple of 8, at 16-byte addresses", slot,
                         static_cast<long long>(cols));
    }
    return GIDD_OK;
}

GIDD_LAUNCHER(swiglu_fwd)(gidd_device *device, const gidd_swiglu_fwd_args *args)
{
    GIDD_TRY(check("swiglu_fwd", args->rows, args->cols, args->y, args->pre, args->pre));
    if (args->rows == 0) {
        return GIDD_OK;
    }
    return launch(device, "swiglu_fwd",
                  device->dtype == GIDD_BF16 ? fwd_kernel<bf16> : fwd_kernel<float>,
                  blocks_for(args->rows * args->cols / PACK, THREADS), THREADS, 0, *args);
}

GIDD_LAUNCHER(swiglu_bwd)(gidd_device *device, const gidd_swiglu_bwd_args *args)
{
    GIDD_TRY(check("swiglu_bwd", args->rows, args->cols, args->dpre, args->dy, args->pre));
    if (args->rows == 0) {
        return GIDD_OK;
    }
    return launch(device, "swiglu_bwd",
                  device->dtype == GIDD_BF16 ? bwd_kernel<bf16> : bwd_kernel<float>,
                  blocks_for(args->rows * args->cols / PACK, THREADS), THREADS, 0, *args);
}
