/* SPDX-License-Identifier: Apache-2.0
 *
 * Residual addition and root-mean-square norm, one warp a row.
 *
 * Backward reads the rows twice, the second time from cache, which leaves the registers to the column
 * sums.
 */
#include "kernels/norm_rows.cuh"

enum {
    MOST_PACKS = 16,
    MOST_COLUMNS = MOST_PACKS * WARP * PACK,
};

#define EPSILON 1e-6f

// ---- forward ---------------------------------------------------------------------------------

// x' of this lane's columns, as it is stored; 0 behind the row's end.
template <typename E, int PACKS>
static __device__ __forceinline__ void residual_row(float (&x)[PACKS][PACK],
                                                    const gidd_rms_norm_fwd_args &args, int64_t row)
{
    int64_t first = row * args.cols;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        int column = pack_column(p);
#pragma unroll
        for (int k = 0; k < PACK; k++) {
            x[p][k] = 0.0f;
        }
        if (column < args.cols) {
            load8(x[p], static_cast<const E *>(args.x) + first + column);
        }
        if (column < args.cols && args.y != NULL) {
            float branch[PACK];
            load8(branch, static_cast<const E *>(args.y) + first + column);
#pragma unroll
            for (int k = 0; k < PACK; k++) {
                x[p][k] = round_to<E>(x[p][k] + branch[k]);
            }
            store8(static_cast<E *>(args.x_out) + first + column, x[p]);
        }
    }
}

template <typename E, int PACKS>
static __global__ void __launch_bounds__(BLOCK_WARPS *WARP) fwd_kernel(gidd_rms_norm_fwd_args args)
{
    int64_t row = static_cast<int64_t>(blockIdx.x) * BLOCK_WARPS + warp_number();
    if (row >= args.rows) {
        return;
    }
    float x[PACKS][PACK];
    float squares = 0.0f;
    residual_row<E, PACKS>(x, args, row);
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
#pragma unroll
        for (int k = 0; k < PACK; k++) {
            squares += x[p][k] * x[p][k];
        }
    }
    float rstd = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(args.cols) + EPSILON);
    if (lane_number() == 0) {
        args.rstd[row] = rstd;
    }
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        int column = pack_column(p);
        if (column < args.cols) {
            float gain[PACK], out[PACK];
            load8_unaligned(gain, args.gain + column);
#pragma unroll
            for (int k = 0; k < PACK; k++) {
                out[k] = x[p][k] * rstd * gain[k];
            }
            store8(static_cast<E *>(args.u) + row * args.cols + column, out);
        }
    }
}

// ---- backward, first stage -------------------------------------------------------------------

static inline __host__ __device__ int64_t chunks_of(int64_t rows)
{
    return (rows + CHUNK_ROWS - 1) / CHUNK_ROWS;
}

GIDD_WORKSPACE(rms_norm)(const gidd_device_limits *limits)
{
    return static_cast<size_t>(chunks_of(limits->B * limits->T) * limits->D) * sizeof(float);
}

// s = du gain and xhat of eight columns.
template <typename E>
static __device__ __forceinline__ void load_slopes(float (&du)[PACK], float (&s)[PACK], float (&xhat)[PACK],
                                                   const gidd_rms_norm_bwd_args &args, int64_t at,
                                                   int column, float rstd)
{
    float gain[PACK];
    load8(du, static_cast<const E *>(args.du) + at);
    load8(xhat, static_cast<const E *>(args.x_out) + at);
    load8_unaligned(gain, args.gain + column);
#pragma unroll
    for (int k = 0; k < PACK; k++) {
        xhat[k] *= rstd;
        s[k] = du[k] * gain[k];
    }
}

template <typename E, int PACKS>
static __device__ __forceinline__ void row_back(float (&sums)[PACKS][PACK],
                                                const gidd_rms_norm_bwd_args &args, int64_t row)
{
    int64_t first = row * args.cols;
    float rstd = args.rstd[row], along = 0.0f, du[PACK], s[PACK], xhat[PACK];
    for (int p = 0; p < PACKS; p++) {
        int column = pack_column(p);
        if (column < args.cols) {
            load_slopes<E>(du, s, xhat, args, first + column, column, rstd);
#pragma unroll
            for (int k = 0; k < PACK; k++) {
                along += s[k] * xhat[k];
            }
        }
    }
    along = warp_sum(along) / static_cast<float>(args.cols);
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        int column = pack_column(p);
        if (column >= args.cols) {
            continue;
        }
        float dx[PACK] = {};
        load_slopes<E>(du, s, xhat, args, first + column, column, rstd);
        if (args.dx_out != NULL) {
            load8(dx, static_cast<const E *>(args.dx_out) + first + column);
        }
#pragma unroll
        for (int k = 0; k < PACK; k++) {
            dx[k] += rstd * (s[k] - xhat[k] * along);
            sums[p][k] += du[k] * xhat[k];
        }
        store8(static_cast<E *>(args.dx) + first + column, dx);
    }
}

