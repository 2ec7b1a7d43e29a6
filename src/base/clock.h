/* SPDX-License-Identifier: Apache-2.0
 *
 * Monotonic time. Nothing in the program decides by the wall clock: it may jump.
 */
#ifndef GIDD_BASE_CLOCK_H
#define GIDD_BASE_CLOCK_H

#include <stdint.h>

/* Nanoseconds of CLOCK_MONOTONIC. Local. */
int64_t gidd_clock_ns(void);

/* Seconds since the first call in this process: programs make it in gidd_cli_parse. Local. */
double gidd_clock_seconds(void);

#endif
