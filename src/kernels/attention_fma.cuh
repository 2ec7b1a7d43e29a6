/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention by plain multiply-adds: fp32 (no TF32), and bf16 with head sizes that attention_mma.cuh
 * does not have. Any even head size; correct before fast. A block owns FMA_ROWS rows of results,
 * four lanes a row, and meets tiles of FMA_ROWS rows of the other side. Tiles are fp32 in shared
 * memory, one float wider than a row, so that neighbouring rows fall into different banks.
 */
#ifndef GIDD_KERNELS_ATTENTION_FMA_CUH
#define GIDD_KERNELS_ATTENTION_FMA_CUH

#include "kernels/attention_tile.cuh"

enum {
    FMA_ROWS = 32,
    FMA_LANES = ATTENTION_THREADS / FMA_ROWS, // of a row: the quad of quad_sum()
    FMA_KEYS = FMA_ROWS / FMA_LANES,          // scores of a lane
    FMA_OWN = 128 / FMA_LANES,                // elements of a result that a lane may hold
    FMA_PITCH = FMA_ROWS + 1,                 // of a matrix of probabilities
};

static inline size_t fma_tile_floats(int64_t d)
{
    return static_cast<size_t>(FMA_ROWS * (d + 1));
}
static inline size_t fma_shared_bytes(int64_t d, int tiles, int matrices)
{
    return (static_cast<size_t>(tiles) * fma_tile_floats(d) +
            static_cast<size_t>(matrices) * FMA_ROWS * FMA_PITCH) *
           sizeof(float);
}

static __device__ __forceinline__ bool is_visible(int query, int key, const attention_shape &s)
{
    return key < s.T && (!s.causal || key <= query);
}

/* Rows first.. of a head; rotated unless rope is NULL; rows behind T become 0. */
template <typename E>
static __device__ void load_tile(float *tile, const E *head, int stride, int first,
                                 const float *rope, const attention_shape &s)
{
    int half = s.d / 2, tasks = FMA_ROWS * half;
    for (int task = static_cast<int>(threadIdx.x); task < tasks; task += ATTENTION_THREADS) {
        int row = task / half, i = task % half, position = first + row;
        float a = 0.0f, b = 0.0f;
        if (position < s.T) {
            const E *source = head + position * stride;
            a = to_float(source[i]);
            b = to_float(source[i + half]);
            if (rope != nullptr) {
                const float *turn = rope + position * s.d + 2 * i;
                float a0 = a;
                a = fmaf(a0, turn[0], -b * turn[1]);
                b = fmaf(b, turn[0], a0 * turn[1]);
            }
        }
        tile[row * (s.d + 1) + i] = a;
        tile[row * (s.d + 1) + i + half] = b;
    }
}

static __device__ __forceinline__ float dot(const float *a, const float *b, int d)
{
    float sum = 0.0f;
    for (int i = 0; i < d; i++) {
        sum = fmaf(a[i], b[i], sum);
    }
    return sum;
}

/* own += sum over j of weights[j] tile[j], for this lane's elements lane + FMA_LANES i. */
static __device__ __forceinline__ void add_rows(float (&own)[FMA_OWN], const float *weights,
                                                const float *tile, int lane, int d)
{
    for (int j = 0; j < FMA_ROWS; j++) {
        float weight = weights[j];
#pragma unroll
        for (int i = 0; i < FMA_OWN; i++) {
            if (lane + FMA_LANES * i < d) {
                own[i] = fmaf(weight, tile[j * (d + 1) + lane + FMA_LANES * i], own[i]);
            }
        }
    }
}

template <typename E>
static __device__ __forceinline__ void store_row(E *row, const float (&own)[FMA_OWN], int lane,
                                                 int d, float factor)
{
#pragma unroll
    for (int i = 0; i < FMA_OWN; i++) {
        if (lane + FMA_LANES * i < d) {
            row[lane + FMA_LANES * i] = from_float<E>(own[i] * factor);
        }
    }
}

/* Stores a gradient of a rotated row, turned back. `scratch`: this row's part of a tile that only
 * its four lanes still use. Every lane of the warp calls; `target` is NULL for rows behind T. */
