/* SPDX-License-Identifier: Apache-2.0
 *
 * Matrix products of the CPU device: C (+)= A B (+ bias), sums in fp32, through oneDNN. The only
 * file of the project that knows oneDNN, 2.x and 3.x. One primitive a shape, built at its first use
 * (counted in the device's allocation_count) and kept; nothing is allocated afterwards.
 */
#ifndef GIDD_KERNELS_GEMM_ONEDNN_H
#define GIDD_KERNELS_GEMM_ONEDNN_H

#include "kernels/device.h"

typedef struct gidd_gemm gidd_gemm;

typedef enum gidd_gemm_order {
    GIDD_ROWS = 0,    /* stored as written: rows of the product's matrix are contiguous */
    GIDD_COLUMNS = 1, /* stored transposed                                             */
} gidd_gemm_order;

/* C [m][n] = A [m][k] * B [k][n]. lda, ldb, ldc: elements from one stored row to the next. */
typedef struct gidd_gemm_args {
    void           *c;     /* type `out`; rows contiguous                    */
    const void     *a, *b; /* type `in`                                     */
    const void     *bias;  /* [n] of type `in`, added to each row; or NULL   */
    int64_t         m, n, k;
    int64_t         lda, ldb, ldc;
    gidd_gemm_order a_order, b_order;
    gidd_dtype      in, out;
    int             accumulate; /* 0: write C, 1: add to it; then no bias    */
} gidd_gemm_args;

/* An empty cache whose memory is the device's. *gemm_p is owned by the caller. Local. */
gidd_status gidd_gemm_create(gidd_device *device, gidd_gemm **gemm_p);
void        gidd_gemm_destroy(gidd_gemm *gemm);

/* Runs one product with the device's threads. GIDD_ERR_UNSUPPORTED: oneDNN has no kernel for these
 * types on this CPU. Local. */
gidd_status gidd_gemm_run(gidd_gemm *gemm, const gidd_gemm_args *args);

/* "avx512_core_bf16, onednn 2.6.3". Local. */
void gidd_gemm_describe(const gidd_gemm *gemm, char *text, size_t size);

#endif
