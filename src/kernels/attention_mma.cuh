/* SPDX-License-Identifier: Apache-2.0
 *
 * bf16 attention on tensor cores, head sizes 32, 64, 96 and 128. No matrix of scores leaves
 * registers.
 *
 * Backward is two kernels, by the arithmetic of T = 512, d = 64. A head's gradient is 5 products of
 * 2 T^2 d FLOPs. One kernel of 5 products has to add dQ across blocks: by atomics, in no fixed
 * order; by turns, in which blocks wait; or by partial sums in memory: 4 blocks of 128 keys times 4
 * bytes, written and read, are 32 bytes per element of dQ. For 64 sequences and 12 heads these are
 * 0.8 GB, 0.27 ms at 3 TB/s. Two kernels, one by queries (scores, dP, dQ) and one by keys (scores,
 * dP, dV, dK), are 7 products: 2 more are 52 GFLOP, 0.17 ms at 300 TFLOP/s, without any memory and
 * with one order of summation. The first has rows of dout at hand, so it finds delta = dout . out
 * for the second.
 *
 * Rotation: q or k that a block holds is rotated once; what a block streams (keys in the forward
 * and by queries, queries by keys) is rotated again by each of a head's blocks, T / 128 of them. Of
 * a tile of 64 x 64 a thread rotates 16 pairs: about 160 of some 1000 instructions of the forward's
 * loop, which has 128 mma a warp, and 32 KB through L1 (half of it the table, which blocks share)
 * beside ldmatrix' 64 KB. Rotating once, in a kernel of its own, would read and write 4 D bytes per
 * position: 0.07 ms for the batch above, against 0.18 ms for a whole forward at 282 TFLOP/s.
 */
#ifndef GIDD_KERNELS_ATTENTION_MMA_CUH
#define GIDD_KERNELS_ATTENTION_MMA_CUH

#include "kernels/fast_math_cuda.cuh"
#include "kernels/attention_tile.cuh"

// Chosen so that results, scores and held operands fit into 255 registers. M: a warp's rows / 16;
// two use each operand from shared memory twice. STREAM: rows of a tile that passes by. PART: those
// of them whose scores exist at a time.
template <int D> struct fwd_sizes {
    enum { M = D <= 64 ? 2 : 1, ROWS = 16 * M * ATTENTION_WARPS, STREAM = 64 };
    enum { SHARED_BYTES = (ROWS + 4 * STREAM) * D * 2 };
};
template <int D> struct dq_sizes {
    enum { M = D <= 64 ? 2 : 1, ROWS = 16 * M * ATTENTION_WARPS, STREAM = D <= 64 ? 64 : 32 };
    enum { PART = D <= 64 ? 16 : 32, SHARED_BYTES = (2 * ROWS + 4 * STREAM) * D * 2 };
};
template <int D> struct dkv_sizes {
    enum { M = D <= 64 ? 2 : 1, ROWS = 16 * M * ATTENTION_WARPS, STREAM = 32 };
    enum { SHARED_BYTES = (2 * ROWS + 4 * STREAM) * D * 2 + 4 * STREAM * 4 };
};

static constexpr float LOG2_E = 1.44269504088896f;

/* Keys that a query may not see become -infinity. `query`, `key`: of this lane's element 0. */
template <int M, int N>
static __device__ __forceinline__ void mask_scores(float (&scores)[M][N][4], int query, int key,
                                                   const attention_shape &s)
{
#pragma unroll
    for (int i = 0; i < M * N * 4; i++) {
        int m = i / (4 * N), n = i / 4 % N, half = i % 4 / 2, e = i % 2;
        int q = query + 16 * m + 8 * half, k = key + 8 * n + e;
        if (k >= s.T || (s.causal && k > q)) {
            scores[m][n][i % 4] = -INFINITY;
        }
    }
}

// Whether a tile of keys holds any that some query from `query` on may not see.
static __device__ __forceinline__ bool needs_mask(int query, int key, int keys,
                                                  const attention_shape &s)
{
    return key + keys > s.T || (s.causal && key + keys - 1 > query);
}

static __device__ __forceinline__ int visible_keys(int last_query, const attention_shape &s)
{
    return s.causal ? min(s.T, last_query + 1) : s.T;
}

