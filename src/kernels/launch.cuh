/* SPDX-License-Identifier: Apache-2.0
 *
 * What every *_cuda.cu includes, first: the language (CUDA's, or emu's on the host), launching, and
 * the helpers with which one body serves both element types. A kernel source is one text for both
 * compilers: no #ifdef in it, kernels and helpers static, PTX only through mma.cuh. emu/README.md
 * says how to write one.
 */
#ifndef GIDD_KERNELS_LAUNCH_CUH
#define GIDD_KERNELS_LAUNCH_CUH

#include "kernels/kernels_cuda.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#define GIDD_DEVICE_NAME(name) gidd_##name##_cuda
#define GIDD_DYNAMIC_SHARED(type, name)                                                            \
    extern __shared__ __align__(128) unsigned char gidd_dynamic_shared[];                          \
    type *name = reinterpret_cast<type *>(gidd_dynamic_shared)
#else
#include "kernels/emu/cuda_host.cuh"
#include <tuple>
#define GIDD_DEVICE_NAME(name) gidd_##name##_emu
#define GIDD_DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(gidd_emu_shared())
#endif

/* Defines a slot's launcher: gidd_status GIDD_LAUNCHER(embed_fwd)(gidd_device *device, const
 * gidd_embed_fwd_args *args) { ... } */
#define GIDD_LAUNCHER(slot) extern "C" gidd_status GIDD_DEVICE_NAME(slot)

/* Defines an operation's workspace: GIDD_WORKSPACE(embed)(const gidd_device_limits *limits) {...}
 */
#define GIDD_WORKSPACE(operation) extern "C" size_t GIDD_DEVICE_NAME(operation##_workspace)

static inline const gidd_launch_target *launch_target(const gidd_device *device)
{
    return GIDD_DEVICE_NAME(launch_target)(device);
}

/* Enqueues kernel(args...) on the device's stream: launch(device, "embed_fwd", kernel<E>, grid,
 * block, bytes of dynamic shared memory, args...). GIDD_ERR_DEVICE with CUDA's words, which may
 * speak of an earlier launch. Arguments are converted to the kernel's types. Blocks: multiples of
 * 32 threads; grids: not empty. */
#ifdef __CUDACC__
template <typename... Parameters, typename... Arguments>
static inline gidd_status launch(gidd_device *device, const char *slot,
                                 void (*kernel)(Parameters...), dim3 grid, dim3 block,
                                 size_t shared_bytes, Arguments... arguments)
{
    cudaError_t error = cudaSuccess;
    if (shared_bytes > 48 * 1024) { // more than every kernel may have unasked
        error = cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                     cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(shared_bytes));
    }
    if (error == cudaSuccess) {
        auto stream = static_cast<cudaStream_t>(launch_target(device)->stream);
        kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
        error = cudaGetLastError();
    }
    if (error != cudaSuccess) {
        return gidd_fail(GIDD_ERR_DEVICE, "%s: %s (%s)", slot, cudaGetErrorString(error),
                         cudaGetErrorName(error));
    }
    return GIDD_OK;
}
#else
template <typename... Parameters> struct emu_call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
    static void run(void *call)
    {
        std::apply(static_cast<emu_call *>(call)->kernel, static_cast<emu_call *>(call)->arguments);
    }
};

template <typename... Parameters, typename... Arguments>
static inline gidd_status launch(gidd_device *device, const char *slot,
                                 void (*kernel)(Parameters...), dim3 grid, dim3 block,
                                 size_t shared_bytes, Arguments... arguments)
{
    if (shared_bytes > launch_target(device)->shared_bytes) {
        return gidd_fail(GIDD_ERR_DEVICE, "%s: %zu bytes of shared memory", slot, shared_bytes);
    }
    emu_call<Parameters...> call = {kernel, {static_cast<Parameters>(arguments)...}};
    gidd_emu_run({grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared_bytes,
                 emu_call<Parameters...>::run, &call);
    return GIDD_OK;
}
#endif

/* GIDD_ERR_ARG unless gidd_device_reserve() made `bytes` of workspace ready. */
static inline gidd_status workspace_check(const gidd_device *device, size_t bytes, const char *slot)
{
    if (bytes > device->workspace_bytes) {
        return gidd_fail(GIDD_ERR_ARG, "%s needs %zu bytes of workspace, %zu are reserved", slot,
                         bytes, device->workspace_bytes);
    }
    return GIDD_OK;
}

/* Blocks that cover `count` things, `each` a block. */
static inline unsigned blocks_for(int64_t count, int64_t each)
{
    return static_cast<unsigned>((count + each - 1) / each);
}

static inline bool is_aligned(const void *p, size_t bytes)
{
    return reinterpret_cast<uintptr_t>(p) % bytes == 0;
}

// ---- elements of type E: float or bf16 -------------------------------------------------------

typedef __nv_bfloat16 bf16;

static __device__ __forceinline__ float to_float(float v)
{
    return v;
}
static __device__ __forceinline__ float to_float(bf16 v)
{
    return __bfloat162float(v);
}

template <typename E> static __device__ __forceinline__ E from_float(float v);
template <> __device__ __forceinline__ float from_float<float>(float v)
{
    return v;
}
template <> __device__ __forceinline__ bf16 from_float<bf16>(float v)
{
    return __float2bfloat16_rn(v);
}

/* v as E holds it. */
template <typename E> static __device__ __forceinline__ float round_to(float v)
{
    return to_float(from_float<E>(v));
}

/* Two bf16 in a register and back; the first in the lower half (mma.cuh's order). */
static __device__ __forceinline__ uint32_t pack_bf16(float first, float second)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}
static __device__ __forceinline__ float2 unpack_bf16(uint32_t bits)
{
    return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u));
}

