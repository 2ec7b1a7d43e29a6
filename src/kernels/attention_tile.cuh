/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention's tiles in shared memory, and the products of tiles on tensor cores. A block has
 * ATTENTION_THREADS threads; a warp owns 16 M rows of the block's results and keeps them in
 * registers in mma's layout: x[m][n][2 half + e] is row 16 m + 8 half + lane / 4, column 8 n + 2
 * (lane % 4) + e.
 *
 * A tile is [rows][D] bf16 of one head, in chunks of 8 elements (16 bytes). Chunk c of a row stands
 * at c ^ f(row), so that ldmatrix, which reads one chunk of 8 neighbouring rows, meets each bank
 * once. f repeats after 8 rows: a tile may be entered at any multiple of 8.
 *
 * Chunks c and c + D/16 hold the two halves of rotary's pairs. The thread that copies the one also
 * copies the other, and rotates both in place when they have come: no barrier stands between.
 */
#ifndef GIDD_KERNELS_ATTENTION_TILE_CUH
#define GIDD_KERNELS_ATTENTION_TILE_CUH

#include "kernels/launch.cuh"
#include "kernels/mma.cuh"

enum { ATTENTION_WARPS = 4, ATTENTION_THREADS = ATTENTION_WARPS * WARP, CHUNK = 8 };

/* What the kernels know of a call; of a block: which head, which block of its rows. */
typedef struct attention_shape {
    int T, H, d;
    int blocks; // of rows, for each head
    int causal;
    float scale; // 1/sqrt(d)
} attention_shape;

typedef struct attention_place {
    int block;
    int64_t head;          // b H + h
    int64_t packed, plain; // element of position 0 in [B][T][3D] and in [B][T][D]
    int width;             // D
} attention_place;

static __device__ __forceinline__ attention_place place_of_block(const attention_shape &s)
{
    attention_place at;
    int head = static_cast<int>(blockIdx.x) / s.blocks;
    at.block = static_cast<int>(blockIdx.x) % s.blocks;
    at.head = head;
    at.width = s.H * s.d;
    int64_t b = head / s.H, h = head % s.H;
    at.plain = b * s.T * at.width + h * s.d;
    at.packed = 3 * b * s.T * at.width + h * s.d;
    return at;
}

/* Sums and maxima over the four lanes that share a row. */
static __device__ __forceinline__ float quad_sum(float v)
{
    v += __shfl_xor_sync(0xffffffffu, v, 1);
    return v + __shfl_xor_sync(0xffffffffu, v, 2);
}
static __device__ __forceinline__ float quad_max(float v)
{
    v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
    return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}

// ---- tiles -----------------------------------------------------------------------------------

template <int D> static __device__ __forceinline__ int chunk_offset(int row, int chunk)
{
    return row * D + CHUNK * (D % 64 == 0 ? chunk ^ (row & 7) : chunk ^ (row >> 1 & 3));
}

/* Which chunks of a tile a thread copies: chunks `chunk` and `chunk` + D/16 of rows row, row +
 * STEP... */
template <int D, int ROWS> struct copy_share {
    enum { HALF = D / 16, STEP = ATTENTION_THREADS / HALF, COUNT = (ROWS + STEP - 1) / STEP };
    int row, chunk;
    __device__ __forceinline__ copy_share()
        : row(static_cast<int>(threadIdx.x) / HALF), chunk(static_cast<int>(threadIdx.x) % HALF)
    {
    }
    /* Whether its i-th row exists. */
    __device__ __forceinline__ bool has(int i) const
    {
        return (ATTENTION_THREADS % HALF == 0 || row < STEP) &&
               (ROWS % STEP == 0 || row + i * STEP < ROWS);
    }
};

/* Starts copying rows first.. of a head (position 0 at `head`); rows behind T become 0. */
template <int D, int ROWS>
static __device__ __forceinline__ void copy_tile(bf16 *tile, const bf16 *head, int stride,
                                                 int first, int T)
{
    typedef copy_share<D, ROWS> share;
    share own;
#pragma unroll 1 // addresses of several rows at once would cost registers that results need
    for (int i = 0; i < share::COUNT; i++) {
        if (own.has(i)) {
            int row = own.row + i * share::STEP, position = first + row;
            const bf16 *source = head + min(position, T - 1) * stride + own.chunk * CHUNK;
            int bytes = position < T ? 16 : 0;
            copy_async(tile + chunk_offset<D>(row, own.chunk), source, bytes);
            copy_async(tile + chunk_offset<D>(row, own.chunk + share::HALF),
                       source + share::HALF * CHUNK, bytes);
        }
    }
}

