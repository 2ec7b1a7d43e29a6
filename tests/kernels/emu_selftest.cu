/* SPDX-License-Identifier: Apache-2.0
 *
 * Kernels that test the emulation itself (test_emu.c).
 */
#include "kernels/emu_selftest.h"

#include "kernels/mma.cuh"

enum { ONE_BLOCK = 256 };

// ---- barriers --------------------------------------------------------------------------------

// Each round every thread reads what its right neighbour wrote in the round before.
static __global__ void ring_kernel(int *out, int rounds, bool with_barrier)
{
    __shared__ int value[ONE_BLOCK];
    int self = static_cast<int>(threadIdx.x), held = self;
    for (int round = 0; round < rounds; round++) {
        value[self] = held;
        if (with_barrier) {
            __syncthreads();
        }
        held = value[(self + 1) % ONE_BLOCK] + 1;
        __syncthreads();
    }
    out[blockIdx.x * ONE_BLOCK + threadIdx.x] = held;
}

static __global__ void votes_kernel(int *out)
{
    int t = static_cast<int>(threadIdx.x);
    out[3 * t] = __syncthreads_count(t % 3 == 0);
    out[3 * t + 1] = __syncthreads_or(t == 77);
    out[3 * t + 2] = __syncthreads_and(t != 77);
}

static __global__ void divergent_kernel(int *out, int kind)
{
    int t = static_cast<int>(threadIdx.x);
    if (kind == SELFTEST_HALF_AT_BARRIER && t < 48) {
        __syncthreads();
    }
    if (kind == SELFTEST_BARRIER_AGAINST_SHUFFLE) {
        if (t == 5 || t >= WARP) {
            __syncthreads();
        } else {
            out[t] = __shfl_sync(0xffffffffu, t, 0);
        }
    }
    if (kind == SELFTEST_OTHER_OPERATION) {
        if (t % 2 == 0) {
            __syncwarp();
        } else {
            out[t] = __shfl_sync(0xffffffffu, t, 0);
        }
    }
    if (kind == SELFTEST_LANE_ENDED && t != 3) {
        out[t] = __shfl_sync(0xffffffffu, t, 0);
    }
    if (kind == SELFTEST_LANE_NOT_IN_MASK) {
        out[t] = __shfl_sync(0xfffffffeu, t, 1);
    }
    if (kind == SELFTEST_SHARED_OVERFLOW) {
        GIDD_DYNAMIC_SHARED(int, shared);
        shared[t + 1] = t;
    }
    if (kind == SELFTEST_LDMATRIX_MISALIGNED) {
        GIDD_DYNAMIC_SHARED(unsigned char, shared);
        uint32_t r[4];
        ldmatrix_x4(r, shared + 8);
        out[t] = static_cast<int>(r[0]);
    }
}

// ---- shared memory ---------------------------------------------------------------------------

static __global__ void poison_kernel(float *out)
{
    __shared__ float fixed[ONE_BLOCK];
    GIDD_DYNAMIC_SHARED(float, dynamic);
    int t = static_cast<int>(threadIdx.x);
    out[(blockIdx.x * ONE_BLOCK + threadIdx.x) * 2] = fixed[t];
    out[(blockIdx.x * ONE_BLOCK + threadIdx.x) * 2 + 1] = dynamic[t];
    fixed[t] = dynamic[t] = 1.0f; // the next block must not see it
}

// ---- warps -----------------------------------------------------------------------------------

static __global__ void warp_kernel(int *out, int columns)
{
    int t = static_cast<int>(threadIdx.x), lane = t % WARP;
    int *row = out + t * columns;
    row[0] = __shfl_xor_sync(0xffffffffu, t, 5);
    row[1] = __shfl_down_sync(0xffffffffu, t, 3u);
    row[2] = __shfl_up_sync(0xffffffffu, t, 3u, 8);
    row[3] = __shfl_sync(0xffffffffu, t, lane + 9, 16);
    row[4] = static_cast<int>(__ballot_sync(0xffffffffu, lane % 5 == 0));
    row[5] = __any_sync(0xffffffffu, t == 40);
    row[6] = __all_sync(0xffffffffu, t != 40);
    row[7] = warp_sum(lane);
    // halves of a warp go their own ways, one of them more often
    row[8] = 0;
    if (lane < 16) {
        for (int i = 0; i < 3; i++) {
            row[8] += __shfl_xor_sync(0x0000ffffu, t, 1);
        }
    } else {
        row[8] = __shfl_xor_sync(0xffff0000u, t, 2);
    }
    __syncwarp();
    double wide = __shfl_xor_sync(0xffffffffu, 0.5 + t, 16);
    row[9] = static_cast<int>(2.0 * wide);
}

// ---- tensor cores and copies -----------------------------------------------------------------

