/* SPDX-License-Identifier: Apache-2.0
 *
 * The special-function unit's instructions, one each, without the scaling by which nvcc lets its
 * intrinsics serve denormals: arguments and results below 2^-126 count as 0. NaN stays NaN.
 *
 * Largest relative errors on the device: approx_exp2 2^-22, approx_reciprocal 2^-23, approx_log2
 * 2^-22 (absolute between 0.5 and 2). The host computes the same exactly.
 */
#ifndef GIDD_KERNELS_FAST_MATH_CUDA_CUH
#define GIDD_KERNELS_FAST_MATH_CUDA_CUH

#include "kernels/launch.cuh"

#ifdef __CUDACC__

static __device__ __forceinline__ float approx_exp2(float v)
{
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(v));
    return result;
}

static __device__ __forceinline__ float approx_log2(float v)
{
    float result;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(v));
    return result;
}

static __device__ __forceinline__ float approx_reciprocal(float v)
{
    float result;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(v));
    return result;
}

#else

static inline float without_denormals(float v)
{
    return fabsf(v) < 0x1p-126f ? copysignf(0.0f, v) : v;
}

static inline float approx_exp2(float v)
{
    return without_denormals(exp2f(v));
}

static inline float approx_log2(float v)
{
    return log2f(without_denormals(v));
}

static inline float approx_reciprocal(float v)
{
    return without_denormals(1.0f / without_denormals(v));
}

#endif
#endif
