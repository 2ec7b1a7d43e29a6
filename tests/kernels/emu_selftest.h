/* SPDX-License-Identifier: Apache-2.0
 *
 * Launchers of the kernels that test the emulation itself.
 */
#ifndef GIDD_TESTS_KERNELS_EMU_SELFTEST_H
#define GIDD_TESTS_KERNELS_EMU_SELFTEST_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Mistakes that must end the process. */
enum {
    SELFTEST_HALF_AT_BARRIER,
    SELFTEST_BARRIER_AGAINST_SHUFFLE,
    SELFTEST_OTHER_OPERATION,
    SELFTEST_LANE_ENDED,
    SELFTEST_LANE_NOT_IN_MASK,
    SELFTEST_SHARED_OVERFLOW,
    SELFTEST_LDMATRIX_MISALIGNED,
    SELFTEST_MISTAKES,
};

enum { SELFTEST_WARP_COLUMNS = 10 };

typedef struct selftest_args {
    void *out;
    const void *a, *b;
    int rounds, kind;
} selftest_args;

gidd_status selftest_ring(gidd_device *device, const selftest_args *args);
gidd_status selftest_votes(gidd_device *device, const selftest_args *args);
gidd_status selftest_divergent(gidd_device *device, const selftest_args *args);
gidd_status selftest_poison(gidd_device *device, const selftest_args *args);
gidd_status selftest_warp(gidd_device *device, const selftest_args *args);
gidd_status selftest_mma(gidd_device *device, const selftest_args *args);
gidd_status selftest_copy(gidd_device *device, const selftest_args *args);
gidd_status selftest_prefetch(gidd_device *device, const selftest_args *args);

/* emu_watch_selftest.cu */
gidd_status selftest_neighbour(gidd_device *device, const selftest_args *args);

#ifdef __cplusplus
}
#endif
#endif