/* The loops over tiles that follow are alike, and written out all the same. The two operands' tiles and
 * what fetches the next pair as one struct for all three: nvcc 13.0 then spills 40 to 72 bytes of
 * attention_dkv_mma<64> on sm_90 and takes 171 registers for attention_fwd_mma<96>, of which 168 are
 * three blocks on a multiprocessor. */

// ---- forward ---------------------------------------------------------------------------------

template <int D, int M> struct softmax_state {
    float out[M][D / 8][4];
    float largest[M][2], sum[M][2]; // `sum`: this lane's share
};

/* Scores become exp(score - largest so far); what was summed is scaled to the new largest. */
template <int D, int M, int N>
static __device__ __forceinline__ void softmax_tile(softmax_state<D, M> &state,
                                                    float (&scores)[M][N][4], float scale2)
{
#pragma unroll
    for (int row = 0; row < 2 * M; row++) {
        int m = row / 2, e = row % 2 * 2;
        float before = state.largest[m][e / 2], largest = before, sum = 0.0f;
#pragma unroll
        for (int n = 0; n < N; n++) {
            largest = fmaxf(largest, fmaxf(scores[m][n][e], scores[m][n][e + 1]));
        }
        largest = quad_max(largest);
        float shift = largest * scale2, shrink = approx_exp2(fmaf(before, scale2, -shift));
#pragma unroll
        for (int n = 0; n < N; n++) {
            scores[m][n][e] = approx_exp2(fmaf(scores[m][n][e], scale2, -shift));
            scores[m][n][e + 1] = approx_exp2(fmaf(scores[m][n][e + 1], scale2, -shift));
            sum += scores[m][n][e] + scores[m][n][e + 1];
        }
        state.sum[m][e / 2] = fmaf(state.sum[m][e / 2], shrink, sum);
        state.largest[m][e / 2] = largest;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            state.out[m][n][e] *= shrink;
            state.out[m][n][e + 1] *= shrink;
        }
    }
}

/* Divides by the sums; writes lse. */
template <int D, int M>
static __device__ __forceinline__ void softmax_finish(softmax_state<D, M> &state, float *lse,
                                                      int first, const attention_shape &s)
{
#pragma unroll
    for (int row = 0; row < 2 * M; row++) {
        int m = row / 2, e = row % 2 * 2, query = first + 8 * row + lane_number() / 4;
        float sum = quad_sum(state.sum[m][e / 2]), factor = 1.0f / sum;
        if (lane_number() % 4 == 0 && query < s.T) {
            lse[query] = fmaf(state.largest[m][e / 2], s.scale, logf(sum));
        }
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            state.out[m][n][e] *= factor;
            state.out[m][n][e + 1] *= factor;
        }
    }
}

// The second bound: left alone, ptxas gives d = 32 too few registers; named, it gives d = 64
// spills.
template <int D>
static __global__ void __launch_bounds__(ATTENTION_THREADS, D == 32 ? 1 : 0)
    attention_fwd_mma(bf16 *out, float *lse, const bf16 *qkv, const float *rope, attention_shape s)
{
    typedef fwd_sizes<D> size;
    constexpr int M = size::M, ROWS = size::ROWS, STREAM = size::STREAM;
    GIDD_DYNAMIC_SHARED(bf16, shared);
    bf16 *q_tile = shared, *k_tiles = q_tile + ROWS * D, *v_tiles = k_tiles + 2 * STREAM * D;
    attention_place at = place_of_block(s);
    const bf16 *q = qkv + at.packed, *k = q + at.width, *v = k + at.width;
    int first = at.block * ROWS, row = warp_number() * 16 * M, query = first + row;
    bf16 *own_q = q_tile + row * D;
    int tiles = (visible_keys(first + ROWS - 1, s) + STREAM - 1) / STREAM;
    copy_tile<D, ROWS>(q_tile, q, 3 * at.width, first, s.T);
    copy_tile<D, STREAM>(k_tiles, k, 3 * at.width, 0, s.T);
    copy_tile<D, STREAM>(v_tiles, v, 3 * at.width, 0, s.T);
    copy_async_commit();
    copy_async_wait<0>();
    rotate_tile<D, ROWS>(q_tile, rope, first, s.T);
    __syncthreads();
    operand_rows<D, M> q_rows;
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        load_rows<D, M>(q_rows.r[i], own_q, i);
    }
    softmax_state<D, M> state;
    clear(state.out);
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        state.largest[i / 2][i % 2] = -INFINITY;
        state.sum[i / 2][i % 2] = 0.0f;
    }
    for (int tile = 0; tile < tiles; tile++) {
        bf16 *k_tile = k_tiles + tile % 2 * STREAM * D, *v_tile = v_tiles + tile % 2 * STREAM * D;
        int key = tile * STREAM;
        copy_async_wait<0>();
        rotate_tile<D, STREAM>(k_tile, rope, key, s.T);
        __syncthreads(); // this tile is whole, and nobody reads the one before
        if (tile + 1 < tiles) {
            int other = (tile + 1) % 2 * STREAM * D;
            copy_tile<D, STREAM>(k_tiles + other, k, 3 * at.width, key + STREAM, s.T);
            copy_tile<D, STREAM>(v_tiles + other, v, 3 * at.width, key + STREAM, s.T);
            copy_async_commit();
        }
        float scores[M][STREAM / 8][4];
        product<D>(scores, q_rows, k_tile);
        if (needs_mask(query, key, STREAM, s)) {
            mask_scores(scores, query + lane_number() / 4, key + lane_number() % 4 * 2, s);
        }
        softmax_tile(state, scores, s.scale * LOG2_E);
        accumulate<D>(state.out, scores, v_tile);
    }
    softmax_finish(state, lse + at.head * s.T, query, s);
    store_rows<D>(out + at.plain, at.width, query, s.T, state.out, own_q);
}

