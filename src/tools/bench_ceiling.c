/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/bench_ceiling.h"

#include "base/clock.h"
#include "base/rng.h"
#include "tools/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SIDE_MIN = 1024,
    SIDE_MAX = 8192,
    REPEATS = 5,
    CALLS = 51,
    MOST_RUNS = 64,         /* before the device is waited for      */
    FILL_NUMBERS = 1 << 20, /* random ones, then the same once more */
    COPY_BYTES = 256 << 20,
};

static const double measured_s = 0.005; // a measurement lasts at least this
static const double longest_s = 0.05;   // no product larger than one that takes this is tried

/* ---- Inputs ---------------------------------------------------------------------------------- */

static void random_numbers(void *target, int64_t count, gidd_dtype dtype)
{
    for (int64_t i = 0; i < count; i++) {
        const double uniform = gidd_uniform(GIDD_BENCH_SEED, GIDD_STREAM_TOKEN, (uint64_t)i, 0, 0);
        const float value = (float)(2.0 * uniform - 1.0);
        uint32_t bits = 0;
        memcpy(&bits, &value, sizeof bits);
        if (dtype == GIDD_BF16) {
            ((uint16_t *)target)[i] = (uint16_t)(bits >> 16);
        } else {
            ((uint32_t *)target)[i] = bits;
        }
    }
}

gidd_status gidd_bench_fill(gidd_device *device, void *target, size_t bytes, gidd_dtype dtype)
{
    const size_t element = gidd_dtype_bytes(dtype), all = FILL_NUMBERS * element, once = bytes < all ? bytes : all;
    void *numbers = malloc(once);
    if (numbers == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for %zu bytes of input", once);
    }
    random_numbers(numbers, (int64_t)(once / element), dtype);
    gidd_status status = GIDD_OK;
    for (size_t at = 0; status == GIDD_OK && at < bytes; at += once) {
        status = gidd_device_copy_in(device, (char *)target + at, numbers, bytes - at < once ? bytes - at : once);
    }
    if (status == GIDD_OK) {
        status = gidd_device_synchronize(device); // before `numbers` go away
    }
    free(numbers);
    return status;
}

/* ---- Timing ---------------------------------------------------------------------------------- */

static gidd_status time_once(gidd_device *device, gidd_bench_run run, void *context, int64_t runs, double *seconds_p)
{
    const int64_t start_ns = gidd_clock_ns();
    for (int64_t i = 0; i < runs; i++) {
        GIDD_TRY(run(context));
    }
    GIDD_TRY(gidd_device_synchronize(device));
    *seconds_p = (double)(gidd_clock_ns() - start_ns) * 1e-9 / (double)runs;
    return GIDD_OK;
}

gidd_status gidd_bench_time_runs(gidd_device *device, gidd_bench_run run, void *context, int64_t repeats,
                                 double *seconds)
{
    double once = 0.0;
    GIDD_TRY(time_once(device, run, context, 1, &once)); // chooses algorithms, touches pages
    GIDD_TRY(time_once(device, run, context, 1, &once));
    const double wanted = once > 0.0 ? measured_s / once + 1.0 : MOST_RUNS;
    const int64_t runs = wanted < MOST_RUNS ? (int64_t)wanted : MOST_RUNS;
    for (int64_t i = 0; i < repeats; i++) {
        GIDD_TRY(time_once(device, run, context, runs, &seconds[i]));
    }
    (void)gidd_bench_spread_of(seconds, repeats); // sorts
    return GIDD_OK;
}

/* ---- Product --------------------------------------------------------------------------------- */

typedef struct square {
    gidd_device *device;
    void *x, *w, *y;
    int64_t side;
} square;

static size_t square_bytes(const square *s)
{
    return (size_t)(s->side * s->side) * gidd_dtype_bytes(s->device->dtype);
}

static gidd_status multiply(void *context)
{
    const square *s = context;
    return s->device->kernels->linear_fwd(s->device, &(gidd_linear_fwd_args){.y = s->y,
                                                                             .x = s->x,
                                                                             .w = s->w,
                                                                             .M = s->side,
                                                                             .N = s->side,
                                                                             .K = s->side,
                                                                             .dtype = s->device->dtype});
}

static gidd_status time_square(square *s, double *seconds_p)
{
    double seconds[REPEATS];
    const gidd_device_limits limits = {.B = 1, .T = s->side, .D = s->side, .H = s->side / 64};
    GIDD_TRY(gidd_device_reserve(s->device, &limits));
    GIDD_TRY(gidd_device_alloc(s->device, square_bytes(s), "a square matrix", &s->x));
    GIDD_TRY(gidd_device_alloc(s->device, square_bytes(s), "a square matrix", &s->w));
    GIDD_TRY(gidd_device_alloc(s->device, square_bytes(s), "a square matrix", &s->y));
    GIDD_TRY(gidd_bench_fill(s->device, s->x, square_bytes(s), s->device->dtype));
    GIDD_TRY(gidd_bench_fill(s->device, s->w, square_bytes(s), s->device->dtype));
    GIDD_TRY(gidd_bench_time_runs(s->device, multiply, s, REPEATS, seconds));
    *seconds_p = seconds[0];
    return GIDD_OK;
}

