/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/bench_profile.h"

#include "kernels/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct timed_call {
    gidd_event *start, *end; /* owned; kept from one reset to the next */
    int part;
} timed_call;

// The table is the first member: a launcher finds the rest through device->kernels.
struct gidd_bench_profile {
    gidd_kernels table;
    const gidd_kernels *own; /* the device's */
    gidd_device *device;
    const gidd_model_shape *shape;
    timed_call *calls; /* [capacity] owned; `count` of them since the last reset, the others' events await use */
    int64_t count, capacity;
    gidd_bench_count counts[GIDD_BENCH_PARTS];
};

/* ---- Matrices by arguments ------------------------------------------------------------------- */

// The head's and the modulations' first: their rows are as many as no other matrix has.
static gidd_bench_matrix matrix_of(const gidd_model_shape *shape, int64_t N, int64_t K)
{
    if (N == shape->Vr) {
        return GIDD_BENCH_HEAD;
    }
    if (shape->type != GIDD_MODEL_AUTOREGRESSIVE && K == shape->C && N == 6 * shape->D * shape->L + 2 * shape->D) {
        return GIDD_BENCH_MODS;
    }
    if (N == shape->D) {
        return K == shape->D ? GIDD_BENCH_ATTN_OUT : GIDD_BENCH_MLP_OUT;
    }
    return N == 3 * shape->D ? GIDD_BENCH_QKV : GIDD_BENCH_MLP_IN;
}

static gidd_bench_matrix linear_fwd_matrix(const gidd_model_shape *shape, const gidd_linear_fwd_args *a)
{
    return matrix_of(shape, a->N, a->K);
}

static gidd_bench_matrix linear_bwd_data_matrix(const gidd_model_shape *shape, const gidd_linear_bwd_data_args *a)
{
    return matrix_of(shape, a->N, a->K);
}

static gidd_bench_matrix linear_bwd_weight_matrix(const gidd_model_shape *shape, const gidd_linear_bwd_weight_args *a)
{
    return matrix_of(shape, a->N, a->K);
}

static gidd_bench_matrix no_matrix(const gidd_model_shape *shape, const void *arguments)
{
    (void)shape;
    (void)arguments;
    return GIDD_BENCH_NO_MATRIX;
}

#define MATRIX_OF(shape, arguments)                                                                \
    _Generic((arguments), const gidd_linear_fwd_args *: linear_fwd_matrix,                         \
        const gidd_linear_bwd_data_args *: linear_bwd_data_matrix,                                 \
        const gidd_linear_bwd_weight_args *: linear_bwd_weight_matrix, default: no_matrix)((shape), (arguments))

/* ---- Calls ----------------------------------------------------------------------------------- */

static gidd_bench_profile *profile_of(const gidd_device *device)
{
    return (gidd_bench_profile *)(uintptr_t)(const void *)device->kernels; // the table is ours to change
}

static gidd_status add_events(gidd_bench_profile *profile)
{
    timed_call *call = &profile->calls[profile->count];
    if (call->end != NULL) {
        return GIDD_OK;
    }
    if (call->start == NULL) {
        GIDD_TRY(gidd_event_create_timed(profile->device, &call->start));
    }
    return gidd_event_create_timed(profile->device, &call->end);
}

static gidd_status begin_call(gidd_bench_profile *profile, timed_call **call_p)
{
    if (profile->count == profile->capacity) {
        int64_t capacity = 2 * profile->capacity + 256;
        timed_call *calls = realloc(profile->calls, (size_t)capacity * sizeof *calls);
        if (calls == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for a profile of %lld calls", (long long)capacity);
        }
        memset(calls + profile->capacity, 0, (size_t)(capacity - profile->capacity) * sizeof *calls);
        profile->calls = calls;
        profile->capacity = capacity;
    }
    GIDD_TRY(add_events(profile));
    *call_p = &profile->calls[profile->count++];
    return gidd_event_record(profile->device, (*call_p)->start, GIDD_STREAM_MAIN);
}

static void count_call(gidd_bench_profile *profile, const timed_call *call, gidd_bench_work work)
{
    gidd_bench_count *count = &profile->counts[call->part];
    count->calls++;
    count->work.flops += work.flops;
    count->work.bytes += work.bytes;
}

