/* SPDX-License-Identifier: Apache-2.0
 *
 * Private to the cuda device's host sources: its state, errors of the runtime, matrix products.
 */
#ifndef GIDD_KERNELS_DEVICE_CUDA_H
#define GIDD_KERNELS_DEVICE_CUDA_H

#include "kernels/blas_cuda.h"
#include "kernels/kernels_cuda.h"

#include <cuda_runtime_api.h>

/* Workspace offered to cuBLASLt; 32 MiB is what its Hopper kernels want. */
enum { GIDD_CUDA_GEMM_WORKSPACE = 32 << 20 };

typedef struct gidd_gemm_cache_cuda gidd_gemm_cache_cuda;

/* device->impl */
typedef struct gidd_cuda {
    gidd_launch_target target;
    int index;
    cudaStream_t stream;      // MAIN
    cudaStream_t copy_stream; // COPY
    cudaStream_t comm_stream; // COMM
    struct cudaDeviceProp properties;
    gidd_blas_cuda blas;
    gidd_gemm_cache_cuda *gemms;
} gidd_cuda;

static inline gidd_cuda *gidd_cuda_of(const gidd_device *device)
{
    return (gidd_cuda *)device->impl;
}

extern const struct gidd_backend_streams gidd_streams_cuda; /* stream_cuda.c */

/* GIDD_OK, or GIDD_ERR_DEVICE with CUDA's words for what `call` met. Local. */
gidd_status gidd_cuda_check(cudaError_t error, const char *call);
#define GIDD_CUDA_TRY(call) GIDD_TRY(gidd_cuda_check((call), #call))

/* The products of the linear slots: one plan a shape, found at its first use and kept. `blas` is
 * borrowed. Local. */
gidd_status gidd_gemm_cache_create_cuda(const gidd_blas_cuda *blas, gidd_gemm_cache_cuda **cache_p);
void gidd_gemm_cache_destroy_cuda(gidd_gemm_cache_cuda *cache);

/* Bytes of workspace of the linear slots: cuBLASLt's and, behind it, that of a pass. Local. */
size_t gidd_linear_workspace_cuda(const gidd_device_limits *limits);

/* Whether this build has code for the device: CUDA's word for it otherwise (probe_cuda.cu). Local.
 */
#ifdef __cplusplus
extern "C"
#endif
    cudaError_t
    gidd_cuda_probe(void);

/* Algorithms of the products (device.h). The key holds shape, types, epilogue, alignment and cuBLASLt's version; the
 * algorithm is cublasLtMatmulAlgo_t. Local. */
gidd_status gidd_gemm_tune_cuda(gidd_device *device);
int64_t gidd_gemm_choices_cuda(const gidd_device *device, gidd_gemm_choice *choices, int64_t most);
gidd_status gidd_gemm_adopt_cuda(gidd_device *device, const gidd_gemm_choice *choices, int64_t count);

#endif
