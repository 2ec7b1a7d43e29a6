/* SPDX-License-Identifier: Apache-2.0
 *
 * A fence that is missing beside a shuffle ends the process, in any order of threads.
 */
#include "kernels/emu_selftest.h"
#include "kernels/harness.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>

static void run(int without_fence, const char *seed)
{
    static int   out[64];
    gidd_device *device = NULL;
    cr_assert_eq(setenv("GIDD_EMU_SEED", seed, 1), 0);
    CHECK_OK(gidd_device_open(&(gidd_device_args){.name = "emu", .dtype = GIDD_F32, .threads = 1}, &device));
    CHECK_OK(selftest_neighbour(device, &(selftest_args){.out = out, .kind = without_fence}));
    for (int t = 0; t < 64; t++) {
        cr_assert_eq(out[t], 3 * (t / 32 * 32 + (t + 1) % 32) + 32);
    }
    gidd_device_close(device);
}

Test(emu_watch, a_fence_is_enough)
{
    run(0, "0");
    run(0, "7");
}

Test(emu_watch, a_shuffle_is_not, .signal = SIGABRT)
{
    run(1, "0");
}

Test(emu_watch, a_shuffle_is_not_in_random_order, .signal = SIGABRT)
{
    run(1, "7");
}