// ---- backward --------------------------------------------------------------------------------

/* delta = dout . out of this lane's rows, also into `delta` for the other kernel. */
template <int D, int M>
static __device__ __forceinline__ void find_delta(float (&own)[2 * M], float *delta,
                                                  const bf16 *out, int stride, const bf16 *own_dout,
                                                  int first, int T)
{
    int lane = lane_number();
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        int r = 8 * i + lane / 4, query = first + r;
        float sum = 0.0f;
#pragma unroll
        for (int chunk = lane % 4; chunk < D / CHUNK; chunk += 4) {
            float a[CHUNK], b[CHUNK];
            load8(a, out + min(query, T - 1) * stride + chunk * CHUNK);
            load8(b, own_dout + chunk_offset<D>(r, chunk));
#pragma unroll
            for (int j = 0; j < CHUNK; j++) {
                sum = fmaf(a[j], b[j], sum);
            }
        }
        own[i] = quad_sum(sum);
        if (lane % 4 == 0 && query < T) {
            delta[query] = own[i];
        }
    }
}

template <int D>
static __global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_dq_mma(bf16 *dqkv, float *delta, const bf16 *dout, const bf16 *out, const float *lse,
                     const bf16 *qkv, const float *rope, attention_shape s)
{
    typedef dq_sizes<D> size;
    constexpr int M = size::M, ROWS = size::ROWS, STREAM = size::STREAM, PART = size::PART;
    GIDD_DYNAMIC_SHARED(bf16, shared);
    bf16 *q_tile = shared, *dout_tile = q_tile + ROWS * D, *k_tiles = dout_tile + ROWS * D,
         *v_tiles = k_tiles + 2 * STREAM * D;
    attention_place at = place_of_block(s);
    const bf16 *q = qkv + at.packed, *k = q + at.width, *v = k + at.width;
    int first = at.block * ROWS, row = warp_number() * 16 * M, query = first + row;
    bf16 *own_q = q_tile + row * D, *own_dout = dout_tile + row * D;
    int lane_query = query + lane_number() / 4;
    int tiles = (visible_keys(first + ROWS - 1, s) + STREAM - 1) / STREAM;
    copy_tile<D, ROWS>(q_tile, q, 3 * at.width, first, s.T);
    copy_tile<D, ROWS>(dout_tile, dout + at.plain, at.width, first, s.T);
    copy_tile<D, STREAM>(k_tiles, k, 3 * at.width, 0, s.T);
    copy_tile<D, STREAM>(v_tiles, v, 3 * at.width, 0, s.T);
    copy_async_commit();
    copy_async_wait<0>();
    rotate_tile<D, ROWS>(q_tile, rope, first, s.T);
    __syncthreads();
    operand_rows<D, M> q_rows, dout_rows;
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        load_rows<D, M>(q_rows.r[i], own_q, i);
        load_rows<D, M>(dout_rows.r[i], own_dout, i);
    }
    float deltas[2 * M], lse2[2 * M], dq[M][D / 8][4], scale2 = s.scale * LOG2_E;
    find_delta<D, M>(deltas, delta + at.head * s.T, out + at.plain, at.width, own_dout, query, s.T);
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        lse2[i] = lse[at.head * s.T + min(lane_query + 8 * i, s.T - 1)] * LOG2_E;
    }
    clear(dq);
    for (int tile = 0; tile < tiles; tile++) {
        bf16 *k_tile = k_tiles + tile % 2 * STREAM * D, *v_tile = v_tiles + tile % 2 * STREAM * D;
        int key = tile * STREAM;
        copy_async_wait<0>();
        rotate_tile<D, STREAM>(k_tile, rope, key, s.T);
        __syncthreads(); // this tile is whole, and nobody reads the one before
        if (tile + 1 < tiles) {
            int other = (tile + 1) % 2 * STREAM * D;
            copy_tile<D, STREAM>(k_tiles + other, k, 3 * at.width, key + STREAM, s.T);
            copy_tile<D, STREAM>(v_tiles + other, v, 3 * at.width, key + STREAM, s.T);
            copy_async_commit();
        }
#pragma unroll 1
        for (int part = 0; part < STREAM; part += PART) {
            float scores[M][PART / 8][4], dp[M][PART / 8][4];
            const bf16 *k_part = k_tile + part * D;
            product<D>(scores, q_rows, k_part);
            product<D>(dp, dout_rows, v_tile + part * D);
            if (needs_mask(query, key + part, PART, s)) {
                mask_scores(scores, lane_query, key + part + lane_number() % 4 * 2, s);
            }
#pragma unroll
            for (int i = 0; i < M * PART / 2; i++) {
                int m = i / (PART / 2), n = i / 4 % (PART / 8), e = i % 4, r = 2 * m + e / 2;
                float p = approx_exp2(fmaf(scores[m][n][e], scale2, -lse2[r]));
                dp[m][n][e] = p * (dp[m][n][e] - deltas[r]);
            }
            accumulate<D>(dq, dp, k_part);
        }
    }
    rotate_back<D, M>(dq, rope, query, s.T, s.scale);
    store_rows<D>(dqkv + at.packed, 3 * at.width, query, s.T, dq, own_q);
}