#define TIMED_SLOT(slot, arguments)                                                                \
    static gidd_status timed_##slot(gidd_device *device, const gidd_##arguments##_args *args)      \
    {                                                                                              \
        gidd_bench_profile *profile = profile_of(device);                                          \
        timed_call *call = NULL;                                                                   \
        GIDD_TRY(begin_call(profile, &call));                                                      \
        call->part = GIDD_BENCH_SLOT_##slot * GIDD_BENCH_MATRIX_COUNT +                            \
                     (int)MATRIX_OF(profile->shape, args);                                         \
        GIDD_TRY(profile->own->slot(device, args));                                                \
        count_call(profile, call, gidd_bench_work_of(GIDD_BENCH_SLOT_##slot, device->dtype, args)); \
        return gidd_event_record(device, call->end, GIDD_STREAM_MAIN);                             \
    }
GIDD_KERNEL_SLOTS(TIMED_SLOT)
#undef TIMED_SLOT

#define TIMED_ENTRY(slot, arguments) .slot = timed_##slot,
static const gidd_kernels timed_table = {.device = "profile", GIDD_KERNEL_SLOTS(TIMED_ENTRY)};
#undef TIMED_ENTRY

/* ---- Life ------------------------------------------------------------------------------------ */

gidd_status gidd_bench_profile_attach(gidd_device *device, const gidd_model_shape *shape,
                                      gidd_bench_profile **profile_p)
{
    gidd_bench_profile *profile = calloc(1, sizeof *profile);
    if (profile == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a profile");
    }
    profile->table = timed_table;
    profile->table.device = device->kernels->device;
    profile->own = device->kernels;
    profile->device = device;
    profile->shape = shape;
    device->kernels = &profile->table;
    *profile_p = profile;
    return GIDD_OK;
}

void gidd_bench_profile_detach(gidd_bench_profile *profile)
{
    if (profile != NULL) {
        profile->device->kernels = profile->own;
        for (int64_t i = 0; i < profile->capacity; i++) {
            gidd_event_destroy(profile->device, profile->calls[i].end);
            gidd_event_destroy(profile->device, profile->calls[i].start);
        }
        free(profile->calls);
        free(profile);
    }
}

void gidd_bench_profile_reset(gidd_bench_profile *profile)
{
    profile->count = 0;
    memset(profile->counts, 0, sizeof profile->counts);
}

gidd_status gidd_bench_profile_finish(gidd_bench_profile *profile, const gidd_bench_count **counts_p)
{
    GIDD_TRY(gidd_device_synchronize(profile->device));
    for (int part = 0; part < GIDD_BENCH_PARTS; part++) {
        profile->counts[part].seconds = 0.0;
    }
    for (int64_t i = 0; i < profile->count; i++) {
        const timed_call *call = &profile->calls[i];
        double seconds = 0.0;
        GIDD_TRY(gidd_event_seconds(profile->device, call->start, call->end, &seconds));
        profile->counts[call->part].seconds += seconds;
    }
    *counts_p = profile->counts;
    return GIDD_OK;
}

void gidd_bench_profile_name(int part, char name[64])
{
#define SLOT_NAME(slot, arguments) #slot,
    static const char *const slots[] = {GIDD_KERNEL_SLOTS(SLOT_NAME)};
#undef SLOT_NAME
    static const char *const matrices[GIDD_BENCH_MATRIX_COUNT] = {
        [GIDD_BENCH_NO_MATRIX] = "",      [GIDD_BENCH_QKV] = ", qkv",         [GIDD_BENCH_ATTN_OUT] = ", out",
        [GIDD_BENCH_MLP_IN] = ", mlp_in", [GIDD_BENCH_MLP_OUT] = ", mlp_out", [GIDD_BENCH_MODS] = ", mods",
        [GIDD_BENCH_HEAD] = ", head",
    };
    (void)snprintf(name, 64, "%s%s", slots[part / GIDD_BENCH_MATRIX_COUNT], matrices[part % GIDD_BENCH_MATRIX_COUNT]);
}
