/* SPDX-License-Identifier: Apache-2.0
 *
 * Private to the devices made from the CUDA sources: cuda (compiled by nvcc) and emu (the same text
 * compiled for the host). Names end in _cuda and _emu, so that one binary holds both. Local.
 */
#ifndef GIDD_KERNELS_KERNELS_CUDA_H
#define GIDD_KERNELS_KERNELS_CUDA_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a launcher knows of its device beyond gidd_device. */
typedef struct gidd_launch_target {
    void *stream;   /* cudaStream_t; NULL on emu                                              */
    int processors; /* multiprocessors: for kernels that size their grid by the machine       */
    size_t shared_bytes; /* largest shared memory of one block, dynamic and static (opt-in) */
} gidd_launch_target;

const gidd_launch_target *gidd_launch_target_cuda(const gidd_device *device);
const gidd_launch_target *gidd_launch_target_emu(const gidd_device *device);

/* Lets a test run the variants that kernels keep for devices with less shared memory. emu only. */
void gidd_emu_set_shared_bytes(gidd_device *device, size_t bytes);

#define GIDD_CUDA_LAUNCHER(slot, arguments)                                                        \
    gidd_status gidd_##slot##_cuda(gidd_device *device, const gidd_##arguments##_args *args);      \
    gidd_status gidd_##slot##_emu(gidd_device *device, const gidd_##arguments##_args *args);
GIDD_KERNEL_SLOTS(GIDD_CUDA_LAUNCHER)
#undef GIDD_CUDA_LAUNCHER

/* X(operation): size_t gidd_<operation>_workspace_<device>(const gidd_device_limits *): bytes that
 * the operation's launchers need within the limits. The workspace starts afresh with each launcher.
 */
#define GIDD_CUDA_WORKSPACES(X)                                                                    \
    X(embed)                                                                                       \
    X(time_cond)                                                                                   \
    X(norm_mod)                                                                                    \
    X(rms_norm)                                                                                    \
    X(attention)                                                                                   \
    X(loss)                                                                                        \
    X(loss_sums)                                                                                   \
    X(update)                                                                                      \
    X(sample)                                                                                      \
    X(linear_passes)

#define GIDD_CUDA_WORKSPACE(operation)                                                             \
    size_t gidd_##operation##_workspace_cuda(const gidd_device_limits *limits);                    \
    size_t gidd_##operation##_workspace_emu(const gidd_device_limits *limits);
GIDD_CUDA_WORKSPACES(GIDD_CUDA_WORKSPACE)
#undef GIDD_CUDA_WORKSPACE

/* Passes around the products of the linear slots, over `count` numbers of type dtype:
 *   gelu_pass:   y = E(GELU(pre)); y may be pre.
 *   dgelu_pass:  dx = E(product * GELU'(pre)); dx may be product.
 *   column_sum:  dbias (+)= column sums of dy; needs column_sum_bytes(M, N) of workspace.
 * Sums in one fixed order. */
#define GIDD_CUDA_LINEAR_PASSES(device_name)                                                       \
    gidd_status gidd_gelu_pass_##device_name(gidd_device *device, void *y, const void *pre,        \
                                             int64_t count, gidd_dtype dtype);                     \
    gidd_status gidd_dgelu_pass_##device_name(gidd_device *device, void *dx, const float *product, \
                                              const void *pre, int64_t count, gidd_dtype dtype);   \
    gidd_status gidd_column_sum_##device_name(gidd_device *device,                                 \
                                              const gidd_linear_bwd_weight_args *args);            \
    size_t gidd_column_sum_bytes_##device_name(int64_t M, int64_t N);
GIDD_CUDA_LINEAR_PASSES(cuda)
GIDD_CUDA_LINEAR_PASSES(emu)
#undef GIDD_CUDA_LINEAR_PASSES

#ifdef __cplusplus
}
#endif
#endif
