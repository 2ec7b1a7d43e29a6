/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the time of a step goes: a table of kernels that stands in front of a device's own, passes
 * every call on and counts calls, nanoseconds and floating-point operations by slot.
 *
 * On a device that works asynchronously each call is waited for, so that a slot's time is its own;
 * the step as a whole is then slower than without a profile. The linear slots are counted twice
 * over: the output matrix (the head) apart from all the others.
 */
#ifndef GIDD_TOOLS_BENCH_PROFILE_H
#define GIDD_TOOLS_BENCH_PROFILE_H

#include "kernels/kernels.h"

#include <stdint.h>

#define GIDD_BENCH_SLOT_ENUM(slot, arguments) GIDD_BENCH_SLOT_##slot,
typedef enum gidd_bench_slot {
    GIDD_KERNEL_SLOTS(GIDD_BENCH_SLOT_ENUM) GIDD_BENCH_SLOT_COUNT
} gidd_bench_slot;
#undef GIDD_BENCH_SLOT_ENUM

/* Part 2 s is slot s, part 2 s + 1 slot s on the head's matrix. */
enum { GIDD_BENCH_PARTS = 2 * GIDD_BENCH_SLOT_COUNT };

typedef struct gidd_bench_count {
    int64_t calls, ns;
    double flops; /* of matrix products and attention; backward of attention as twice its forward */
} gidd_bench_count;

typedef struct gidd_bench_profile gidd_bench_profile;

/* Puts the profile's table in front of the device's; a matrix with `head_columns` rows of output is
 * the head's. GIDD_ERR_NOMEM. Local. */
gidd_status gidd_bench_profile_attach(gidd_device *device, int64_t head_columns,
                                      gidd_bench_profile **profile_p);

/* Gives the device its own table back and frees; NULL-safe. Local. */
void gidd_bench_profile_detach(gidd_bench_profile *profile);

/* The counts since the last reset, [GIDD_BENCH_PARTS]; borrowed. Local. */
const gidd_bench_count *gidd_bench_profile_counts(const gidd_bench_profile *profile);
void gidd_bench_profile_reset(gidd_bench_profile *profile);

/* Name of a part: "linear_fwd, head". Local. */
void gidd_bench_profile_name(int part, char name[64]);

#endif