/* What a thread fetches early of a tile of queries: lse and delta, so that exp2(score - lse) is 0
 * for queries behind T. */
template <int STREAM>
static __device__ __forceinline__ float fetch_stat(const float *lse, const float *delta, int first,
                                                   int T)
{
    int thread = static_cast<int>(threadIdx.x), query = first + thread % STREAM;
    if (thread < STREAM) {
        return query < T ? lse[query] * LOG2_E : INFINITY;
    }
    return query < T && thread < 2 * STREAM ? delta[query] : 0.0f;
}

/* P and dS, transposed: rows are keys. `stats`: lse and delta of the queries of column 0 on. */
template <int M, int N>
static __device__ __forceinline__ void scores_back(float (&scores)[M][N][4], float (&dp)[M][N][4],
                                                   const float *lse2, const float *delta,
                                                   float scale2)
{
#pragma unroll
    for (int n = 0; n < N; n++) {
        float2 l = *reinterpret_cast<const float2 *>(lse2 + 8 * n + lane_number() % 4 * 2);
        float2 d = *reinterpret_cast<const float2 *>(delta + 8 * n + lane_number() % 4 * 2);
#pragma unroll
        for (int i = 0; i < 4 * M; i++) {
            int m = i / 4, e = i % 4;
            float p = approx_exp2(fmaf(scores[m][n][e], scale2, e % 2 == 0 ? -l.x : -l.y));
            scores[m][n][e] = p;
            dp[m][n][e] = p * (dp[m][n][e] - (e % 2 == 0 ? d.x : d.y));
        }
    }
}

// Only causal attention has pairs to hide here: rows behind T are not stored.
template <int M, int N>
static __device__ __forceinline__ void mask_keys(float (&scores)[M][N][4], int key, int query)
{
#pragma unroll
    for (int i = 0; i < M * N * 4; i++) {
        int m = i / (4 * N), n = i / 4 % N, half = i % 4 / 2, e = i % 2;
        if (key + 16 * m + 8 * half > query + 8 * n + e) {
            scores[m][n][i % 4] = -INFINITY;
        }
    }
}

