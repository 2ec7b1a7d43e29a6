/* SPDX-License-Identifier: Apache-2.0
 *
 * The CPU device: its table of kernels and its back-end.
 */
#include "kernels/backend.h"
#include "kernels/cpu.h"

#include <stdio.h>
#include <stdlib.h>

#define GIDD_CPU_SLOT(slot, arguments) .slot = gidd_##slot##_cpu,
static const gidd_kernels kernels_cpu = {.device = "cpu", GIDD_KERNEL_SLOTS(GIDD_CPU_SLOT)};
#undef GIDD_CPU_SLOT

static gidd_status open_cpu(gidd_device *device, int index)
{
    if (index != 0) {
        return gidd_fail(GIDD_ERR_DEVICE, "no device \"cpu:%d\": there is one cpu device", index);
    }
    gidd_cpu *cpu = calloc(1, sizeof *cpu);
    if (cpu == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the cpu device");
    }
    gidd_status status = gidd_gemm_create(device, &cpu->gemm);
    if (status != GIDD_OK) {
        free(cpu);
        return status;
    }
    device->kernels = &kernels_cpu;
    device->impl = cpu;
    return GIDD_OK;
}

static void close_cpu(gidd_device *device)
{
    gidd_cpu *cpu = device->impl;
    gidd_gemm_destroy(cpu->gemm);
    free(cpu);
}

static size_t workspace_cpu(const gidd_device *device, const gidd_device_limits *limits)
{
    int64_t d = limits->H > 0 ? limits->D / limits->H : 0;
    int     threads = device->threads;
    size_t  needs[] = {
         gidd_linear_workspace_cpu(limits->B * limits->T > limits->head_rows ? limits->B * limits->T
                                                                             : limits->head_rows,
                                   4 * limits->D),
         gidd_norm_mod_workspace_cpu(limits->B, limits->T, limits->D, threads),
         gidd_rms_norm_workspace_cpu(limits->B * limits->T, limits->D, threads),
         gidd_time_cond_workspace_cpu(limits->B, limits->C),
         gidd_embed_workspace_cpu(limits->D, threads),
         gidd_attention_workspace_cpu(limits->T, d, threads),
         gidd_attention_step_workspace_cpu(limits->T, threads),
         gidd_loss_workspace_cpu(limits->Vr, threads),
         gidd_sample_workspace_cpu(limits->Vr, threads),
    };
    size_t largest = 0;
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++) {
        largest = needs[i] > largest ? needs[i] : largest;
    }
    return largest;
}

static void describe_cpu(const gidd_device *device, char *text, size_t size)
{
    const gidd_cpu *cpu = device->impl;
    char            library[96];
    gidd_gemm_describe(cpu->gemm, library, sizeof library);
    (void)snprintf(text, size, "cpu %s, %d thread%s, %s",
                   device->dtype == GIDD_BF16 ? "bf16" : "fp32", device->threads,
                   device->threads == 1 ? "" : "s", library);
}

const gidd_backend gidd_backend_cpu = {
    .name = "cpu",
    .open = open_cpu,
    .close = close_cpu,
    .alloc = gidd_host_alloc,
    .free = gidd_host_free,
    .copy_in = gidd_host_copy,
    .copy_out = gidd_host_copy,
    .copy = gidd_host_copy,
    .zero = gidd_host_zero,
    .synchronize = gidd_host_synchronize,
    .workspace_bytes = workspace_cpu,
    .describe = describe_cpu,
};