template <typename E>
static __device__ __forceinline__ void store_turned_row(E *target, const float (&own)[FMA_OWN],
                                                        float *scratch, const float *turns,
                                                        int lane, const attention_shape &s)
{
    __syncwarp();
#pragma unroll
    for (int i = 0; i < FMA_OWN; i++) {
        if (lane + FMA_LANES * i < s.d) {
            scratch[lane + FMA_LANES * i] = own[i] * s.scale;
        }
    }
    __syncwarp();
    for (int i = lane; target != nullptr && i < s.d / 2; i += FMA_LANES) {
        float a = scratch[i], b = scratch[i + s.d / 2];
        target[i] = from_float<E>(fmaf(a, turns[2 * i], b * turns[2 * i + 1]));
        target[i + s.d / 2] = from_float<E>(fmaf(b, turns[2 * i], -a * turns[2 * i + 1]));
    }
}

template <typename E>
static __global__ void __launch_bounds__(ATTENTION_THREADS, 3)
    attention_fwd_fma(E *out, float *lse, const E *qkv, const float *rope, attention_shape s)
{
    GIDD_DYNAMIC_SHARED(float, q_tile);
    int pitch = s.d + 1;
    float *k_tile = q_tile + FMA_ROWS * pitch, *v_tile = k_tile + FMA_ROWS * pitch;
    attention_place at = place_of_block(s);
    const E *q = qkv + at.packed, *k = q + at.width, *v = k + at.width;
    int row = static_cast<int>(threadIdx.x) / FMA_LANES,
        lane = static_cast<int>(threadIdx.x) % FMA_LANES;
    int first = at.block * FMA_ROWS, query = first + row;
    int keys = s.causal ? min(s.T, first + FMA_ROWS) : s.T;
    float *weights = v_tile + FMA_ROWS * pitch + row * FMA_PITCH;
    float largest = -INFINITY, sum = 0.0f, own[FMA_OWN] = {};
    load_tile(q_tile, q, 3 * at.width, first, rope, s);
    for (int key = 0; key < keys; key += FMA_ROWS) {
        __syncthreads(); // nobody reads the tiles before
        load_tile(k_tile, k, 3 * at.width, key, rope, s);
        load_tile(v_tile, v, 3 * at.width, key, static_cast<const float *>(nullptr), s);
        __syncthreads();
        float scores[FMA_KEYS], before = largest, tile_sum = 0.0f;
#pragma unroll
        for (int j = 0; j < FMA_KEYS; j++) {
            int other = lane + FMA_LANES * j;
            scores[j] = is_visible(query, key + other, s)
                            ? dot(q_tile + row * pitch, k_tile + other * pitch, s.d) * s.scale
                            : -INFINITY;
            largest = fmaxf(largest, scores[j]);
        }
        largest = quad_max(largest);
#pragma unroll
        for (int j = 0; j < FMA_KEYS; j++) {
            float p = expf(scores[j] - largest);
            weights[lane + FMA_LANES * j] = p;
            tile_sum += p;
        }
        float shrink = expf(before - largest);
        sum = fmaf(sum, shrink, quad_sum(tile_sum));
#pragma unroll
        for (int i = 0; i < FMA_OWN; i++) {
            own[i] *= shrink;
        }
        __syncwarp(); // a row's weights are its four lanes' own
        add_rows(own, weights, v_tile, lane, s.d);
    }
    if (query < s.T) {
        store_row(out + at.plain + query * at.width, own, lane, s.d, 1.0f / sum);
        if (lane == 0) {
            lse[at.head * s.T + query] = largest + logf(sum);
        }
    }
}

