/* SPDX-License-Identifier: Apache-2.0
 *
 * The watchdog: a thread on each rank that ends the job when nothing moves. It counts ticks of its own of
 * one second, so time for which the machine was suspended does not count. On expiry every rank that still
 * runs prints its last point, step and number of the last collective it began, then ends the job (exit 76),
 * and itself after five more seconds. A rank that prints nothing is the one to look for; so is the one whose
 * collective number is the smallest.
 */
#ifndef GIDD_COORDINATOR_WATCH_H
#define GIDD_COORDINATOR_WATCH_H

#include "base/status.h"

#include <stdint.h>

typedef enum gidd_watch_phase {
    GIDD_WATCH_STARTUP = 0,
    GIDD_WATCH_STEP,
    GIDD_WATCH_EVAL,
    GIDD_WATCH_CHECKPOINT,
    GIDD_WATCH_DATA, /* making shards: as long as it takes */
    GIDD_WATCH_PHASES,
} gidd_watch_phase;

typedef struct gidd_watch gidd_watch;

typedef struct gidd_watch_args {
    double limit_s[GIDD_WATCH_PHASES]; /* of GIDD_WATCH_STEP 0: max(60 s, 5 x median of recent steps) */
    void (*expire)(int code);          /* ends the job: gidd_comm_abort                                  */
    int64_t (*collectives)(void);      /* begun so far on this rank: gidd_comm_collectives; NULL: unknown */
} gidd_watch_args;

/* Starts the thread in phase STARTUP. Local. */
gidd_status gidd_watch_create(const gidd_watch_args *args, gidd_watch **watch_p);
void        gidd_watch_destroy(gidd_watch *watch);

/* Progress: the rank is now at `point` (static text) of `phase`. Cheap; NULL watch is allowed. Local. */
void gidd_watch_point(gidd_watch *watch, gidd_watch_phase phase, int64_t step, const char *point);

/* A step took `ns`: feeds the automatic limit. Local. */
void gidd_watch_step_done(gidd_watch *watch, int64_t ns);

#endif
