/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/straggler.h"

#include <stdlib.h>
#include <string.h>

static const double slow_factor = 1.5, slow_ms = 5;

gidd_status gidd_straggler_init(gidd_straggler *straggler, int ranks)
{
    *straggler = (gidd_straggler){.ranks = ranks,
                                  .busy_ns = calloc((size_t)ranks, sizeof(double)),
                                  .sorted = calloc((size_t)ranks, sizeof(double))};
    if (straggler->busy_ns == NULL || straggler->sorted == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the times of %d ranks", ranks);
    }
    return GIDD_OK;
}

void gidd_straggler_release(gidd_straggler *straggler)
{
    free(straggler->busy_ns);
    free(straggler->sorted);
    *straggler = (gidd_straggler){0};
}

void gidd_straggler_add(gidd_straggler *straggler, const gidd_report *reports)
{
    for (int rank = 0; rank < straggler->ranks; rank++) {
        straggler->busy_ns[rank] += (double)(reports[rank].step_ns - reports[rank].comm_ns);
    }
    straggler->steps++;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

gidd_straggler_finding gidd_straggler_find(gidd_straggler *straggler)
{
    gidd_straggler_finding finding = {.rank = -1};
    size_t                 count = 0;
    int                    slowest = -1;
    double                 scale = straggler->steps > 0 ? 1e-6 / (double)straggler->steps : 0;
    for (int rank = 0; rank < straggler->ranks; rank++) {
        double busy = straggler->busy_ns[rank] * scale;
        if (busy > 0) {
            straggler->sorted[count++] = busy;
            slowest = slowest < 0 || straggler->busy_ns[rank] > straggler->busy_ns[slowest] ? rank : slowest;
        }
    }
    if (count > 1) {
        qsort(straggler->sorted, count, sizeof(double), compare);
        finding.busy_ms = straggler->sorted[count - 1];
        finding.median_ms = straggler->sorted[(count - 1) / 2]; // of two ranks the faster
        if (finding.busy_ms > slow_factor * finding.median_ms && finding.busy_ms > finding.median_ms + slow_ms) {
            finding.rank = slowest;
        }
    }
    memset(straggler->busy_ns, 0, (size_t)straggler->ranks * sizeof(double));
    straggler->steps = 0;
    return finding;
}
