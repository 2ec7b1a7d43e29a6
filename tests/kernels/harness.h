/* SPDX-License-Identifier: Apache-2.0
 *
 * What the kernel tests share: buffers on the device under test, random values, comparison. The
 * device is $GIDD_TEST_DEVICE (default cpu), so that one set of tests serves every device.
 */
#ifndef GIDD_TESTS_KERNELS_HARNESS_H
#define GIDD_TESTS_KERNELS_HARNESS_H

#include "kernels/kernels.h"
#include "support/tolerance.h"

/* The device under test, workspace reserved for every case of cases.h; or, where this machine has
 * none, the process ends with 77 (skipped). */
gidd_device *open_test_device(gidd_dtype dtype, int threads);

/* Memory on the device with a guard behind it. */
typedef struct buffer {
    gidd_device *device;
    void        *memory;
    size_t       bytes;
    gidd_dtype   dtype; /* of buffers of numbers */
    int64_t      count;
} buffer;

/* `count` numbers, given (NULL: filled with NaN); rounded to dtype. */
buffer buffer_of(gidd_device *device, gidd_dtype dtype, const double *values, int64_t count);
/* Bytes as they are. */
buffer buffer_of_bytes(gidd_device *device, const void *bytes, size_t count);
/* Reads back as doubles (owned by the caller) and checks the guard. */
double *buffer_values(const buffer *from);
void    buffer_bytes(const buffer *from, void *bytes);
/* Checks the guard and frees. */
void buffer_release(buffer *gone);

/* count values in [-scale, scale), already exact in dtype; a pure function of `seed`. Owned by the
 * caller. */
double *random_values(uint64_t seed, int64_t count, double scale, gidd_dtype dtype);
int64_t random_below(uint64_t seed, int64_t index, int64_t bound);
double  round_to(double value, gidd_dtype dtype);

double largest_of(const double *values, int64_t count);

/* Fails the test, naming `what` and the first wrong element, unless every value lies within
 * tolerance; NaN and infinity must be equal. */
void check_values(const char *what, const double *computed, const double *exact, int64_t count,
                  gidd_tolerance tolerance);
/* The same for a buffer. */
void check_buffer(const char *what, const buffer *computed, const double *exact,
                  gidd_tolerance tolerance);

/* Fails the test with the error's text unless the call succeeded. */
void check_ok(gidd_status status, const char *call);
#define CHECK_OK(call) check_ok((call), #call)

#endif
