/* SPDX-License-Identifier: Apache-2.0
 *
 * Residual + gate + LayerNorm + modulation, one pass each way. Narrow rows have one warp each and no
 * barrier; wider ones (GROUP > 1) all warps of the block.
 *
 * Backward: the rows behind one partial are of one sequence.
 */
#include "kernels/norm_rows.cuh"

enum { PARTIALS = 3 }; // sums of du, of du * xhat, of g * y

#define EPSILON 1e-5f

// ---- rows ------------------------------------------------------------------------------------

/* Sum over the threads of a row. `scratch`: GROUP floats of shared memory of this call alone;
 * unused with one warp. */
template <int GROUP> static __device__ __forceinline__ float row_sum(float v, float *scratch)
{
    if (GROUP == 1) {
        return warp_sum(v);
    }
    return block_sum<GROUP>(v, scratch);
}

// Index of row `row` in the ascending list, or -1.
static __device__ __forceinline__ int64_t find_row(const int32_t *list, int64_t count, int64_t row)
{
    int64_t low = 0, high = count;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (list[middle] < row) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count && list[low] == row ? low : -1;
}

// ---- forward ---------------------------------------------------------------------------------

// x' of this thread's columns, as it is stored.
template <typename E, int PACKS, int GROUP>
static __device__ __forceinline__ void residual_row(float (&x)[PACKS][PACK],
                                                    const gidd_norm_mod_fwd_args &args, int64_t row)
{
    const E *in = static_cast<const E *>(args.x) + row * args.cols;
    const E *y = static_cast<const E *>(args.y) + row * args.cols;
    E *out = static_cast<E *>(args.x_out) + row * args.cols;
    const float *gate = args.mods + row / args.T * args.stride + args.at.gate;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        int column = pack_column<GROUP>(p);
        if (column < args.cols) {
            load8(x[p], in + column);
            if (args.y != NULL) {
                float branch[PACK], gates[PACK];
                load8(branch, y + column);
                load8_unaligned(gates, gate + column);
#pragma unroll
                for (int k = 0; k < PACK; k++) {
                    x[p][k] = round_to<E>(x[p][k] + gates[k] * branch[k]);
                }
            }
            if (args.x_out != NULL && (args.y != NULL || args.x_out != args.x)) {
                store8(out + column, x[p]);
            }
        } else {
#pragma unroll
            for (int k = 0; k < PACK; k++) {
                x[p][k] = 0.0f;
            }
        }
    }
}

template <typename E, int PACKS, int GROUP>
static __device__ __forceinline__ void modulate_row(const float (&x)[PACKS][PACK],
                                                    const gidd_norm_mod_fwd_args &args, int64_t row,
                                                    int64_t u_row, float mean, float rstd)
{
    const float *mods = args.mods + row / args.T * args.stride;
    E *u = static_cast<E *>(args.u) + u_row * args.cols;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        int column = pack_column<GROUP>(p);
        if (column < args.cols) {
            float gain[PACK], scale[PACK], shift[PACK], out[PACK];
            load8_unaligned(gain, args.gain + column);
            load8_unaligned(scale, mods + args.at.scale + column);
            load8_unaligned(shift, mods + args.at.shift + column);
#pragma unroll
            for (int k = 0; k < PACK; k++) {
                out[k] = (x[p][k] - mean) * rstd * gain[k] * (1.0f + scale[k]) + shift[k];
            }
            store8(u + column, out);
        }
    }
}