/* Eight pairs by the table's angles: cos, sin, cos, sin... */
static __device__ __forceinline__ void rotate_pairs(float (&a)[CHUNK], float (&b)[CHUNK],
                                                    const float *turns)
{
#pragma unroll
    for (int i = 0; i < CHUNK; i += 2) {
        float4 turn = reinterpret_cast<const float4 *>(turns)[i / 2];
        float a0 = a[i], a1 = a[i + 1];
        a[i] = fmaf(a0, turn.x, -b[i] * turn.y);
        b[i] = fmaf(b[i], turn.x, a0 * turn.y);
        a[i + 1] = fmaf(a1, turn.z, -b[i + 1] * turn.w);
        b[i + 1] = fmaf(b[i + 1], turn.z, a1 * turn.w);
    }
}

/* Rotates what this thread has copied, after copy_async_wait(). */
template <int D, int ROWS>
static __device__ __forceinline__ void rotate_tile(bf16 *tile, const float *rope, int first, int T)
{
    typedef copy_share<D, ROWS> share;
    share own;
#pragma unroll
    for (int i = 0; i < share::COUNT; i++) {
        if (own.has(i)) {
            int row = own.row + i * share::STEP;
            bf16 *low = tile + chunk_offset<D>(row, own.chunk);
            bf16 *high = tile + chunk_offset<D>(row, own.chunk + share::HALF);
            float a[CHUNK], b[CHUNK];
            load8(a, low);
            load8(b, high);
            rotate_pairs(a, b, rope + min(first + row, T - 1) * D + 2 * CHUNK * own.chunk);
            store8(low, a);
            store8(high, b);
        }
    }
}

// ---- products --------------------------------------------------------------------------------

template <int D, int M> struct operand_rows {
    uint32_t r[D / 16][M][4];
};

/* Columns 16 k.. of 16 M rows, as mma's A. */
template <int D, int M>
static __device__ __forceinline__ void load_rows(uint32_t (&a)[M][4], const bf16 *tile, int k)
{
    int lane = lane_number();
#pragma unroll
    for (int m = 0; m < M; m++) {
        ldmatrix_x4(a[m], tile + chunk_offset<D>(16 * m + lane % 16, 2 * k + lane / 16));
    }
}

template <int M, int N>
static __device__ __forceinline__ void
mma_columns(float (&d)[M][N][4], int n, const uint32_t (&a)[M][4], const uint32_t (&b)[4])
{
    const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
    for (int m = 0; m < M; m++) {
        mma_bf16(d[m][2 * n], a[m], left);
        mma_bf16(d[m][2 * n + 1], a[m], right);
    }
}

template <int M, int N> static __device__ __forceinline__ void clear(float (&d)[M][N][4])
{
#pragma unroll
    for (int i = 0; i < M * N * 4; i++) {
        d[i / (N * 4)][i / 4 % N][i % 4] = 0.0f;
    }
}

/* A's rows by the rows of a tile: A B^T. A comes from its tile, or is held in registers. */
template <int D, int M, int N>
static __device__ __forceinline__ void product(float (&d)[M][N][4], const bf16 *a_tile,
                                               const bf16 *b_tile)
{
    int lane = lane_number();
    clear(d);
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[M][4];
        load_rows<D, M>(a, a_tile, k);
#pragma unroll
        for (int n = 0; n < N / 2; n++) {
            uint32_t b[4];
            ldmatrix_x4(b, b_tile + chunk_offset<D>(16 * n + lane % 8 + 8 * (lane / 16),
                                                    2 * k + lane / 8 % 2));
            mma_columns(d, n, a, b);
        }
    }
}

