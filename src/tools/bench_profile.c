/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/bench_profile.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The table is the first member: a launcher finds the rest through device->kernels.
struct gidd_bench_profile {
    gidd_kernels table;
    const gidd_kernels *own; /* the device's */
    gidd_device *device;
    int64_t head_columns;
    gidd_bench_count *counts; /* [GIDD_BENCH_PARTS] owned */
};

/* ---- Operations by arguments ----------------------------------------------------------------- */

static double linear_fwd_flops(const gidd_linear_fwd_args *a)
{
    return 2.0 * (double)a->M * (double)a->N * (double)a->K;
}

static double linear_bwd_data_flops(const gidd_linear_bwd_data_args *a)
{
    return 2.0 * (double)a->M * (double)a->N * (double)a->K;
}

static double linear_bwd_weight_flops(const gidd_linear_bwd_weight_args *a)
{
    return 2.0 * (double)a->M * (double)a->N * (double)a->K;
}

static double attention_fwd_flops(const gidd_attention_fwd_args *a)
{
    return 4.0 * (double)a->B * (double)a->H * (double)a->T * (double)a->T * (double)a->d;
}

static double attention_bwd_flops(const gidd_attention_bwd_args *a)
{
    return 8.0 * (double)a->B * (double)a->H * (double)a->T * (double)a->T * (double)a->d;
}

static double no_flops(const void *arguments)
{
    (void)arguments;
    return 0.0;
}

#define FLOPS_OF(arguments)                                                                        \
    _Generic((arguments), const gidd_linear_fwd_args *: linear_fwd_flops,                          \
        const gidd_linear_bwd_data_args *: linear_bwd_data_flops,                                  \
        const gidd_linear_bwd_weight_args *: linear_bwd_weight_flops,                              \
        const gidd_attention_fwd_args *: attention_fwd_flops,                                      \
        const gidd_attention_bwd_args *: attention_bwd_flops, default: no_flops)(arguments)

static int64_t linear_fwd_columns(const gidd_linear_fwd_args *a)
{
    return a->N;
}

static int64_t linear_bwd_data_columns(const gidd_linear_bwd_data_args *a)
{
    return a->N;
}

static int64_t linear_bwd_weight_columns(const gidd_linear_bwd_weight_args *a)
{
    return a->N;
}

static int64_t no_columns(const void *arguments)
{
    (void)arguments;
    return -1;
}

#define COLUMNS_OF(arguments)                                                                      \
    _Generic((arguments), const gidd_linear_fwd_args *: linear_fwd_columns,                        \
        const gidd_linear_bwd_data_args *: linear_bwd_data_columns,                                \
        const gidd_linear_bwd_weight_args *: linear_bwd_weight_columns,                            \
        default: no_columns)(arguments)

/* ---- Launchers ------------------------------------------------------------------------------- */

static const gidd_bench_profile *profile_of(const gidd_device *device)
{
    return (const gidd_bench_profile *)(const void *)device->kernels;
}

static void count_call(const gidd_bench_profile *profile, int part, int64_t start_ns, double flops)
{
    gidd_bench_count *count = &profile->counts[part];
    count->calls++;
    count->ns += gidd_clock_ns() - start_ns;
    count->flops += flops;
}

#define TIMED_SLOT(slot, arguments)                                                                \
    static gidd_status timed_##slot(gidd_device *device, const gidd_##arguments##_args *args)      \
    {                                                                                              \
        const gidd_bench_profile *profile = profile_of(device);                                    \
        int part = 2 * GIDD_BENCH_SLOT_##slot + (COLUMNS_OF(args) == profile->head_columns);       \
        int64_t start_ns = gidd_clock_ns();                                                        \
        GIDD_TRY(profile->own->slot(device, args));                                                \
        GIDD_TRY(gidd_device_synchronize(device));                                                 \
        count_call(profile, part, start_ns, FLOPS_OF(args));                                       \
        return GIDD_OK;                                                                            \
    }
GIDD_KERNEL_SLOTS(TIMED_SLOT)
#undef TIMED_SLOT

#define TIMED_ENTRY(slot, arguments) .slot = timed_##slot,
static const gidd_kernels timed_table = {.device = "profile", GIDD_KERNEL_SLOTS(TIMED_ENTRY)};
#undef TIMED_ENTRY

/* ---- Life ------------------------------------------------------------------------------------ */

gidd_status gidd_bench_profile_attach(gidd_device *device, int64_t head_columns,
                                      gidd_bench_profile **profile_p)
{
    gidd_bench_profile *profile = calloc(1, sizeof *profile);
    gidd_bench_count *counts = calloc(GIDD_BENCH_PARTS, sizeof *counts);
    if (profile == NULL || counts == NULL) {
        free(profile);
        free(counts);
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a profile");
    }
    *profile = (gidd_bench_profile){.table = timed_table,
                                    .own = device->kernels,
                                    .device = device,
                                    .head_columns = head_columns,
                                    .counts = counts};
    profile->table.device = device->kernels->device;
    device->kernels = &profile->table;
    *profile_p = profile;
    return GIDD_OK;
}

void gidd_bench_profile_detach(gidd_bench_profile *profile)
{
    if (profile != NULL) {
        profile->device->kernels = profile->own;
        free(profile->counts);
        free(profile);
    }
}

const gidd_bench_count *gidd_bench_profile_counts(const gidd_bench_profile *profile)
{
    return profile->counts;
}

void gidd_bench_profile_reset(gidd_bench_profile *profile)
{
    memset(profile->counts, 0, GIDD_BENCH_PARTS * sizeof *profile->counts);
}

void gidd_bench_profile_name(int part, char name[64])
{
#define SLOT_NAME(slot, arguments) #slot,
    static const char *const names[] = {GIDD_KERNEL_SLOTS(SLOT_NAME)};
#undef SLOT_NAME
    (void)snprintf(name, 64, "%s%s", names[part / 2], part % 2 == 1 ? ", head" : "");
}
