/* SPDX-License-Identifier: Apache-2.0
 *
 * Which rank is slow. A rank's time is what it computes, not what it waits for others. Over a log interval
 * the slowest rank is named if it took more than half as long again as the median rank, and at
 * least 5 ms a step more.
 */
#ifndef GIDD_COORDINATOR_STRAGGLER_H
#define GIDD_COORDINATOR_STRAGGLER_H

#include "coordinator/protocol.h"

typedef struct gidd_straggler {
    int     ranks;
    int64_t steps;   /* of this interval         */
    double *busy_ns; /* [ranks] owned; sums      */
    double *sorted;  /* [ranks] owned; scratch   */
} gidd_straggler;

typedef struct gidd_straggler_finding {
    int    rank; /* -1: nobody is slow */
    double busy_ms, median_ms; /* a step */
} gidd_straggler_finding;

/* GIDD_ERR_NOMEM. Release in any case. Local. */
gidd_status gidd_straggler_init(gidd_straggler *straggler, int ranks);
void        gidd_straggler_release(gidd_straggler *straggler);

/* One step's reports [ranks]; those without a step time (a dedicated coordinator) do not count. Local. */
void gidd_straggler_add(gidd_straggler *straggler, const gidd_report *reports);

/* Ends the interval. Local. */
gidd_straggler_finding gidd_straggler_find(gidd_straggler *straggler);

#endif