template <int D, int M, int N>
static __device__ __forceinline__ void product(float (&d)[M][N][4], const operand_rows<D, M> &held,
                                               const bf16 *b_tile)
{
    int lane = lane_number();
    clear(d);
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
#pragma unroll
        for (int n = 0; n < N / 2; n++) {
            uint32_t b[4];
            ldmatrix_x4(b, b_tile + chunk_offset<D>(16 * n + lane % 8 + 8 * (lane / 16),
                                                    2 * k + lane / 8 % 2));
            mma_columns(d, n, held.r[k], b);
        }
    }
}

/* d += P times the rows of a tile, P [16 M][8 N] rounded to bf16: the layout of mma's results
 * is that of its A. */
template <int D, int M, int N>
static __device__ __forceinline__ void accumulate(float (&d)[M][D / 8][4],
                                                  const float (&p)[M][N][4], const bf16 *b_tile)
{
    int lane = lane_number();
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) {
            a[m][0] = pack_bf16(p[m][2 * k][0], p[m][2 * k][1]);
            a[m][1] = pack_bf16(p[m][2 * k][2], p[m][2 * k][3]);
            a[m][2] = pack_bf16(p[m][2 * k + 1][0], p[m][2 * k + 1][1]);
            a[m][3] = pack_bf16(p[m][2 * k + 1][2], p[m][2 * k + 1][3]);
        }
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t b[4];
            ldmatrix_x4_trans(b, b_tile + chunk_offset<D>(16 * k + lane % 16, 2 * n + lane / 16));
            mma_columns(d, n, a, b);
        }
    }
}

// ---- results ---------------------------------------------------------------------------------

/* A gradient of rotated rows becomes `factor` times that of the un-rotated ones: both elements of a
 * pair lie in one lane. `first`: position of the warp's first row. */
template <int D, int M>
static __device__ __forceinline__ void rotate_back(float (&x)[M][D / 8][4], const float *rope,
                                                   int first, int T, float factor)
{
    constexpr int HALF = D / 16;
    int lane = lane_number();
#pragma unroll
    for (int i = 0; i < 2 * M * HALF; i++) {
        int m = i / (2 * HALF), e = i / HALF % 2 * 2, n = i % HALF;
        int position = min(first + 16 * m + 4 * e + lane / 4, T - 1);
        float4 turn =
            *reinterpret_cast<const float4 *>(rope + position * D + 2 * (8 * n + 2 * (lane % 4)));
        float a0 = x[m][n][e] * factor, b0 = x[m][n + HALF][e] * factor;
        float a1 = x[m][n][e + 1] * factor, b1 = x[m][n + HALF][e + 1] * factor;
        x[m][n][e] = fmaf(a0, turn.x, b0 * turn.y);
        x[m][n + HALF][e] = fmaf(b0, turn.x, -a0 * turn.y);
        x[m][n][e + 1] = fmaf(a1, turn.z, b1 * turn.w);
        x[m][n + HALF][e + 1] = fmaf(b1, turn.z, -a1 * turn.w);
    }
}

/* Rounds the warp's rows into the head's positions first.., 16 bytes a lane, by way of
 * rows of a tile that no other warp reads any more. */
template <int D, int M>
static __device__ __forceinline__ void store_rows(bf16 *head, int stride, int first, int T,
                                                  const float (&x)[M][D / 8][4], bf16 *tile)
{
    int lane = lane_number();
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 2 * M * (D / 8); i++) {
        int m = i / (2 * (D / 8)), e = i / (D / 8) % 2 * 2, n = i % (D / 8);
        bf16 *target = tile + chunk_offset<D>(16 * m + 4 * e + lane / 4, n) + 2 * (lane % 4);
        *reinterpret_cast<uint32_t *>(target) = pack_bf16(x[m][n][e], x[m][n][e + 1]);
    }
    __syncwarp();
#pragma unroll
    for (int task = lane; task < 16 * M * (D / 8); task += WARP) {
        int r = task / (D / 8), chunk = task % (D / 8);
        if (first + r < T) {
            *reinterpret_cast<uint4 *>(head + (first + r) * stride + chunk * CHUNK) =
                *reinterpret_cast<const uint4 *>(tile + chunk_offset<D>(r, chunk));
        }
    }
}

#endif
