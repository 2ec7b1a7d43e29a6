/* SPDX-License-Identifier: Apache-2.0
 *
 * cuBLASLt, loaded when a cuda device is opened: the library is several hundred MB, and the
 * programs must start on machines that have neither it nor a GPU.
 */
#ifndef GIDD_KERNELS_BLAS_CUDA_H
#define GIDD_KERNELS_BLAS_CUDA_H

#include "base/status.h"

#include <cublasLt.h>

/* X(member, function of cuBLASLt) */
#define GIDD_BLAS_FUNCTIONS(X)                                                                     \
    X(create, cublasLtCreate)                                                                      \
    X(destroy, cublasLtDestroy)                                                                    \
    X(version, cublasLtGetVersion)                                                                 \
    X(status_text, cublasLtGetStatusString)                                                        \
    X(desc_create, cublasLtMatmulDescCreate)                                                       \
    X(desc_destroy, cublasLtMatmulDescDestroy)                                                     \
    X(desc_set, cublasLtMatmulDescSetAttribute)                                                    \
    X(layout_create, cublasLtMatrixLayoutCreate)                                                   \
    X(layout_destroy, cublasLtMatrixLayoutDestroy)                                                 \
    X(preference_create, cublasLtMatmulPreferenceCreate)                                           \
    X(preference_destroy, cublasLtMatmulPreferenceDestroy)                                         \
    X(preference_set, cublasLtMatmulPreferenceSetAttribute)                                        \
    X(heuristic, cublasLtMatmulAlgoGetHeuristic)                                                   \
    X(matmul, cublasLtMatmul)

typedef struct gidd_blas_cuda {
    void *library;
    cublasLtHandle_t handle;
#define GIDD_BLAS_MEMBER(member, function) __typeof__(function) *member;
    GIDD_BLAS_FUNCTIONS(GIDD_BLAS_MEMBER)
#undef GIDD_BLAS_MEMBER
} gidd_blas_cuda;

/* Loads the library and creates a handle. GIDD_ERR_DEVICE says what is missing; release() undoes
 * what was done, also after a failure. Local. */
gidd_status gidd_blas_init_cuda(gidd_blas_cuda *blas);
void gidd_blas_release_cuda(gidd_blas_cuda *blas);

#endif