static void release_square(square *s)
{
    gidd_device_free(s->device, s->y, square_bytes(s));
    gidd_device_free(s->device, s->w, square_bytes(s));
    gidd_device_free(s->device, s->x, square_bytes(s));
}

static gidd_status measure_products(gidd_device *device, gidd_bench_ceiling *ceiling)
{
    double seconds = 0.0;
    for (int64_t side = SIDE_MIN; side <= SIDE_MAX && seconds < longest_s; side *= 2) {
        square s = {.device = device, .side = side};
        gidd_status status = time_square(&s, &seconds);
        release_square(&s);
        GIDD_TRY(status);
        const double rate = 2.0 * (double)side * (double)side * (double)side / seconds;
        if (rate > ceiling->flops_per_s) {
            ceiling->flops_per_s = rate;
            ceiling->side = side;
        }
    }
    return GIDD_OK;
}

/* ---- Copy ------------------------------------------------------------------------------------ */

typedef struct copy {
    gidd_device *device;
    void *source, *target;
} copy;

static gidd_status copy_within(void *context)
{
    const copy *c = context;
    return gidd_device_copy(c->device, c->target, c->source, COPY_BYTES);
}

static gidd_status cast_all(void *context)
{
    const copy *c = context;
    return c->device->kernels->cast(c->device, &(gidd_cast_args){.target = c->target,
                                                                 .source = c->source,
                                                                 .count = COPY_BYTES / (int64_t)sizeof(float)});
}

static gidd_status time_copy(copy *c, gidd_bench_ceiling *ceiling)
{
    const int is_cpu = strcmp(c->device->kernels->device, "cpu") == 0;
    const double element = is_cpu ? (double)gidd_dtype_bytes(c->device->dtype) : (double)sizeof(float); // as written
    double seconds[REPEATS];
    GIDD_TRY(gidd_device_alloc(c->device, COPY_BYTES, "a copy's source", &c->source));
    GIDD_TRY(gidd_device_alloc(c->device, COPY_BYTES, "a copy's target", &c->target));
    GIDD_TRY(gidd_bench_fill(c->device, c->source, COPY_BYTES, GIDD_F32));
    GIDD_TRY(gidd_bench_time_runs(c->device, is_cpu ? cast_all : copy_within, c, REPEATS, seconds));
    ceiling->bytes_per_s = COPY_BYTES * (1.0 + element / sizeof(float)) / seconds[0];
    return GIDD_OK;
}

/* ---- All ------------------------------------------------------------------------------------- */

static gidd_status time_call(gidd_device *device, void *memory, double *seconds_p)
{
    double seconds[CALLS];
    for (int i = 0; i < CALLS; i++) {
        const int64_t start_ns = gidd_clock_ns();
        GIDD_TRY(gidd_device_zero(device, memory, 4));
        GIDD_TRY(gidd_device_synchronize(device));
        seconds[i] = (double)(gidd_clock_ns() - start_ns) * 1e-9;
    }
    *seconds_p = gidd_bench_spread_of(seconds, CALLS).median;
    return GIDD_OK;
}

gidd_status gidd_bench_ceiling_measure(gidd_device *device, gidd_bench_ceiling *ceiling_p)
{
    gidd_bench_ceiling ceiling = {0};
    copy c = {.device = device};
    GIDD_TRY(gidd_device_gemm_tune(device));
    GIDD_TRY(measure_products(device, &ceiling));
    gidd_status status = time_copy(&c, &ceiling);
    if (status == GIDD_OK) {
        status = time_call(device, c.target, &ceiling.call_s);
    }
    gidd_device_free(device, c.target, COPY_BYTES);
    gidd_device_free(device, c.source, COPY_BYTES);
    GIDD_TRY(status);
    *ceiling_p = ceiling;
    return GIDD_OK;
}

void gidd_bench_ceiling_report(gidd_bench_report *report, const char *prefix, const gidd_bench_ceiling *ceiling)
{
    const struct {
        const char *name;
        double value;
    } facts[] = {{"gflop_per_s", ceiling->flops_per_s * 1e-9},
                 {"gb_per_s", ceiling->bytes_per_s * 1e-9},
                 {"call_us", ceiling->call_s * 1e6}};
    char key[64];
    (void)snprintf(key, sizeof key, "%s_side", prefix);
    gidd_bench_report_count(report, key, ceiling->side);
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        (void)snprintf(key, sizeof key, "%s_%s", prefix, facts[i].name);
        gidd_bench_report_number(report, key, facts[i].value);
    }
}