template <typename E, int PACKS, int GROUP>
static __global__ void __launch_bounds__(BLOCK_WARPS *WARP) fwd_kernel(gidd_norm_mod_fwd_args args)
{
    __shared__ float scratch[2][BLOCK_WARPS];
    int64_t row = blockIdx.x;
    if (GROUP == 1) {
        row = row * BLOCK_WARPS + warp_number();
        if (row >= args.rows) {
            return;
        }
    }
    float x[PACKS][PACK];
    float sum = 0.0f, squares = 0.0f;
    residual_row<E, PACKS, GROUP>(x, args, row);
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
#pragma unroll
        for (int k = 0; k < PACK; k++) {
            sum += x[p][k];
        }
    }
    float mean = row_sum<GROUP>(sum, scratch[0]) / static_cast<float>(args.cols);
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
#pragma unroll
        for (int k = 0; k < PACK; k++) {
            float centred = pack_column<GROUP>(p) < args.cols ? x[p][k] - mean : 0.0f;
            squares += centred * centred;
        }
    }
    float variance = row_sum<GROUP>(squares, scratch[1]) / static_cast<float>(args.cols);
    float rstd = 1.0f / sqrtf(variance + EPSILON);
    if (lane_number() == 0 && warp_of_group<GROUP>() == 0) {
        args.mean[row] = mean;
        args.rstd[row] = rstd;
    }
    int64_t u_row = args.row_list == NULL ? row : find_row(args.row_list, args.u_rows, row);
    if (u_row >= 0) {
        modulate_row<E, PACKS, GROUP>(x, args, row, u_row, mean, rstd);
    }
}

static gidd_status check_sizes(const char *slot, int64_t rows, int64_t T, int64_t cols,
                               bool has_buffers)
{
    if (rows < 1 || T < 1 || rows % T != 0 || cols < 1 || !has_buffers) {
        return gidd_fail(
            GIDD_ERR_ARG, "%s: %lld rows of %lld, sequences of %lld, or a missing buffer", slot,
            static_cast<long long>(rows), static_cast<long long>(cols), static_cast<long long>(T));
    }
    return GIDD_OK;
}

static bool rows_are_aligned(const void *a, const void *b, const void *c, const void *d)
{
    return is_aligned(a, 16) && is_aligned(b, 16) && is_aligned(c, 16) && is_aligned(d, 16);
}

template <typename E, int PACKS, int GROUP>
static gidd_status launch_fwd(gidd_device *device, const gidd_norm_mod_fwd_args *args)
{
    return launch(device, "norm_mod_fwd", fwd_kernel<E, PACKS, GROUP>,
                  blocks_for(args->rows, GROUP == 1 ? BLOCK_WARPS : 1), BLOCK_WARPS * WARP, 0,
                  *args);
}

enum { MOST_COLUMNS = 8 * BLOCK_WARPS * WARP * PACK };

template <typename E>
static gidd_status choose_fwd(gidd_device *device, const gidd_norm_mod_fwd_args *args)
{
    int64_t packs = packs_of_warp(args->cols);
    return packs <= 1    ? launch_fwd<E, 1, 1>(device, args)
           : packs <= 2  ? launch_fwd<E, 2, 1>(device, args)
           : packs <= 3  ? launch_fwd<E, 3, 1>(device, args)
           : packs <= 4  ? launch_fwd<E, 4, 1>(device, args)
           : packs <= 8  ? launch_fwd<E, 2, BLOCK_WARPS>(device, args)
           : packs <= 16 ? launch_fwd<E, 4, BLOCK_WARPS>(device, args)
                         : launch_fwd<E, 8, BLOCK_WARPS>(device, args);
}

GIDD_LAUNCHER(norm_mod_fwd)(gidd_device *device, const gidd_norm_mod_fwd_args *args)
{
    bool has_buffers = args->x != NULL && args->mean != NULL && args->rstd != NULL &&
                       args->gain != NULL && args->mods != NULL &&
                       (args->u != NULL || args->u_rows == 0) &&
                       (args->y == NULL || args->x_out != NULL);
    GIDD_TRY(check_sizes("norm_mod_fwd", args->rows, args->T, args->cols, has_buffers));
    if (args->cols % PACK != 0 || args->cols > MOST_COLUMNS ||
        !rows_are_aligned(args->x, args->y, args->u, args->x_out)) {
        return refuse_rows("norm_mod_fwd", args->cols, MOST_COLUMNS);
    }
    return device->dtype == GIDD_BF16 ? choose_fwd<bf16>(device, args)
                                      : choose_fwd<float>(device, args);
}

