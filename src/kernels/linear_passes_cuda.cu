/* SPDX-License-Identifier: Apache-2.0
 *
 * What a matrix product cannot do by itself: GELU where no epilogue fits, its gradient, and column
 * sums (the gradient of a bias). The types are those of the call, not of the device.
 */
#include "kernels/launch.cuh"

enum {
    THREADS = 256,
    WARPS = THREADS / WARP,
    PACK = 8,
    SUM_ROWS = 64,    // fewest rows behind one partial of a column sum
    MOST_CHUNKS = 64, // most partials of a column
};

// ---- GELU ------------------------------------------------------------------------------------

static __device__ __forceinline__ float gelu_argument(float v)
{
    return 0.7978845608028654f * (v + 0.044715f * v * v * v);
}

// 1/2 v (1 + tanh u) = v / (1 + e^-2u)
static __device__ __forceinline__ float gelu(float v)
{
    return v / (1.0f + expf(-2.0f * gelu_argument(v)));
}

// With s = (1 + tanh u) / 2:  GELU' = s + v * 2 s (1 - s) * du/dv.
static __device__ __forceinline__ float gelu_slope(float v)
{
    float u = gelu_argument(v);
    float slope = 0.7978845608028654f * (1.0f + 3.0f * 0.044715f * v * v);
    float e = expf(-2.0f * fabsf(u)); // in (0, 1]: nothing overflows
    float major = 1.0f / (1.0f + e);  // the larger of s and 1 - s
    float minor = e * major;
    float bend = minor > 0.0f ? v * 2.0f * major * minor * slope : 0.0f; // v^3 may have overflown
    return (u < 0.0f ? minor : major) + bend;
}

// Thread i has elements 8i..; the count % 8 last ones, or all at odd addresses, one each.
static __device__ __forceinline__ int64_t thread_index()
{
    return static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
}

template <typename E>
static __global__ void __launch_bounds__(THREADS)
    gelu_kernel(E *y, const E *pre, int64_t packs, int64_t count)
{
    int64_t i = thread_index();
    if (i < packs) {
        float v[PACK];
        load8(v, pre + i * PACK);
#pragma unroll
        for (int k = 0; k < PACK; k++) {
            v[k] = gelu(v[k]);
        }
        store8(y + i * PACK, v);
        return;
    }
    int64_t at = packs * PACK + (i - packs);
    if (at < count) {
        y[at] = from_float<E>(gelu(to_float(pre[at])));
    }
}

template <typename E>
static __global__ void __launch_bounds__(THREADS)
    dgelu_kernel(E *dx, const float *product, const E *pre, int64_t packs, int64_t count)
{
    int64_t i = thread_index();
    if (i < packs) {
        float v[PACK], in[PACK];
        load8(v, product + i * PACK);
        load8(in, pre + i * PACK);
#pragma unroll
        for (int k = 0; k < PACK; k++) {
            v[k] *= gelu_slope(in[k]);
        }
        store8(dx + i * PACK, v);
        return;
    }
    int64_t at = packs * PACK + (i - packs);
    if (at < count) {
        dx[at] = from_float<E>(product[at] * gelu_slope(to_float(pre[at])));
    }
}

static unsigned blocks_of_packs(int64_t packs, int64_t count)
{
    return blocks_for(packs + (count - packs * PACK), THREADS);
}

template <typename E>
static gidd_status launch_gelu(gidd_device *device, void *y, const void *pre, int64_t count)
{
    int64_t packs = is_aligned(y, 16) && is_aligned(pre, 16) ? count / PACK : 0;
    return launch(device, "linear_fwd", gelu_kernel<E>, blocks_of_packs(packs, count), THREADS, 0,
                  static_cast<E *>(y), static_cast<const E *>(pre), packs, count);
}

template <typename E>
static gidd_status launch_dgelu(gidd_device *device, void *dx, const float *product,
                                const void *pre, int64_t count)
{
    bool aligned = is_aligned(dx, 16) && is_aligned(product, 16) && is_aligned(pre, 16);
    int64_t packs = aligned ? count / PACK : 0;
    return launch(device, "linear_bwd_data", dgelu_kernel<E>, blocks_of_packs(packs, count),
                  THREADS, 0, static_cast<E *>(dx), product, static_cast<const E *>(pre), packs,
                  count);
}

GIDD_LAUNCHER(gelu_pass)
(gidd_device *device, void *y, const void *pre, int64_t count, gidd_dtype dtype)
{
    return dtype == GIDD_BF16 ? launch_gelu<bf16>(device, y, pre, count)
                              : launch_gelu<float>(device, y, pre, count);
}

GIDD_LAUNCHER(dgelu_pass)
(gidd_device *device, void *dx, const float *product, const void *pre, int64_t count,
 gidd_dtype dtype)
{
    return dtype == GIDD_BF16 ? launch_dgelu<bf16>(device, dx, product, pre, count)
                              : launch_dgelu<float>(device, dx, product, pre, count);
}

// ---- column sums -----------------------------------------------------------------------------