template <typename E, int PACKS>
static __global__ void __launch_bounds__(BLOCK_WARPS *WARP)
    bwd_kernel(gidd_rms_norm_bwd_args args, float *partials)
{
    __shared__ __align__(16) float total[PACKS * WARP * PACK];
    int64_t first = static_cast<int64_t>(blockIdx.x) * CHUNK_ROWS;
    int64_t end = args.rows < first + CHUNK_ROWS ? args.rows : first + CHUNK_ROWS;
    float sums[PACKS][PACK];
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
#pragma unroll
        for (int k = 0; k < PACK; k++) {
            sums[p][k] = 0.0f;
        }
    }
    for (int64_t row = first + warp_number(); row < end; row += BLOCK_WARPS) {
        row_back<E, PACKS>(sums, args, row);
    }
    add_shares(partials + blockIdx.x * args.cols, total, sums, args.cols);
}

// ---- backward, second stage: one column a lane, the partials spread over the warps ------------

static __global__ void __launch_bounds__(SUM_WARPS *WARP)
    sum_kernel(gidd_rms_norm_bwd_args args, const float *partials)
{
    __shared__ float shares[SUM_WARPS][SUM_COLUMNS];
    int64_t column = sum_column();
    int64_t chunks = chunks_of(args.rows);
    float sum = 0.0f;
    if (column < args.cols) {
        for (int64_t chunk = warp_number(); chunk < chunks; chunk += SUM_WARPS) {
            sum += partials[chunk * args.cols + column];
        }
    }
    write_column(args.dgain, args.cols, sum, shares, args.accumulate != 0);
}

// ---- launchers -------------------------------------------------------------------------------

static gidd_status check(const char *slot, int64_t rows, int64_t cols, bool has_buffers, bool aligned)
{
    if (rows < 1 || cols < 1 || !has_buffers) {
        return gidd_fail(GIDD_ERR_ARG, "%s: %lld rows of %lld, or a missing buffer", slot,
                         static_cast<long long>(rows), static_cast<long long>(cols));
    }
    if (cols % PACK != 0 || cols > MOST_COLUMNS || !aligned) {
        return refuse_rows(slot, cols, MOST_COLUMNS);
    }
    return GIDD_OK;
}

template <typename E, int PACKS>
static gidd_status launch_rows(gidd_device *device, const gidd_rms_norm_fwd_args *args)
{
    return launch(device, "rms_norm_fwd", fwd_kernel<E, PACKS>, blocks_for(args->rows, BLOCK_WARPS),
                  BLOCK_WARPS * WARP, 0, *args);
}

template <typename E, int PACKS>
static gidd_status launch_rows(gidd_device *device, const gidd_rms_norm_bwd_args *args)
{
    return launch(device, "rms_norm_bwd", bwd_kernel<E, PACKS>, blocks_for(args->rows, CHUNK_ROWS),
                  BLOCK_WARPS * WARP, 0, *args, device->workspace);
}

// `Args`: of the forward or the backward.
template <typename E, typename Args>
static gidd_status choose(gidd_device *device, const Args *args)
{
    int64_t packs = packs_of_warp(args->cols);
    return packs <= 1   ? launch_rows<E, 1>(device, args)
           : packs <= 2 ? launch_rows<E, 2>(device, args)
           : packs <= 3 ? launch_rows<E, 3>(device, args)
           : packs <= 4 ? launch_rows<E, 4>(device, args)
           : packs <= 8 ? launch_rows<E, 8>(device, args)
                        : launch_rows<E, MOST_PACKS>(device, args);
}

GIDD_LAUNCHER(rms_norm_fwd)(gidd_device *device, const gidd_rms_norm_fwd_args *args)
{
    GIDD_TRY(check("rms_norm_fwd", args->rows, args->cols,
                   args->u != NULL && args->rstd != NULL && args->x != NULL && args->gain != NULL &&
                       (args->y == NULL) == (args->x_out == NULL),
                   is_aligned(args->x, 16) && is_aligned(args->y, 16) && is_aligned(args->u, 16) &&
                       is_aligned(args->x_out, 16)));
    return device->dtype == GIDD_BF16 ? choose<bf16>(device, args) : choose<float>(device, args);
}

GIDD_LAUNCHER(rms_norm_bwd)(gidd_device *device, const gidd_rms_norm_bwd_args *args)
{
    GIDD_TRY(check("rms_norm_bwd", args->rows, args->cols,
                   args->dx != NULL && args->dgain != NULL && args->du != NULL && args->x_out != NULL &&
                       args->rstd != NULL && args->gain != NULL,
                   is_aligned(args->dx, 16) && is_aligned(args->du, 16) &&
                       is_aligned(args->dx_out, 16) && is_aligned(args->x_out, 16)));
    size_t bytes = static_cast<size_t>(chunks_of(args->rows) * args->cols) * sizeof(float);
    GIDD_TRY(workspace_check(device, bytes, "rms_norm_bwd"));
    GIDD_TRY(device->dtype == GIDD_BF16 ? choose<bf16>(device, args) : choose<float>(device, args));
    return launch(device, "rms_norm_bwd", sum_kernel, blocks_for(args->cols, SUM_COLUMNS),
                  SUM_WARPS * WARP, 0, *args, static_cast<const float *>(device->workspace));
}
