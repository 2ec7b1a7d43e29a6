/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/device_cuda.h"

static __global__ void probe_kernel()
{
}

cudaError_t gidd_cuda_probe(void)
{
    cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, reinterpret_cast<const void *>(probe_kernel));
}
