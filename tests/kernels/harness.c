/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/harness.h"

#include "base/rng.h"
#include "kernels/bf16.h"

#include <criterion/criterion.h>
#include <stdlib.h>

enum { GUARD_BYTES = 256, GUARD = 0xa5 };

void check_ok(gidd_status status, const char *call)
{
    cr_assert(status == GIDD_OK, "%s: %s: %s", call, gidd_status_name(status),
              gidd_error_last()->text);
}

gidd_device *open_test_device(gidd_dtype dtype, int threads)
{
    const char  *name = getenv("GIDD_TEST_DEVICE");
    gidd_device *device = NULL;
    gidd_status  status = gidd_device_open(&(gidd_device_args){.name = name != NULL ? name : "cpu",
                                                               .dtype = dtype,
                                                               .threads = threads},
                                           &device);
    if (status == GIDD_ERR_DEVICE || status == GIDD_ERR_UNSUPPORTED) {
        exit(77);
    }
    check_ok(status, "gidd_device_open");
    CHECK_OK(gidd_device_reserve(
        device,
        &(gidd_device_limits){
            .B = 5, .T = 600, .D = 1024, .H = 8, .L = 1, .C = 128, .Vr = 50304, .head_rows = 600}));
    return device;
}

static buffer make_buffer(gidd_device *device, size_t bytes, const void *content)
{
    buffer made = {.device = device, .bytes = bytes};
    CHECK_OK(gidd_device_alloc(device, bytes + GUARD_BYTES, "test", &made.memory));
    char *host = malloc(bytes + GUARD_BYTES);
    cr_assert(host != NULL);
    if (bytes > 0) {
        memcpy(host, content, bytes);
    }
    memset(host + bytes, GUARD, GUARD_BYTES);
    CHECK_OK(gidd_device_copy_in(device, made.memory, host, bytes + GUARD_BYTES));
    free(host);
    return made;
}

buffer buffer_of_bytes(gidd_device *device, const void *bytes, size_t count)
{
    return make_buffer(device, count, bytes);
}

buffer buffer_of(gidd_device *device, gidd_dtype dtype, const double *values, int64_t count)
{
    size_t bytes = (size_t)count * gidd_dtype_bytes(dtype);
    void  *host = malloc(bytes + 1);
    cr_assert(host != NULL);
    for (int64_t i = 0; i < count; i++) {
        float value = values != NULL ? (float)values[i] : NAN;
        if (dtype == GIDD_BF16) {
            ((uint16_t *)host)[i] = gidd_bf16_from_float(value);
        } else {
            ((float *)host)[i] = value;
        }
    }
    buffer made = make_buffer(device, bytes, host);
    made.dtype = dtype;
    made.count = count;
    free(host);
    return made;
}

static char *read_guarded(const buffer *from)
{
    char *host = malloc(from->bytes + GUARD_BYTES);
    cr_assert(host != NULL);
    CHECK_OK(gidd_device_copy_out(from->device, host, from->memory, from->bytes + GUARD_BYTES));
    for (size_t i = 0; i < GUARD_BYTES; i++) {
        cr_assert_eq((unsigned char)host[from->bytes + i], GUARD,
                     "written %zu bytes behind a buffer", i);
    }
    return host;
}

double *buffer_values(const buffer *from)
{
    char   *host = read_guarded(from);
    double *values = malloc(((size_t)from->count + 1) * sizeof *values);
    cr_assert(values != NULL);
    for (int64_t i = 0; i < from->count; i++) {
        values[i] = from->dtype == GIDD_BF16
                        ? (double)gidd_bf16_to_float(((const uint16_t *)(const void *)host)[i])
                        : (double)((const float *)(const void *)host)[i];
    }
    free(host);
    return values;
}

void buffer_bytes(const buffer *from, void *bytes)
{
    char *host = read_guarded(from);
    memcpy(bytes, host, from->bytes);
    free(host);
}

void buffer_release(buffer *gone)
{
    if (gone->memory != NULL) {
        free(read_guarded(gone));
        gidd_device_free(gone->device, gone->memory, gone->bytes + GUARD_BYTES);
        gone->memory = NULL;
    }
}

double round_to(double value, gidd_dtype dtype)
{
    float narrow = (float)value;
    return (double)(dtype == GIDD_BF16 ? gidd_bf16_to_float(gidd_bf16_from_float(narrow)) : narrow);
}

double *random_values(uint64_t seed, int64_t count, double scale, gidd_dtype dtype)
{
    double *values = malloc(((size_t)count + 1) * sizeof *values);
    cr_assert(values != NULL);
    for (int64_t i = 0; i < count; i++) {
        double u = gidd_uniform(seed, GIDD_STREAM_TOKEN, (uint64_t)i, 0, 0);
        values[i] = round_to(scale * (2.0 * u - 1.0), dtype);
    }
    return values;
}

int64_t random_below(uint64_t seed, int64_t index, int64_t bound)
{
    return (int64_t)gidd_uniform_below(seed, GIDD_STREAM_TOKEN, (uint64_t)index, 1,
                                       (uint64_t)bound);
}

double largest_of(const double *values, int64_t count)
{
    double largest = 0.0;
    for (int64_t i = 0; i < count; i++) {
        largest = fabs(values[i]) > largest ? fabs(values[i]) : largest;
    }
    return largest;
}

void check_values(const char *what, const double *computed, const double *exact, int64_t count,
                  gidd_tolerance tolerance)
{
    for (int64_t i = 0; i < count; i++) {
        double allowed = gidd_allowed(&tolerance, exact[i]);
        int    right = isfinite(exact[i])
                           ? fabs(computed[i] - exact[i]) <= allowed
                           : (isnan(exact[i]) ? isnan(computed[i]) : computed[i] == exact[i]);
        cr_assert(right, "%s[%lld] of %lld is %.9g, should be %.9g within %.3g", what, (long long)i,
                  (long long)count, computed[i], exact[i], allowed);
    }
}

void check_buffer(const char *what, const buffer *computed, const double *exact,
                  gidd_tolerance tolerance)
{
    double *values = buffer_values(computed);
    check_values(what, values, exact, computed->count, tolerance);
    free(values);
}
