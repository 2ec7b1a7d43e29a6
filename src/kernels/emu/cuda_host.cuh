/* SPDX-License-Identifier: Apache-2.0
 *
 * The part of CUDA's language that our kernels use, for a plain C++17 compiler, over emu/emu_block.h.
 * Included by launch.cuh alone. What is missing here is either not wanted (atomics whose order
 * matters, TF32) or not yet used: add it with CUDA's name and meaning.
 */
#ifndef GIDD_KERNELS_EMU_CUDA_HOST_CUH
#define GIDD_KERNELS_EMU_CUDA_HOST_CUH

#include "kernels/emu/emu_block.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

// ---- words of the language -------------------------------------------------------------------

#define __host__
#define __device__
#define __global__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __restrict__ __restrict
// One section for all, so that a block can find and poison them. One block runs at a time.
#define __shared__ static __attribute__((section("gidd_shared")))

#define threadIdx (gidd_emu_now->thread)
#define blockIdx (gidd_emu_now->block)
#define blockDim (gidd_emu_now->block_size)
#define gridDim (gidd_emu_now->grid_size)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) double2 {
    double x, y;
};

static inline float2 make_float2(float x, float y)
{
    return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}
static inline int2 make_int2(int x, int y)
{
    return {x, y};
}
static inline int4 make_int4(int x, int y, int z, int w)
{
    return {x, y, z, w};
}
static inline uint2 make_uint2(unsigned x, unsigned y)
{
    return {x, y};
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}
static inline double2 make_double2(double x, double y)
{
    return {x, y};
}

// ---- barriers and votes ----------------------------------------------------------------------

static inline void __syncthreads()
{
    (void)gidd_emu_barrier(0);
}
static inline int __syncthreads_or(int vote)
{
    return gidd_emu_barrier(vote).yes > 0;
}
static inline int __syncthreads_and(int vote)
{
    gidd_emu_votes votes = gidd_emu_barrier(vote);
    return votes.yes == votes.threads;
}
static inline int __syncthreads_count(int vote)
{
    return gidd_emu_barrier(vote).yes;
}

static inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    gidd_emu_meet(mask, nullptr, nullptr);
}

static inline void __threadfence()
{
}
static inline void __threadfence_block()
{
}

namespace gidd_emu {

struct vote {
    int yes;
    unsigned ballot;
};

static inline void ballot(void *const operands[GIDD_EMU_WARP], uint32_t mask)
{
    unsigned yes = 0;
    for (unsigned lane = 0; lane < GIDD_EMU_WARP; lane++) {
        if ((mask >> lane & 1u) != 0 && static_cast<vote *>(operands[lane])->yes != 0) {
            yes |= 1u << lane;
        }
    }
    for (unsigned lane = 0; lane < GIDD_EMU_WARP; lane++) {
        if ((mask >> lane & 1u) != 0) {
            static_cast<vote *>(operands[lane])->ballot = yes;
        }
    }
}

template <typename T> struct exchange {
    T given, taken;
    int source; // lane
};

template <typename T> static inline void shuffle(void *const operands[GIDD_EMU_WARP], uint32_t mask)
{
    for (unsigned lane = 0; lane < GIDD_EMU_WARP; lane++) {
        if ((mask >> lane & 1u) == 0) {
            continue;
        }
        auto *self = static_cast<exchange<T> *>(operands[lane]);
        if ((mask >> self->source & 1u) == 0) {
            gidd_emu_fail("lane %u reads lane %d, which is not in the mask %08x", lane,
                          self->source, mask);
        }
        self->taken = static_cast<exchange<T> *>(operands[self->source])->given;
    }
}

template <typename T> static inline T shuffle_from(unsigned mask, T value, int source)
{
    static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= 8, "as CUDA's");
    exchange<T> own = {value, value, source};
    gidd_emu_meet(mask, shuffle<T>, &own);
    return own.taken;
}

static inline int lane()
{
    return static_cast<int>(gidd_emu_now->number % GIDD_EMU_WARP);
}

} // namespace gidd_emu

static inline unsigned __ballot_sync(unsigned mask, int vote)
{
    gidd_emu::vote own = {vote, 0};
    gidd_emu_meet(mask, gidd_emu::ballot, &own);
    return own.ballot;
}
static inline int __any_sync(unsigned mask, int vote)
{
    return __ballot_sync(mask, vote) != 0;
}
static inline int __all_sync(unsigned mask, int vote)
{
    return __ballot_sync(mask, vote) == mask;
}

// ---- shuffles --------------------------------------------------------------------------------
// `width` (a power of two) cuts the warp into groups that do not see each other.