// ---- backward, first stage -------------------------------------------------------------------

static inline __host__ __device__ int64_t chunks_of_sequence(int64_t T)
{
    return (T + CHUNK_ROWS - 1) / CHUNK_ROWS;
}

GIDD_WORKSPACE(norm_mod)(const gidd_device_limits *limits)
{
    int64_t partials = limits->B * chunks_of_sequence(limits->T) * PARTIALS;
    return static_cast<size_t>(partials * limits->D) * sizeof(float);
}

// Column sums of one thread.
template <int PACKS> struct column_sums {
    float du[PACKS][PACK], du_xhat[PACKS][PACK], gy[PACKS][PACK];
};

// What u's gradient gives x': g += rstd (dxhat - mean(dxhat) - xhat mean(dxhat xhat)).
template <typename E, int PACKS, int GROUP>
static __device__ __forceinline__ void norm_back(float (&g)[PACKS][PACK], column_sums<PACKS> &sums,
                                                 const gidd_norm_mod_bwd_args &args, int64_t row,
                                                 int64_t u_row, float (*scratch)[BLOCK_WARPS])
{
    const E *du_row = static_cast<const E *>(args.du) + u_row * args.cols;
    const E *x_row = static_cast<const E *>(args.x_out) + row * args.cols;
    const float *scales = args.mods + row / args.T * args.stride + args.at.scale;
    float mean = args.mean[row], rstd = args.rstd[row];
    float xhat[PACKS][PACK], dxhat[PACKS][PACK];
    float along_one = 0.0f, along_xhat = 0.0f;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        int column = pack_column<GROUP>(p);
        if (column < args.cols) {
            float du[PACK], gain[PACK], scale[PACK];
            load8(du, du_row + column);
            load8(xhat[p], x_row + column);
            load8_unaligned(gain, args.gain + column);
            load8_unaligned(scale, scales + column);
#pragma unroll
            for (int k = 0; k < PACK; k++) {
                xhat[p][k] = (xhat[p][k] - mean) * rstd;
                dxhat[p][k] = du[k] * (1.0f + scale[k]) * gain[k];
                along_one += dxhat[p][k];
                along_xhat += dxhat[p][k] * xhat[p][k];
                sums.du[p][k] += du[k];
                sums.du_xhat[p][k] += du[k] * xhat[p][k];
            }
        } else {
#pragma unroll
            for (int k = 0; k < PACK; k++) {
                xhat[p][k] = dxhat[p][k] = 0.0f;
            }
        }
    }
    along_one = row_sum<GROUP>(along_one, scratch[0]) / static_cast<float>(args.cols);
    along_xhat = row_sum<GROUP>(along_xhat, scratch[1]) / static_cast<float>(args.cols);
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
#pragma unroll
        for (int k = 0; k < PACK; k++) {
            g[p][k] += rstd * (dxhat[p][k] - along_one - xhat[p][k] * along_xhat);
        }
    }
}

// Writes dx and dy of this thread's columns.
template <typename E, int PACKS, int GROUP>
static __device__ __forceinline__ void gate_back(const float (&g)[PACKS][PACK],
                                                 column_sums<PACKS> &sums,
                                                 const gidd_norm_mod_bwd_args &args, int64_t row)
{
    int64_t first = row * args.cols;
    const float *gates = args.mods + row / args.T * args.stride + args.at.gate;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        int column = pack_column<GROUP>(p);
        if (column >= args.cols) {
            continue;
        }
        if (args.y != NULL) {
            float y[PACK], gate[PACK], dy[PACK];
            load8(y, static_cast<const E *>(args.y) + first + column);
            load8_unaligned(gate, gates + column);
#pragma unroll
            for (int k = 0; k < PACK; k++) {
                sums.gy[p][k] += g[p][k] * y[k];
                dy[k] = gate[k] * g[p][k];
            }
            store8(static_cast<E *>(args.dy) + first + column, dy);
        }
        store8(static_cast<E *>(args.dx) + first + column, g[p]);
    }
}

