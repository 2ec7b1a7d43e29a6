/* SPDX-License-Identifier: Apache-2.0
 *
 * Steps that are to be left out: run.dir/left_out.txt, one step number a line, in any order. The coordinator
 * adds a line when training.spike_policy is rollback; people may add lines by hand while the run is down.
 */
#ifndef GIDD_COORDINATOR_LEFT_OUT_H
#define GIDD_COORDINATOR_LEFT_OUT_H

#include "base/status.h"

#include <stdint.h>

enum { GIDD_LEFT_OUT_MAX = 100000 };

typedef struct gidd_left_out {
    int64_t *steps; /* [count] owned */
    int64_t  count;
} gidd_left_out;

/* Reads the file; none is an empty list. GIDD_ERR_CORRUPT names the line that is not a step number. Local. */
gidd_status gidd_left_out_read(gidd_left_out *list, const char *run_dir);
void        gidd_left_out_release(gidd_left_out *list);

/* 1 if `step` is in the list. Local. */
int gidd_left_out_has(const gidd_left_out *list, int64_t step);

/* Appends a step to the file and syncs it. GIDD_ERR_IO. Local. */
gidd_status gidd_left_out_add(const char *run_dir, int64_t step);

#endif