template <typename T> static inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32)
{
    int first = gidd_emu::lane() & ~(width - 1);
    return gidd_emu::shuffle_from(mask, value, first | (lane & (width - 1)));
}
template <typename T>
static inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32)
{
    int self = gidd_emu::lane(), other = self ^ bits;
    int group_end = (self & ~(width - 1)) + width;
    return gidd_emu::shuffle_from(mask, value, other < group_end ? other : self);
}
template <typename T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32)
{
    int self = gidd_emu::lane(), within = self & (width - 1);
    int moved = within + static_cast<int>(by);
    return gidd_emu::shuffle_from(mask, value, moved < width ? self + static_cast<int>(by) : self);
}
template <typename T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32)
{
    int self = gidd_emu::lane(), moved = (self & (width - 1)) - static_cast<int>(by);
    return gidd_emu::shuffle_from(mask, value, moved >= 0 ? self - static_cast<int>(by) : self);
}

// ---- arithmetic ------------------------------------------------------------------------------
// Fast ones are computed exactly: a test's tolerance must cover the device's own error bound.

using std::isfinite;
using std::isinf;
using std::isnan;
using std::max;
using std::min;

#define __expf(v) expf(v) /* glibc declares these names for itself: macros, not functions */
#define __exp2f(v) exp2f(v)
#define __logf(v) logf(v)
#define __log2f(v) log2f(v)
#define __powf(v, w) powf(v, w)
#define __sinf(v) sinf(v)
#define __cosf(v) cosf(v)

static inline float __fdividef(float a, float b)
{
    return a / b;
}
static inline float __frcp_rn(float v)
{
    return 1.0f / v;
}
static inline float rsqrtf(float v)
{
    return 1.0f / sqrtf(v);
}
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}
static inline float __fadd_rn(float a, float b)
{
    return a + b;
}
static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
static inline float __fsqrt_rn(float v)
{
    return sqrtf(v);
}
static inline unsigned __float_as_uint(float v)
{
    unsigned bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}
static inline int __float_as_int(float v)
{
    return static_cast<int>(__float_as_uint(v));
}
static inline float __uint_as_float(unsigned bits)
{
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}
static inline float __int_as_float(int bits)
{
    return __uint_as_float(static_cast<unsigned>(bits));
}
static inline int __popc(unsigned v)
{
    return __builtin_popcount(v);
}
static inline int __clz(int v)
{
    return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v));
}
static inline int __ffs(int v)
{
    return __builtin_ffs(v);
}
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}

// ---- memory ----------------------------------------------------------------------------------

template <typename T> static inline T __ldg(const T *p)
{
    return *p;
}
template <typename T> static inline T __ldcs(const T *p)
{
    return *p;
}
template <typename T> static inline void __stcs(T *p, T value)
{
    *p = value;
}

// Only for integers: their sums do not depend on the order.
static inline int atomicAdd(int *p, int value)
{
    int before = *p;
    *p += value;
    return before;
}
static inline unsigned atomicAdd(unsigned *p, unsigned value)
{
    unsigned before = *p;
    *p += value;
    return before;
}

// ---- bfloat16 --------------------------------------------------------------------------------

struct __nv_bfloat16 {
    uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

static inline float __bfloat162float(__nv_bfloat16 v)
{
    return __uint_as_float(static_cast<unsigned>(v.bits) << 16);
}
// To nearest, ties to even; every NaN becomes 0x7fff, as on the device.
static inline __nv_bfloat16 __float2bfloat16_rn(float v)
{
    unsigned bits = __float_as_uint(v);
    unsigned rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return {static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : rounded)};
}
static inline __nv_bfloat16 __float2bfloat16(float v)
{
    return __float2bfloat16_rn(v);
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
static inline __nv_bfloat162 __float22bfloat162_rn(float2 v)
{
    return __floats2bfloat162_rn(v.x, v.y);
}
static inline float2 __bfloat1622float2(__nv_bfloat162 v)
{
    return {__bfloat162float(v.x), __bfloat162float(v.y)};
}
static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y)
{
    return {x, y};
}
static inline float __low2float(__nv_bfloat162 v)
{
    return __bfloat162float(v.x);
}
static inline float __high2float(__nv_bfloat162 v)
{
    return __bfloat162float(v.y);
}
static inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 v)
{
    return v.x;
}
static inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 v)
{
    return v.y;
}
static inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 v)
{
    return v.bits;
}
static inline __nv_bfloat16 __ushort_as_bfloat16(uint16_t bits)
{
    return {bits};
}

#endif