template <typename E, int PACKS, int GROUP>
static __device__ __forceinline__ void row_back(column_sums<PACKS> &sums,
                                                const gidd_norm_mod_bwd_args &args, int64_t row,
                                                float (*scratch)[BLOCK_WARPS])
{
    const E *from_above = static_cast<const E *>(args.dx_out) + row * args.cols;
    float g[PACKS][PACK];
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        int column = pack_column<GROUP>(p);
        if (args.dx_out != NULL && column < args.cols) {
            load8(g[p], from_above + column);
        } else {
#pragma unroll
            for (int k = 0; k < PACK; k++) {
                g[p][k] = 0.0f;
            }
        }
    }
    int64_t u_row = args.row_list == NULL ? row : find_row(args.row_list, args.u_rows, row);
    if (u_row >= 0) {
        norm_back<E, PACKS, GROUP>(g, sums, args, row, u_row, scratch);
    }
    gate_back<E, PACKS, GROUP>(g, sums, args, row);
}

// The block's partial of one kind. `total`: cols floats of shared memory, where GROUP is 1.
template <int PACKS, int GROUP>
static __device__ __forceinline__ void write_partial(float *partial, float *total,
                                                     const float (&sums)[PACKS][PACK], int64_t cols)
{
    if constexpr (GROUP == 1) {
        add_shares(partial, total, sums, cols);
    } else {
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            if (pack_column<GROUP>(p) < cols) {
                store8(partial + pack_column<GROUP>(p), sums[p]);
            }
        }
    }
}

template <typename E, int PACKS, int GROUP>
static __global__ void __launch_bounds__(BLOCK_WARPS *WARP)
    bwd_kernel(gidd_norm_mod_bwd_args args, float *partials)
{
    __shared__ float scratch[2][BLOCK_WARPS];
    __shared__ __align__(16) float total[GROUP == 1 ? PACKS * WARP * PACK : 4];
    int64_t chunks = chunks_of_sequence(args.T);
    int64_t sequence = blockIdx.x / chunks, chunk = blockIdx.x % chunks;
    int64_t first = sequence * args.T + chunk * CHUNK_ROWS;
    int64_t end =
        (sequence + 1) * args.T < first + CHUNK_ROWS ? (sequence + 1) * args.T : first + CHUNK_ROWS;
    column_sums<PACKS> sums;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
#pragma unroll
        for (int k = 0; k < PACK; k++) {
            sums.du[p][k] = sums.du_xhat[p][k] = sums.gy[p][k] = 0.0f;
        }
    }
    int step = GROUP == 1 ? BLOCK_WARPS : 1;
    for (int64_t row = first + (GROUP == 1 ? warp_number() : 0); row < end; row += step) {
        row_back<E, PACKS, GROUP>(sums, args, row, scratch);
    }
    float *partial = partials + static_cast<int64_t>(blockIdx.x) * PARTIALS * args.cols;
    write_partial<PACKS, GROUP>(partial, total, sums.du, args.cols);
    write_partial<PACKS, GROUP>(partial + args.cols, total, sums.du_xhat, args.cols);
    if (args.y != NULL) {
        write_partial<PACKS, GROUP>(partial + 2 * args.cols, total, sums.gy, args.cols);
    }
}

// ---- backward, second stage ------------------------------------------------------------------

/* A block has SUM_COLUMNS columns of all sequences; warp w sequences w, w + SUM_WARPS, ... Partials
 * of a sequence are added in order, the warps' shares of dgain in order at the end. */