template <typename E>
static __global__ void __launch_bounds__(ATTENTION_THREADS, 3)
    attention_dq_fma(E *dqkv, float *delta, const E *dout, const E *out, const float *lse,
                     const E *qkv, const float *rope, attention_shape s)
{
    GIDD_DYNAMIC_SHARED(float, q_tile);
    int pitch = s.d + 1;
    float *dout_tile = q_tile + FMA_ROWS * pitch, *k_tile = dout_tile + FMA_ROWS * pitch;
    float *v_tile = k_tile + FMA_ROWS * pitch;
    attention_place at = place_of_block(s);
    const E *q = qkv + at.packed, *k = q + at.width, *v = k + at.width;
    int row = static_cast<int>(threadIdx.x) / FMA_LANES,
        lane = static_cast<int>(threadIdx.x) % FMA_LANES;
    int first = at.block * FMA_ROWS, query = first + row, near = min(query, s.T - 1);
    int keys = s.causal ? min(s.T, first + FMA_ROWS) : s.T;
    float *weights = v_tile + FMA_ROWS * pitch + row * FMA_PITCH;
    load_tile(q_tile, q, 3 * at.width, first, rope, s);
    load_tile(dout_tile, dout + at.plain, at.width, first, static_cast<const float *>(nullptr), s);
    __syncthreads();
    float own_lse = lse[at.head * s.T + near], own_delta = 0.0f, own[FMA_OWN] = {};
    for (int i = lane; i < s.d; i += FMA_LANES) {
        own_delta = fmaf(dout_tile[row * pitch + i], to_float(out[at.plain + near * at.width + i]),
                         own_delta);
    }
    own_delta = quad_sum(own_delta);
    if (lane == 0 && query < s.T) {
        delta[at.head * s.T + query] = own_delta;
    }
    for (int key = 0; key < keys; key += FMA_ROWS) {
        __syncthreads(); // nobody reads the tiles before
        load_tile(k_tile, k, 3 * at.width, key, rope, s);
        load_tile(v_tile, v, 3 * at.width, key, static_cast<const float *>(nullptr), s);
        __syncthreads();
        for (int other = lane; other < FMA_ROWS; other += FMA_LANES) {
            float ds = 0.0f;
            if (is_visible(query, key + other, s)) {
                float score = dot(q_tile + row * pitch, k_tile + other * pitch, s.d) * s.scale;
                float dp = dot(dout_tile + row * pitch, v_tile + other * pitch, s.d);
                ds = expf(score - own_lse) * (dp - own_delta);
            }
            weights[other] = ds;
        }
        __syncwarp(); // a row's weights are its four lanes' own
        add_rows(own, weights, k_tile, lane, s.d);
    }
    E *target = query < s.T ? dqkv + at.packed + query * 3 * at.width : nullptr;
    store_turned_row(target, own, q_tile + row * pitch, rope + near * s.d, lane, s);
}

template <typename E>
static __global__ void __launch_bounds__(ATTENTION_THREADS, 3)
    attention_dkv_fma(E *dqkv, const float *delta, const E *dout, const float *lse, const E *qkv,
                      const float *rope, attention_shape s)
{
    GIDD_DYNAMIC_SHARED(float, k_tile);
    int pitch = s.d + 1;
    float *v_tile = k_tile + FMA_ROWS * pitch, *q_tile = v_tile + FMA_ROWS * pitch;
    float *dout_tile = q_tile + FMA_ROWS * pitch;
    attention_place at = place_of_block(s);
    const E *q = qkv + at.packed, *k = q + at.width, *v = k + at.width;
    int row = static_cast<int>(threadIdx.x) / FMA_LANES,
        lane = static_cast<int>(threadIdx.x) % FMA_LANES;
    int first = at.block * FMA_ROWS, key = first + row, near = min(key, s.T - 1);
    float *p_row = dout_tile + FMA_ROWS * pitch + row * FMA_PITCH;
    float *ds_row = p_row + FMA_ROWS * FMA_PITCH;
    float dk[FMA_OWN] = {}, dv[FMA_OWN] = {};
    load_tile(k_tile, k, 3 * at.width, first, rope, s);
    load_tile(v_tile, v, 3 * at.width, first, static_cast<const float *>(nullptr), s);
    for (int query = s.causal ? first : 0; query < s.T; query += FMA_ROWS) {
        __syncthreads(); // nobody reads the tiles before
        load_tile(q_tile, q, 3 * at.width, query, rope, s);
        load_tile(dout_tile, dout + at.plain, at.width, query, static_cast<const float *>(nullptr),
                  s);
        __syncthreads();
        for (int other = lane; other < FMA_ROWS; other += FMA_LANES) {
            float p = 0.0f, ds = 0.0f;
            if (query + other < s.T && is_visible(query + other, key, s)) {
                float score = dot(q_tile + other * pitch, k_tile + row * pitch, s.d) * s.scale;
                float dp = dot(dout_tile + other * pitch, v_tile + row * pitch, s.d);
                p = expf(score - lse[at.head * s.T + query + other]);
                ds = p * (dp - delta[at.head * s.T + query + other]);
            }
            p_row[other] = p;
            ds_row[other] = ds;
        }
        __syncwarp(); // a row's weights are its four lanes' own
        add_rows(dv, p_row, dout_tile, lane, s.d);
        add_rows(dk, ds_row, q_tile, lane, s.d);
    }
    E *target = key < s.T ? dqkv + at.packed + at.width + key * 3 * at.width : nullptr;
    store_turned_row(target, dk, k_tile + row * pitch, rope + near * s.d, lane, s);
    if (key < s.T) {
        store_row(target + at.width, dv, lane, s.d, 1.0f);
    }
}

#endif