/* Eight bf16 in 16 bytes. */
static __device__ __forceinline__ void unpack(float (&v)[8], uint4 raw)
{
    uint32_t pairs[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 pair = unpack_bf16(pairs[i]);
        v[2 * i] = pair.x;
        v[2 * i + 1] = pair.y;
    }
}
static __device__ __forceinline__ uint4 pack(const float (&v)[8])
{
    return make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]),
                      pack_bf16(v[6], v[7]));
}

/* Eight consecutive elements, 16-byte aligned: one 16-byte access of bf16, two of fp32. */
static __device__ __forceinline__ void load8(float (&v)[8], const float *p)
{
    float4 low = reinterpret_cast<const float4 *>(p)[0];
    float4 high = reinterpret_cast<const float4 *>(p)[1];
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
    v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
}
static __device__ __forceinline__ void load8(float (&v)[8], const bf16 *p)
{
    unpack(v, *reinterpret_cast<const uint4 *>(p));
}
static __device__ __forceinline__ void store8(float *p, const float (&v)[8])
{
    reinterpret_cast<float4 *>(p)[0] = make_float4(v[0], v[1], v[2], v[3]);
    reinterpret_cast<float4 *>(p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}
static __device__ __forceinline__ void store8(bf16 *p, const float (&v)[8])
{
    *reinterpret_cast<uint4 *>(p) = pack(v);
}

/* Eight floats wherever they stand (parameters and modulations begin at any element). */
static __device__ __forceinline__ void load8_unaligned(float (&v)[8], const float *p)
{
    if (reinterpret_cast<uintptr_t>(p) % 16 == 0) {
        load8(v, p);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            v[i] = p[i];
        }
    }
}

// ---- reductions, each in one fixed order -----------------------------------------------------

enum { WARP = 32 };

static __device__ __forceinline__ int lane_number()
{
    return static_cast<int>(threadIdx.x) % WARP;
}
static __device__ __forceinline__ int warp_number()
{
    return static_cast<int>(threadIdx.x) / WARP;
}

/* Of a whole warp; every lane gets the same bits. */
template <typename T> static __device__ __forceinline__ T warp_sum(T v)
{
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        v += __shfl_xor_sync(0xffffffffu, v, distance);
    }
    return v;
}
template <typename T> static __device__ __forceinline__ T warp_max(T v)
{
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        T other = __shfl_xor_sync(0xffffffffu, v, distance);
        v = other > v ? other : v;
    }
    return v;
}

/* Of a one-dimensional block of WARPS warps; every thread gets the same bits. `scratch`: WARPS
 * values in shared memory, of this call alone until the next barrier of the block. */
template <int WARPS, typename T> static __device__ __forceinline__ T block_sum(T v, T *scratch)
{
    v = warp_sum(v);
    if (lane_number() == 0) {
        scratch[warp_number()] = v;
    }
    __syncthreads();
    T total = scratch[0];
#pragma unroll
    for (int w = 1; w < WARPS; w++) {
        total += scratch[w];
    }
    return total;
}
template <int WARPS, typename T> static __device__ __forceinline__ T block_max(T v, T *scratch)
{
    v = warp_max(v);
    if (lane_number() == 0) {
        scratch[warp_number()] = v;
    }
    __syncthreads();
    T largest = scratch[0];
#pragma unroll
    for (int w = 1; w < WARPS; w++) {
        largest = scratch[w] > largest ? scratch[w] : largest;
    }
    return largest;
}

#endif
