/* SPDX-License-Identifier: Apache-2.0
 *
 * What the norms (norm_mod, rms_norm) have in common: a row lies in the registers of its warps,
 * packs of eight neighbouring columns a lane, and gradients of the parameters are column sums.
 *
 * Those are added in one fixed order, in two stages. A block of the first keeps sums over
 * CHUNK_ROWS rows in registers; its warps add theirs in turns and write one partial, [cols] floats.
 * A block of the second has SUM_COLUMNS columns of all partials, one a lane, and spreads them over
 * SUM_WARPS warps.
 */
#ifndef GIDD_KERNELS_NORM_ROWS_CUH
#define GIDD_KERNELS_NORM_ROWS_CUH

#include "kernels/launch.cuh"

enum {
    PACK = 8, // elements of one access
    BLOCK_WARPS = 4,
    CHUNK_ROWS = 32,  // rows behind one partial
    SUM_COLUMNS = 32, // columns of a block of the second stage
    SUM_WARPS = 16,
};

// ---- rows in registers -----------------------------------------------------------------------

/* GROUP: warps that have a row together, 1 or all of the block. */
template <int GROUP = 1> static __device__ __forceinline__ int warp_of_group()
{
    return GROUP == 1 ? 0 : warp_number();
}

/* First column of this thread's pack p. */
template <int GROUP = 1> static __device__ __forceinline__ int pack_column(int p)
{
    return ((p * GROUP + warp_of_group<GROUP>()) * WARP + lane_number()) * PACK;
}

/* Packs a lane where one warp has the row. */
static inline int64_t packs_of_warp(int64_t cols)
{
    return (cols + WARP * PACK - 1) / (WARP * PACK);
}

/* What a launcher says of rows that these kernels cannot hold. */
static inline gidd_status refuse_rows(const char *slot, int64_t cols, int64_t most)
{
    return gidd_fail(GIDD_ERR_ARG,
                     "%s: rows of %lld: a multiple of 8 up to %lld, at 16-byte addresses", slot,
                     static_cast<long long>(cols), static_cast<long long>(most));
}

// ---- column sums, first stage ----------------------------------------------------------------

// Warp w's turn: adds its sums to the total of the warps before it; the last writes the partial.
template <int PACKS>
static __device__ __forceinline__ void add_share(float *partial, float *total,
                                                 const float (&sums)[PACKS][PACK], int64_t cols)
{
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        int column = pack_column(p);
        if (column < cols) {
            float sum[PACK] = {};
            if (warp_number() > 0) {
                load8(sum, total + column);
            }
#pragma unroll
            for (int k = 0; k < PACK; k++) {
                sum[k] += sums[p][k];
            }
            store8(warp_number() + 1 < BLOCK_WARPS ? total + column : partial + column, sum);
        }
    }
}

/* The block's partial where each warp had rows of its own: they take turns in order, by way of
 * `total`, cols floats of shared memory, 16-byte aligned. */
template <int PACKS>
static __device__ __forceinline__ void add_shares(float *partial, float *total,
                                                  const float (&sums)[PACKS][PACK], int64_t cols)
{
    for (int w = 0; w < BLOCK_WARPS; w++) {
        if (w == warp_number()) {
            add_share(partial, total, sums, cols);
        }
        __syncthreads();
    }
}

// ---- column sums, second stage ---------------------------------------------------------------

/* The column of this lane; may lie behind the last. */
static __device__ __forceinline__ int64_t sum_column()
{
    return static_cast<int64_t>(blockIdx.x) * SUM_COLUMNS + lane_number();
}

/* Adds the warps' sums of this lane's column in order; the first warp writes it, or adds it to what
 * is there. Every thread of the block calls it, once. */
static __device__ __forceinline__ void write_column(float *dgain, int64_t cols, float sum,
                                                    float (&shares)[SUM_WARPS][SUM_COLUMNS],
                                                    bool accumulate)
{
    int64_t column = sum_column();
    shares[warp_number()][lane_number()] = sum;
    __syncthreads();
    if (warp_number() == 0 && column < cols) {
        for (int w = 1; w < SUM_WARPS; w++) {
            sum += shares[w][lane_number()];
        }
        dgain[column] = accumulate ? dgain[column] + sum : sum;
    }
}

#endif
