/* SPDX-License-Identifier: Apache-2.0
 *
 * Tensor cores, ldmatrix and asynchronous copies: PTX on the device, emu/mma_host.cuh on the host.
 * All 32 lanes of a warp call them together. Layouts, with g = lane / 4 and t = lane % 4:
 *
 *   mma_bf16: D[16][8] = A[16][16] B[16][8] + D, fp32 sums. A register holds two bf16, the lower
 *   half the one with the smaller index.
 *     a[0] = A[g][2t..]    a[1] = A[g+8][2t..]    a[2] = A[g][2t+8..]   a[3] = A[g+8][2t+8..]
 *     b[0] = B[2t..][g]    b[1] = B[2t+8..][g]
 *     d[0], d[1] = D[g][2t..]                     d[2], d[3] = D[g+8][2t..]
 *
 *   ldmatrix_x4: four 8x8 matrices of bf16 from shared memory; lane l names row l % 8 of matrix l /
 * 8 (16 bytes, 16-byte aligned). r[i] = M_i[g][2t..].   _trans: r[i] = (M_i[2t][g], M_i[2t+1][g]).
 *     A, row-major in shared memory: x4 with lane l at A[l % 16][8 (l / 16)] gives a[0..3].
 *     B, stored [n][k] (k contiguous): x4 with lane l at [n = l % 8 + 8 (l / 16)][k = 8 (l / 8 %
 * 2)] gives b of columns 0-7 in r[0], r[1] and of columns 8-15 in r[2], r[3]. B, stored [k][n] (n
 * contiguous): x4_trans with lane l at [k = l % 16][n = 8 (l / 16)], likewise.
 */
#ifndef GIDD_KERNELS_MMA_CUH
#define GIDD_KERNELS_MMA_CUH

#include "kernels/launch.cuh"

#ifndef __CUDACC__
#include "kernels/emu/mma_host.cuh"
#else

static __device__ __forceinline__ unsigned shared_address(const void *p)
{
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

static __device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4],
                                                const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

static __device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* 16 bytes into shared memory (both addresses 16-byte aligned), of which `source_bytes` (0..16) are
 * read and the rest becomes 0; past L1. There after copy_async_wait() by this thread, and for the
 * other threads after a barrier behind that. */
static __device__ __forceinline__ void copy_async(void *target, const void *source,
                                                  int source_bytes = 16)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(target)), "l"(source), "r"(source_bytes)
                 : "memory");
}

/* Closes this thread's group of copies. */
static __device__ __forceinline__ void copy_async_commit()
{
    asm volatile("cp.async.commit_group;" : : : "memory");
}

/* Waits for this thread's groups but the latest LEAVE. */
template <int LEAVE> static __device__ __forceinline__ void copy_async_wait()
{
    asm volatile("cp.async.wait_group %0;" : : "n"(LEAVE) : "memory");
}

#endif
#endif