template <int D>
static __global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_dkv_mma(bf16 *dqkv, const float *delta, const bf16 *dout, const float *lse,
                      const bf16 *qkv, const float *rope, attention_shape s)
{
    typedef dkv_sizes<D> size;
    constexpr int M = size::M, ROWS = size::ROWS, STREAM = size::STREAM;
    GIDD_DYNAMIC_SHARED(bf16, shared);
    bf16 *k_tile = shared, *v_tile = k_tile + ROWS * D, *q_tiles = v_tile + ROWS * D,
         *dout_tiles = q_tiles + 2 * STREAM * D;
    auto stats = reinterpret_cast<float *>(dout_tiles + 2 * STREAM * D); // [2][2][STREAM]
    attention_place at = place_of_block(s);
    const bf16 *q = qkv + at.packed, *k = q + at.width, *v = k + at.width;
    int first = at.block * ROWS, row = warp_number() * 16 * M, key = first + row;
    bf16 *own_k = k_tile + row * D, *own_v = v_tile + row * D;
    int first_tile = s.causal ? first / STREAM : 0, tiles = (s.T + STREAM - 1) / STREAM;
    lse += at.head * s.T;
    delta += at.head * s.T;
    dout += at.plain;
    copy_tile<D, ROWS>(k_tile, k, 3 * at.width, first, s.T);
    copy_tile<D, ROWS>(v_tile, v, 3 * at.width, first, s.T);
    copy_tile<D, STREAM>(q_tiles + first_tile % 2 * STREAM * D, q, 3 * at.width,
                         first_tile * STREAM, s.T);
    copy_tile<D, STREAM>(dout_tiles + first_tile % 2 * STREAM * D, dout, at.width,
                         first_tile * STREAM, s.T);
    copy_async_commit();
    float stat = fetch_stat<STREAM>(lse, delta, first_tile * STREAM, s.T);
    float dk[M][D / 8][4], dv[M][D / 8][4], scale2 = s.scale * LOG2_E;
    clear(dk);
    clear(dv);
    copy_async_wait<0>();
    rotate_tile<D, ROWS>(k_tile, rope, first, s.T);
    for (int tile = first_tile; tile < tiles; tile++) {
        bf16 *q_tile = q_tiles + tile % 2 * STREAM * D,
             *dout_tile = dout_tiles + tile % 2 * STREAM * D;
        float *tile_stats = stats + tile % 2 * 2 * STREAM;
        int query = tile * STREAM;
        copy_async_wait<0>();
        rotate_tile<D, STREAM>(q_tile, rope, query, s.T);
        if (threadIdx.x < 2 * STREAM) {
            tile_stats[threadIdx.x] = stat;
        }
        __syncthreads(); // this tile is whole, and nobody reads the one before
        if (tile + 1 < tiles) {
            int other = (tile + 1) % 2 * STREAM * D;
            copy_tile<D, STREAM>(q_tiles + other, q, 3 * at.width, query + STREAM, s.T);
            copy_tile<D, STREAM>(dout_tiles + other, dout, at.width, query + STREAM, s.T);
            copy_async_commit();
            stat = fetch_stat<STREAM>(lse, delta, query + STREAM, s.T);
        }
        float scores[M][STREAM / 8][4], dp[M][STREAM / 8][4];
        product<D>(scores, own_k, q_tile);
        if (s.causal && key + 16 * M - 1 > query) {
            mask_keys(scores, key + lane_number() / 4, query + lane_number() % 4 * 2);
        }
        product<D>(dp, own_v, dout_tile);
        scores_back(scores, dp, tile_stats, tile_stats + STREAM, scale2);
        accumulate<D>(dv, scores, dout_tile);
        accumulate<D>(dk, dp, q_tile);
    }
    rotate_back<D, M>(dk, rope, key, s.T, s.scale);
    store_rows<D>(dqkv + at.packed + at.width, 3 * at.width, key, s.T, dk, own_k);
    store_rows<D>(dqkv + at.packed + 2 * at.width, 3 * at.width, key, s.T, dv, own_v);
}

#endif
