/* SPDX-License-Identifier: Apache-2.0
 *
 * One more position of causal attention: one head of one sequence by one block. A warp takes every
 * WARPS-th key and keeps a running softmax of its own, in fp32; the warps' results are joined in order.
 */
#include "kernels/launch.cuh"

#include <cfloat>

enum { THREADS = 128, WARPS = THREADS / WARP, MAX_HEAD = 128, PER_LANE = MAX_HEAD / WARP };

// A warp's share: its softmax so far, and values weighted by it; element i of a head is lane i % 32's.
struct share {
    float largest, sum, out[PER_LANE];
};

// Half-split pairing: element i turns with element i + d/2. Every thread of the block calls.
template <typename E>
static __device__ __forceinline__ float rotated(const E *source, const float *rope, int i, int d)
{
    int half = d / 2, pair = i < half ? i : i - half;
    float a = to_float(source[pair]), b = to_float(source[pair + half]);
    float cosine = rope[2 * pair], sine = rope[2 * pair + 1];
    return i < half ? a * cosine - b * sine : b * cosine + a * sine;
}

static __device__ __forceinline__ void add_key(share &own, const float (&q)[PER_LANE], const float *key,
                                               const float *value, int d)
{
    float score = 0.0f;
#pragma unroll
    for (int k = 0; k < PER_LANE; k++) {
        int i = k * WARP + lane_number();
        score += i < d ? q[k] * key[i] : 0.0f;
    }
    score = warp_sum(score);
    float largest = fmaxf(own.largest, score), shrink = expf(own.largest - largest);
    float weight = expf(score - largest);
    own.largest = largest;
    own.sum = own.sum * shrink + weight;
#pragma unroll
    for (int k = 0; k < PER_LANE; k++) {
        int i = k * WARP + lane_number();
        own.out[k] = own.out[k] * shrink + (i < d ? weight * value[i] : 0.0f);
    }
}

template <typename E>
static __global__ void __launch_bounds__(THREADS) step_kernel(gidd_attention_step_args args)
{
    __shared__ float queries[MAX_HEAD], largest[WARPS], sums[WARPS], outs[WARPS][MAX_HEAD];
    int d = static_cast<int>(args.d);
    int64_t D = args.H * args.d, b = blockIdx.x / args.H, h = blockIdx.x % args.H, p = args.position;
    const E *q_in = static_cast<const E *>(args.qkv) + b * 3 * D + h * d;
    const float *rope = args.rope + p * d;
    float *keys = args.keys + b * args.T * D + h * d, *values = args.values + b * args.T * D + h * d;
    for (int i = static_cast<int>(threadIdx.x); i < d; i += THREADS) {
        queries[i] = rotated(q_in, rope, i, d) * (1.0f / sqrtf(static_cast<float>(d)));
        keys[p * D + i] = rotated(q_in + D, rope, i, d);
        values[p * D + i] = to_float(q_in[2 * D + i]);
    }
    __syncthreads();
    share own = {-FLT_MAX, 0.0f, {}};
    float q[PER_LANE];
#pragma unroll
    for (int k = 0; k < PER_LANE; k++) {
        int i = k * WARP + lane_number();
        q[k] = i < d ? queries[i] : 0.0f;
    }
    for (int64_t j = warp_number(); j <= p; j += WARPS) {
        add_key(own, q, keys + j * D, values + j * D, d);
    }
    if (lane_number() == 0) {
        largest[warp_number()] = own.largest;
        sums[warp_number()] = own.sum;
    }
#pragma unroll
    for (int k = 0; k < PER_LANE; k++) {
        outs[warp_number()][k * WARP + lane_number()] = own.out[k];
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < d; i += THREADS) {
        float top = largest[0], sum = 0.0f, out = 0.0f;
        for (int w = 1; w < WARPS; w++) {
            top = fmaxf(top, largest[w]);
        }
        for (int w = 0; w < WARPS; w++) {
            float weight = expf(largest[w] - top);
            sum += weight * sums[w];
            out += weight * outs[w][i];
        }
        static_cast<E *>(args.out)[b * D + h * d + i] = from_float<E>(out / sum);
    }
}

GIDD_LAUNCHER(attention_step)(gidd_device *device, const gidd_attention_step_args *args)
{
    if (args->B < 1 || args->T < 1 || args->H < 1 || args->d < 2 || args->d > MAX_HEAD ||
        args->d % 2 != 0 || args->position < 0 || args->position >= args->T || args->out == NULL ||
        args->keys == NULL || args->values == NULL || args->qkv == NULL || args->rope == NULL) {
        return gidd_fail(GIDD_ERR_ARG,
                         "attention_step: B %lld, position %lld of %lld, H %lld, head size %lld, or a "
                         "buffer is missing",
                         static_cast<long long>(args->B), static_cast<long long>(args->position),
                         static_cast<long long>(args->T), static_cast<long long>(args->H),
                         static_cast<long long>(args->d));
    }
    return launch(device, "attention_step",
                  device->dtype == GIDD_BF16 ? step_kernel<bf16> : step_kernel<float>,
                  static_cast<unsigned>(args->B * args->H), THREADS, 0, *args);
}
