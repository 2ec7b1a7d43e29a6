/* SPDX-License-Identifier: Apache-2.0
 *
 * The emu device: the CUDA sources on the host, in host memory. The products of its linear layers
 * are the CPU's (cuBLASLt cannot be emulated), so its impl begins as the CPU's does.
 */
#include "kernels/backend.h"
#include "kernels/cpu.h"
#include "kernels/emu/emu_block.h"
#include "kernels/kernels_cuda.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct gidd_emu {
    gidd_cpu cpu; // first: the CPU's linear launchers look for it in device->impl
    gidd_launch_target target;
} gidd_emu;

#define GIDD_EMU_SLOT(slot, arguments) .slot = gidd_##slot##_emu,
static const gidd_kernels kernels_emu = {.device = "emu", GIDD_KERNEL_SLOTS(GIDD_EMU_SLOT)};
#undef GIDD_EMU_SLOT

const gidd_launch_target *gidd_launch_target_emu(const gidd_device *device)
{
    return &((const gidd_emu *)device->impl)->target;
}

void gidd_emu_set_shared_bytes(gidd_device *device, size_t bytes)
{
    ((gidd_emu *)device->impl)->target.shared_bytes = bytes;
}

static gidd_status open_emu(gidd_device *device, int index)
{
    if (index != 0) {
        return gidd_fail(GIDD_ERR_DEVICE, "no device \"emu:%d\": there is one emu device", index);
    }
    gidd_emu *emu = calloc(1, sizeof *emu);
    if (emu == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the emu device");
    }
    gidd_status status = gidd_gemm_create(device, &emu->cpu.gemm);
    if (status != GIDD_OK) {
        free(emu);
        return status;
    }
    status = gidd_late_copies_create(device);
    if (status != GIDD_OK) {
        gidd_gemm_destroy(emu->cpu.gemm);
        free(emu);
        return status;
    }
    emu->target = (gidd_launch_target){.processors = 4, .shared_bytes = GIDD_EMU_SHARED_BYTES};
    device->kernels = &kernels_emu;
    device->impl = emu;
    return GIDD_OK;
}

static void close_emu(gidd_device *device)
{
    gidd_emu *emu = device->impl;
    gidd_late_copies_destroy(device);
    gidd_gemm_destroy(emu->cpu.gemm);
    free(emu);
}

// Fresh memory is full of NaN: a kernel that reads what nobody wrote is seen.
static void alloc_emu(gidd_device *device, size_t bytes, void **memory_p)
{
    gidd_host_alloc(device, bytes, memory_p);
    if (*memory_p != NULL) {
        memset(*memory_p, 0xff, bytes);
    }
}

static gidd_status synchronize_emu(gidd_device *device)
{
    gidd_late_copies_finish(device);
    return GIDD_OK;
}

static size_t workspace_emu(const gidd_device *device, const gidd_device_limits *limits)
{
    size_t largest = gidd_backend_cpu.workspace_bytes(device, limits); // for the linear layers
#define GIDD_EMU_WORKSPACE(operation)                                                              \
    {                                                                                              \
        size_t bytes = gidd_##operation##_workspace_emu(limits);                                   \
        largest = bytes > largest ? bytes : largest;                                               \
    }
    GIDD_CUDA_WORKSPACES(GIDD_EMU_WORKSPACE)
#undef GIDD_EMU_WORKSPACE
    return largest;
}

static void describe_emu(const gidd_device *device, char *text, size_t size)
{
    char cpu[160];
    gidd_backend_cpu.describe(device, cpu, sizeof cpu);
    (void)snprintf(text, size, "emu on %s", cpu);
}

const gidd_backend gidd_backend_emu = {
    .name = "emu",
    .open = open_emu,
    .close = close_emu,
    .alloc = alloc_emu,
    .free = gidd_host_free,
    .copy_in = gidd_host_copy,
    .copy_out = gidd_host_copy,
    .copy = gidd_host_copy,
    .zero = gidd_host_zero,
    .synchronize = synchronize_emu,
    .workspace_bytes = workspace_emu,
    .describe = describe_emu,
};
