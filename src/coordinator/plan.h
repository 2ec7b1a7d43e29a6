/* SPDX-License-Identifier: Apache-2.0
 *
 * What to do at each step: a pure function of the configuration, the reports so far and the time handed
 * in. No communication and no files here, so every rule has a unit test.
 */
#ifndef GIDD_COORDINATOR_PLAN_H
#define GIDD_COORDINATOR_PLAN_H

#include "base/config.h"
#include "base/lr.h"
#include "coordinator/protocol.h"
#include "coordinator/skip_guard.h"

/* The outside world as the coordinator sees it when an order is due. */
typedef struct gidd_plan_moment {
    int64_t  elapsed_ns;    /* since the program started                          */
    int64_t  left_ns;       /* until the job's end; INT64_MAX: unknown            */
    int      stop_file;     /* run.dir/STOP is there                              */
    uint32_t signals;       /* on any rank, GIDD_SIGNAL_*                         */
} gidd_plan_moment;

typedef struct gidd_plan {
    const gidd_config *config;
    gidd_lr_schedule   lr;
    int64_t            first_step;
    gidd_stop_reason   stop;             /* once set, every later order is STOP      */
    int                in_flight;        /* a checkpoint was begun, not committed    */
    int64_t            acted_step;       /* step of the last order about it: reports of
                                            earlier steps say nothing of its outcome  */
    int                writers_wait;     /* no writer is busy: the next stage is due */
    int64_t            checkpoint_ns;    /* when the last one was begun              */
    int64_t            step_ns;          /* longest recent step                      */
    int64_t            commit_ns;        /* time from begin to writers finished      */
    uint32_t           signals;
    gidd_skip_guard    skip;             /* of rows whose token was not noised       */
    gidd_skip_verdict  skip_verdict;     /* on the evaluation observed last, if the last report had one */
} gidd_plan;

/* What of a plan a checkpoint has to remember, as text. */
enum { GIDD_PLAN_STATE_MAX = 128 };

/* `config` is borrowed. Local. */
void gidd_plan_init(gidd_plan *plan, const gidd_config *config, int64_t first_step);

/* Takes note of all ranks' reports of one step. Local. */
void gidd_plan_observe(gidd_plan *plan, const gidd_report *reports, int count, int64_t step, int64_t elapsed_ns);

/* Fills lr, actions and reason of the order for `order->step`. Orders are asked for in sequence. Local. */
void gidd_plan_order(gidd_plan *plan, const gidd_plan_moment *moment, gidd_order *order);

/* The decisions so far that later orders rest on, and back. restore: "" is a plan that has decided nothing;
 * GIDD_ERR_CORRUPT: not what format made. Local. */
void        gidd_plan_format(const gidd_plan *plan, char text[GIDD_PLAN_STATE_MAX]);
gidd_status gidd_plan_restore(gidd_plan *plan, const char *text);
/* Every later order is a STOP for this reason, unless another came first. Local. */
void gidd_plan_stop(gidd_plan *plan, gidd_stop_reason reason);

/* Whether a stop for this reason keeps the state: 0 when the state itself is what is wrong. Local. */
int gidd_stop_saves(gidd_stop_reason reason);

/* Exit code of a reason to stop. Local. */
int gidd_stop_exit_code(gidd_stop_reason reason);

/* "last step done", "signal" ... Local. */
const char *gidd_stop_text(gidd_stop_reason reason);

#endif