static __global__ void __launch_bounds__(SUM_WARPS *WARP)
    sum_kernel(gidd_norm_mod_bwd_args args, const float *partials)
{
    __shared__ float shares[SUM_WARPS][SUM_COLUMNS];
    int64_t cols = args.cols, chunks = chunks_of_sequence(args.T);
    int64_t j = sum_column();
    float dgain = 0.0f;
    for (int64_t b = warp_number(); b < args.rows / args.T && j < cols; b += SUM_WARPS) {
        const float *partial = partials + b * chunks * PARTIALS * cols + j;
        float du = 0.0f, du_xhat = 0.0f, gy = 0.0f;
#pragma unroll 4
        for (int64_t chunk = 0; chunk < chunks; chunk++, partial += PARTIALS * cols) {
            du += partial[0];
            du_xhat += partial[cols];
            if (args.y != NULL) {
                gy += partial[2 * cols];
            }
        }
        float *dmods = args.dmods + b * args.stride;
        dmods[args.at.shift + j] = du;
        dmods[args.at.scale + j] = du_xhat * args.gain[j];
        dgain += du_xhat * (1.0f + args.mods[b * args.stride + args.at.scale + j]);
        if (args.y != NULL) {
            dmods[args.at.gate + j] = gy;
        }
    }
    write_column(args.dgain, cols, dgain, shares, args.accumulate != 0);
}

template <typename E, int PACKS, int GROUP>
static gidd_status launch_bwd(gidd_device *device, const gidd_norm_mod_bwd_args *args)
{
    int64_t blocks = args->rows / args->T * chunks_of_sequence(args->T);
    return launch(device, "norm_mod_bwd", bwd_kernel<E, PACKS, GROUP>,
                  static_cast<unsigned>(blocks), BLOCK_WARPS * WARP, 0, *args, device->workspace);
}

template <typename E>
static gidd_status choose_bwd(gidd_device *device, const gidd_norm_mod_bwd_args *args)
{
    int64_t packs = packs_of_warp(args->cols);
    return packs <= 1   ? launch_bwd<E, 1, 1>(device, args)
           : packs <= 2 ? launch_bwd<E, 2, 1>(device, args)
           : packs <= 3 ? launch_bwd<E, 3, 1>(device, args)
           : packs <= 4 ? launch_bwd<E, 1, BLOCK_WARPS>(device, args)
           : packs <= 8 ? launch_bwd<E, 2, BLOCK_WARPS>(device, args)
                        : launch_bwd<E, 4, BLOCK_WARPS>(device, args);
}

enum { MOST_COLUMNS_BACK = 4 * BLOCK_WARPS * WARP * PACK };

GIDD_LAUNCHER(norm_mod_bwd)(gidd_device *device, const gidd_norm_mod_bwd_args *args)
{
    int64_t cols = args->cols;
    bool has_buffers = args->dx != NULL && args->dgain != NULL && args->dmods != NULL &&
                       (args->du != NULL || args->u_rows == 0) && args->x_out != NULL &&
                       args->mean != NULL && args->rstd != NULL && args->gain != NULL &&
                       args->mods != NULL && (args->y == NULL || args->dy != NULL);
    GIDD_TRY(check_sizes("norm_mod_bwd", args->rows, args->T, cols, has_buffers));
    if (cols % PACK != 0 || cols > MOST_COLUMNS_BACK ||
        !rows_are_aligned(args->dx, args->dy, args->du, args->dx_out) ||
        !rows_are_aligned(args->x_out, args->y, NULL, NULL)) {
        return refuse_rows("norm_mod_bwd", cols, MOST_COLUMNS_BACK);
    }
    int64_t B = args->rows / args->T;
    gidd_device_limits limits = {};
    limits.B = B, limits.T = args->T, limits.D = cols;
    GIDD_TRY(
        workspace_check(device, GIDD_DEVICE_NAME(norm_mod_workspace)(&limits), "norm_mod_bwd"));
    GIDD_TRY(device->dtype == GIDD_BF16 ? choose_bwd<bf16>(device, args)
                                        : choose_bwd<float>(device, args));
    return launch(device, "norm_mod_bwd", sum_kernel, blocks_for(cols, SUM_COLUMNS),
                  SUM_WARPS * WARP, 0, *args, device->workspace);
}