// One warp: d[16][16] = a[16][16] b, b given as [k][n] or as [n][k]; operands go through cp.async.
static __global__ void mma_kernel(float *d, const bf16 *a, const bf16 *b, bool b_is_nk)
{
    __shared__ __align__(128) bf16 tile_a[16 * 16];
    __shared__ __align__(128) bf16 tile_b[16 * 16];
    int lane = lane_number();
    copy_async(tile_a + 8 * lane, a + 8 * lane);
    copy_async_commit();
    copy_async(tile_b + 8 * lane, b + 8 * lane);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    uint32_t ra[4], rb[4];
    ldmatrix_x4(ra, tile_a + lane % 16 * 16 + lane / 16 * 8);
    if (b_is_nk) {
        ldmatrix_x4(rb, tile_b + (lane % 8 + lane / 16 * 8) * 16 + lane / 8 % 2 * 8);
    } else {
        ldmatrix_x4_trans(rb, tile_b + lane % 16 * 16 + lane / 16 * 8);
    }
    int g = lane / 4, t = lane % 4;
    for (int half = 0; half < 2; half++) {
        float sum[4] = {1.0f, 1.0f, 1.0f, 1.0f}; // what was in D is added to
        uint32_t columns[2] = {rb[2 * half], rb[2 * half + 1]};
        mma_bf16(sum, ra, columns);
        for (int i = 0; i < 4; i++) {
            d[(g + i / 2 * 8) * 16 + half * 8 + 2 * t + i % 2] = sum[i];
        }
    }
}

// What shared memory holds before and after each wait.
static __global__ void copy_kernel(uint32_t *out, const uint32_t *source)
{
    __shared__ __align__(16) uint32_t stage[3][WARP * 4];
    int lane = lane_number();
    for (int i = 0; i < 3; i++) {
        copy_async(&stage[i][4 * lane], source + 4 * lane, i == 2 ? 4 : 16);
        copy_async_commit();
    }
    out[0 * WARP + lane] = stage[0][4 * lane];
    copy_async_wait<2>();
    out[1 * WARP + lane] = stage[0][4 * lane];
    out[2 * WARP + lane] = stage[1][4 * lane];
    copy_async_wait<0>();
    out[3 * WARP + lane] = stage[1][4 * lane + 3];
    out[4 * WARP + lane] = stage[2][4 * lane];
    out[5 * WARP + lane] = stage[2][4 * lane + 1];
}

// Two warps read one buffer each round and then fetch the next round's numbers into it. Without the
// barrier between, a warp overwrites what the other has not yet read.
static __global__ void prefetch_kernel(uint32_t *out, const uint32_t *source, int rounds, bool has_barrier)
{
    __shared__ __align__(16) uint32_t stage[64 * 4];
    int self = static_cast<int>(threadIdx.x), other = (self + WARP) % 64;
    uint32_t sum = 0;
    copy_async(stage + 4 * self, source + 4 * self);
    copy_async_commit();
    for (int round = 1; round <= rounds; round++) {
        copy_async_wait<0>();
        __syncthreads();
        sum += static_cast<uint32_t>(round) * stage[4 * other];
        if (has_barrier) {
            __syncthreads();
        }
        copy_async(stage + 4 * self, source + (round * 64 + self) * 4);
        copy_async_commit();
    }
    copy_async_wait<0>();
    out[self] = sum;
}

// ---- launches --------------------------------------------------------------------------------

#define DEFINE(name)                                                                               \
    extern "C" gidd_status selftest_##name(gidd_device *device, const selftest_args *args)

DEFINE(ring)
{
    return launch(device, "ring", ring_kernel, 2, ONE_BLOCK, 0, static_cast<int *>(args->out),
                  args->rounds, args->kind == 0);
}

DEFINE(votes)
{
    return launch(device, "votes", votes_kernel, 1, ONE_BLOCK, 0, static_cast<int *>(args->out));
}

DEFINE(divergent)
{
    return launch(device, "divergent", divergent_kernel, 1, 64, 64 * sizeof(int),
                  static_cast<int *>(args->out), args->kind);
}

DEFINE(poison)
{
    return launch(device, "poison", poison_kernel, 3, ONE_BLOCK, ONE_BLOCK * sizeof(float),
                  static_cast<float *>(args->out));
}

DEFINE(warp)
{
    return launch(device, "warp", warp_kernel, 1, 64, 0, static_cast<int *>(args->out),
                  static_cast<int>(SELFTEST_WARP_COLUMNS));
}

DEFINE(mma)
{
    return launch(device, "mma", mma_kernel, 1, WARP, 0, static_cast<float *>(args->out),
                  static_cast<const bf16 *>(args->a), static_cast<const bf16 *>(args->b),
                  args->kind != 0);
}

DEFINE(copy)
{
    return launch(device, "copy", copy_kernel, 1, WARP, 0, static_cast<uint32_t *>(args->out),
                  static_cast<const uint32_t *>(args->a));
}

DEFINE(prefetch)
{
    return launch(device, "prefetch", prefetch_kernel, 1, 64, 0, static_cast<uint32_t *>(args->out),
                  static_cast<const uint32_t *>(args->a), args->rounds, args->kind != 0);
}
