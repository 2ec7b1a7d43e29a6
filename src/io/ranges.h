/* SPDX-License-Identifier: Apache-2.0
 *
 * Ranges of whole numbers, [first, end) each: documents that cannot be read, and the examples made of them.
 */
#ifndef GIDD_IO_RANGES_H
#define GIDD_IO_RANGES_H

#include "base/status.h"

#include <stdint.h>

typedef struct gidd_range {
    int64_t first, end;
} gidd_range;

/* {0} is empty. Settled: in order, none empty, none touching the next. */
typedef struct gidd_ranges {
    gidd_range *at; /* [count] owned */
    int64_t count, capacity;
} gidd_ranges;

/* Appends a range; an empty one is ignored. Not settled any more. Errors: NOMEM. Local. */
gidd_status gidd_ranges_add(gidd_ranges *ranges, int64_t first, int64_t end);

/* Sorts, and joins what overlaps or touches. Local. */
void gidd_ranges_settle(gidd_ranges *ranges);

/* How many numbers are in settled ranges and in [first, end). Local. */
int64_t gidd_ranges_total(const gidd_ranges *ranges, int64_t first, int64_t end);

/* The settled range that holds `number`; NULL if none does. Local. */
const gidd_range *gidd_ranges_find(const gidd_ranges *ranges, int64_t number);

/* Frees; {0} again. Local. */
void gidd_ranges_release(gidd_ranges *ranges);

#endif
