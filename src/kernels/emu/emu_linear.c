/* SPDX-License-Identifier: Apache-2.0
 *
 * Linear layers of the emu device: the products are the CPU's, the passes around them are those of
 * the CUDA device (linear_passes_cuda.cu), put together as linear_cuda.c does where no epilogue
 * fits.
 */
#include "kernels/cpu.h"
#include "kernels/kernels_cuda.h"

gidd_status gidd_linear_fwd_emu(gidd_device *device, const gidd_linear_fwd_args *args)
{
    if (args->epilogue != GIDD_LINEAR_BIAS_GELU || args->y == NULL) {
        return gidd_linear_fwd_cpu(device, args);
    }
    gidd_linear_fwd_args product = *args;
    product.y = args->pre != NULL ? args->pre : args->y;
    product.pre = NULL;
    product.epilogue = GIDD_LINEAR_BIAS;
    GIDD_TRY(gidd_linear_fwd_cpu(device, &product));
    return args->M == 0
               ? GIDD_OK
               : gidd_gelu_pass_emu(device, args->y, product.y, args->M * args->N, args->dtype);
}

// dx = E((dy W) * GELU'(pre)) by rows: as many as the workspace holds in fp32.
static gidd_status bwd_data_dgelu(gidd_device *device, const gidd_linear_bwd_data_args *args)
{
    const gidd_cpu *cpu = device->impl;
    size_t element = gidd_dtype_bytes(args->dtype);
    int64_t most = (int64_t)(device->workspace_bytes / sizeof(float)) / args->K;
    if (most < 1) {
        return gidd_fail(GIDD_ERR_ARG, "linear_bwd_data: no workspace for a row of %lld",
                         (long long)args->K);
    }
    for (int64_t row = 0; row < args->M; row += most) {
        int64_t rows = args->M - row < most ? args->M - row : most;
        size_t at = (size_t)(row * args->K) * element;
        gidd_gemm_args product = gidd_linear_bwd_data_rows(args, row, rows, device->workspace);
        GIDD_TRY(gidd_gemm_run(cpu->gemm, &product));
        GIDD_TRY(gidd_dgelu_pass_emu(device, (char *)args->dx + at, device->workspace,
                                     (const char *)args->pre + at, rows * args->K, args->dtype));
    }
    return GIDD_OK;
}

gidd_status gidd_linear_bwd_data_emu(gidd_device *device, const gidd_linear_bwd_data_args *args)
{
    int complete =
        args->dx != NULL && args->dy != NULL && args->w != NULL && args->N > 0 && args->K > 0;
    if (args->pre != NULL && complete) {
        return bwd_data_dgelu(device, args);
    }
    return gidd_linear_bwd_data_cpu(device, args);
}

gidd_status gidd_linear_bwd_weight_emu(gidd_device *device, const gidd_linear_bwd_weight_args *args)
{
    gidd_linear_bwd_weight_args product = *args;
    product.dbias = NULL;
    GIDD_TRY(gidd_linear_bwd_weight_cpu(device, &product)); // checks the arguments
    return args->dbias != NULL ? gidd_column_sum_emu(device, args) : GIDD_OK;
}
