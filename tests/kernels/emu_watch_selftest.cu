/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernel that tests emu_watch.c (test_emu_watch.c).
 */
#include "kernels/emu_selftest.h"

#include "kernels/launch.cuh"

// Each lane reads what its right neighbour wrote. They have met in a shuffle; only __syncwarp is a fence.
static __global__ void neighbour_kernel(int *out, bool with_fence)
{
    __shared__ int value[2 * WARP];
    int t = static_cast<int>(threadIdx.x), first = t / WARP * WARP;
    value[t] = 3 * t;
    int sum = warp_sum(1);
    if (with_fence) {
        __syncwarp();
    }
    out[t] = value[first + (t + 1) % WARP] + sum;
}

extern "C" gidd_status selftest_neighbour(gidd_device *device, const selftest_args *args)
{
    return launch(device, "neighbour", neighbour_kernel, 1, 2 * WARP, 0, static_cast<int *>(args->out),
                  args->kind == 0);
}
