/* SPDX-License-Identifier: Apache-2.0
 *
 * Private to the CPU device: its launchers, the workspace they need, and the row helpers with which
 * one body serves both element types.
 */
#ifndef GIDD_KERNELS_CPU_H
#define GIDD_KERNELS_CPU_H

#include "base/vmath.h"
#include "kernels/bf16.h"
#include "kernels/gemm_onednn.h"
#include "kernels/kernels.h"

#include <omp.h>

/* device->impl */
typedef struct gidd_cpu {
    gidd_gemm *gemm;
} gidd_cpu;

#define GIDD_CPU_LAUNCHER(slot, arguments)                                                         \
    gidd_status gidd_##slot##_cpu(gidd_device *device, const gidd_##arguments##_args *args);
GIDD_KERNEL_SLOTS(GIDD_CPU_LAUNCHER)
#undef GIDD_CPU_LAUNCHER

/* Bytes of workspace by operation. The workspace starts afresh with each launch. Local. */
size_t gidd_linear_workspace_cpu(int64_t M, int64_t K);
size_t gidd_norm_mod_workspace_cpu(int64_t B, int64_t T, int64_t D, int threads);
size_t gidd_rms_norm_workspace_cpu(int64_t rows, int64_t D, int threads);
size_t gidd_time_cond_workspace_cpu(int64_t B, int64_t C);
size_t gidd_embed_workspace_cpu(int64_t D, int threads);
size_t gidd_attention_workspace_cpu(int64_t T, int64_t d, int threads);
size_t gidd_attention_step_workspace_cpu(int64_t T, int threads);
size_t gidd_loss_workspace_cpu(int64_t Vr, int threads);
size_t gidd_sample_workspace_cpu(int64_t Vr, int threads);

/* GIDD_ERR_ARG unless gidd_device_reserve() made `bytes` of workspace ready. Local. */
static inline gidd_status gidd_workspace_check(const gidd_device *device, size_t bytes,
                                               const char *slot)
{
    if (bytes > device->workspace_bytes) {
        return gidd_fail(GIDD_ERR_ARG, "%s needs %zu bytes of workspace, %zu are reserved", slot,
                         bytes, device->workspace_bytes);
    }
    return GIDD_OK;
}

/* Elements of scratch rounded up, so that neighbours of different threads share no cache line. */
static inline int64_t gidd_scratch_floats(int64_t count)
{
    return (count + 63) / 64 * 64;
}

static inline int64_t gidd_round_up(int64_t value, int64_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

static inline void gidd_bf16_read(float *target, const uint16_t *source, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        target[i] = gidd_bf16_to_float(source[i]);
    }
}

static inline void gidd_bf16_write(uint16_t *target, const float *source, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        target[i] = gidd_bf16_from_float(source[i]);
    }
}

/* `count` elements from element `first` of `base` as floats: where they stand, or converted into
 * `scratch`. */
static inline const float *gidd_elements_in(const void *base, int64_t first, int64_t count,
                                            gidd_dtype dtype, float *scratch)
{
    if (dtype == GIDD_F32) {
        return (const float *)base + first;
    }
    gidd_bf16_read(scratch, (const uint16_t *)base + first, count);
    return scratch;
}

/* Where to compute elements that gidd_elements_store() then rounds and stores: in place, or
 * `scratch`. */
static inline float *gidd_elements_out(void *base, int64_t first, gidd_dtype dtype, float *scratch)
{
    return dtype == GIDD_F32 ? (float *)base + first : scratch;
}

static inline void gidd_elements_store(void *base, int64_t first, int64_t count, gidd_dtype dtype,
                                       const float *values)
{
    if (dtype == GIDD_BF16) {
        gidd_bf16_write((uint16_t *)base + first, values, count);
    }
}

/* The largest of `start` and the values; NaN is passed over. In lanes, because a compiler may not
 * turn "the larger of two" into a vector reduction where NaN has a meaning. */
static inline float gidd_largest(const float *values, int64_t count, float start)
{
    enum { LANES = 32 };
    float   lanes[LANES];
    int64_t whole = count / LANES * LANES;
    for (int i = 0; i < LANES; i++) {
        lanes[i] = start;
    }
    for (int64_t first = 0; first < whole; first += LANES) {
        for (int i = 0; i < LANES; i++) {
            lanes[i] = values[first + i] > lanes[i] ? values[first + i] : lanes[i];
        }
    }
    for (int64_t i = whole; i < count; i++) {
        lanes[i - whole] = values[i] > lanes[i - whole] ? values[i] : lanes[i - whole];
    }
    for (int i = 0; i < LANES; i++) {
        start = lanes[i] > start ? lanes[i] : start;
    }
    return start;
}

/* exps_j = e^(values_j - largest) of `count` values; returns their sum, taken in fp32 over blocks of 512
 * and in double over those. `exps` may be `values`. */
static inline double gidd_exp_sum(float *exps, const float *values, int64_t count, float largest)
{
    const int64_t block = 512;
    double        total = 0.0;
    for (int64_t first = 0; first < count; first += block) {
        int64_t end = count - first < block ? count : first + block;
        float   sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = first; j < end; j++) {
            exps[j] = gidd_expf(values[j] - largest);
            sum += exps[j];
        }
        total += (double)sum;
    }
    return total;
}

/* Rounds floats to E where they stand. */
static inline void gidd_elements_round(float *values, int64_t count, gidd_dtype dtype)
{
    if (dtype == GIDD_BF16) {
        for (int64_t i = 0; i < count; i++) {
            values[i] = gidd_bf16_to_float(gidd_bf16_from_float(values[i]));
        }
    }
}

/* Rows row.. of dy W in fp32, before GELU's gradient: for emu's linear_bwd_data too. Local. */
gidd_gemm_args gidd_linear_bwd_data_rows(const gidd_linear_bwd_data_args *args, int64_t row,
                                         int64_t rows, float *product);

#endif