static inline int64_t rows_of_chunk(int64_t M)
{
    int64_t rows = (M + MOST_CHUNKS - 1) / MOST_CHUNKS, fewest = SUM_ROWS;
    return rows > fewest ? rows : fewest;
}

static inline int64_t chunks_of(int64_t M)
{
    return (M + rows_of_chunk(M) - 1) / rows_of_chunk(M);
}

extern "C" size_t GIDD_DEVICE_NAME(column_sum_bytes)(int64_t M, int64_t N)
{
    return static_cast<size_t>(chunks_of(M) * N) * sizeof(float);
}

/* A block has 32 * COLUMNS columns of one chunk of rows. Warp w adds rows w, w + 8, ..., then the
 * warps' sums are added in order. */
template <typename E, int COLUMNS>
static __global__ void __launch_bounds__(THREADS)
    chunk_sum_kernel(float *partials, const E *dy, int64_t M, int64_t N, int64_t chunk_rows)
{
    __shared__ float shares[WARPS][WARP * COLUMNS];
    int64_t column = (static_cast<int64_t>(blockIdx.x) * WARP + lane_number()) * COLUMNS;
    int64_t first = blockIdx.y * chunk_rows;
    int64_t end = first + chunk_rows < M ? first + chunk_rows : M;
    float sum[COLUMNS] = {};
#pragma unroll 4
    for (int64_t row = first + warp_number(); row < end && column < N; row += WARPS) {
        if constexpr (COLUMNS == PACK) {
            float v[PACK];
            load8(v, dy + row * N + column);
#pragma unroll
            for (int k = 0; k < COLUMNS; k++) {
                sum[k] += v[k];
            }
        } else {
            sum[0] += to_float(dy[row * N + column]);
        }
    }
#pragma unroll
    for (int k = 0; k < COLUMNS; k++) {
        shares[warp_number()][lane_number() * COLUMNS + k] = sum[k];
    }
    __syncthreads();
    int within = static_cast<int>(threadIdx.x);
    int64_t target = static_cast<int64_t>(blockIdx.x) * WARP * COLUMNS + within;
    if (within < WARP * COLUMNS && target < N) {
        float total = shares[0][within];
#pragma unroll
        for (int w = 1; w < WARPS; w++) {
            total += shares[w][within];
        }
        partials[static_cast<int64_t>(blockIdx.y) * N + target] = total;
    }
}

static __global__ void __launch_bounds__(THREADS)
    add_chunks_kernel(float *dbias, const float *partials, int64_t N, int64_t chunks,
                      bool accumulate)
{
    int64_t column = thread_index();
    if (column >= N) {
        return;
    }
    float sum = 0.0f;
#pragma unroll 8
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        sum += partials[chunk * N + column];
    }
    dbias[column] = accumulate ? dbias[column] + sum : sum;
}

template <typename E>
static gidd_status launch_chunk_sums(gidd_device *device, const gidd_linear_bwd_weight_args *args,
                                     float *partials)
{
    const E *dy = static_cast<const E *>(args->dy);
    int64_t rows = rows_of_chunk(args->M);
    unsigned chunks = static_cast<unsigned>(chunks_of(args->M));
    if (args->N % PACK == 0 && is_aligned(dy, 16)) {
        return launch(device, "linear_bwd_weight", chunk_sum_kernel<E, PACK>,
                      dim3(blocks_for(args->N, WARP * PACK), chunks), THREADS, 0, partials, dy,
                      args->M, args->N, rows);
    }
    return launch(device, "linear_bwd_weight", chunk_sum_kernel<E, 1>,
                  dim3(blocks_for(args->N, WARP), chunks), THREADS, 0, partials, dy, args->M,
                  args->N, rows);
}

GIDD_LAUNCHER(column_sum)(gidd_device *device, const gidd_linear_bwd_weight_args *args)
{
    float *partials = static_cast<float *>(device->workspace);
    GIDD_TRY(workspace_check(device, GIDD_DEVICE_NAME(column_sum_bytes)(args->M, args->N),
                             "linear_bwd_weight"));
    if (args->M > 0) {
        GIDD_TRY(args->dtype == GIDD_BF16 ? launch_chunk_sums<bf16>(device, args, partials)
                                          : launch_chunk_sums<float>(device, args, partials));
    }
    return launch(device, "linear_bwd_weight", add_chunks_kernel, blocks_for(args->N, THREADS),
                  THREADS, 0, args->dbias, partials, args->N, chunks_of(args->M),
                  args->accumulate != 0);
}

GIDD_WORKSPACE(linear_passes)(const gidd_device_limits *limits)
{
    int64_t rows =
        limits->B * limits->T > limits->head_rows ? limits->B * limits->T : limits->head_rows;
    int64_t wide = 4 * limits->D > limits->Vr ? 4 * limits->D : limits->Vr;
    int64_t mods = (6 * limits->L + 2) * limits->D; // of B rows
    size_t bytes = GIDD_DEVICE_NAME(column_sum_bytes)(rows, wide);
    size_t bytes_of_mods = GIDD_DEVICE_NAME(column_sum_bytes)(limits->B, mods);
    return bytes > bytes_of_mods ? bytes : bytes_of_mods;
}
