/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <stdatomic.h>
#include <time.h>

int64_t gidd_clock_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); // cannot fail for this clock
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

double gidd_clock_seconds(void)
{
    static _Atomic int64_t origin_ns;
    int64_t                expected = 0;
    int64_t                now = gidd_clock_ns();
    (void)atomic_compare_exchange_strong(&origin_ns, &expected, now);
    return (double)(now - atomic_load(&origin_ns)) * 1e-9;
}
