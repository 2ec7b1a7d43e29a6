/* SPDX-License-Identifier: Apache-2.0
 *
 * The coordinator: decides and records, never touches a tensor. It lives on worker 0, or in a program of
 * its own (gidd-coordinator). It makes orders from reports (plan), writes the journal, looks for a STOP
 * file, and knows how the journal stood when a checkpoint was begun.
 */
#ifndef GIDD_COORDINATOR_COORDINATOR_H
#define GIDD_COORDINATOR_COORDINATOR_H

#include "coordinator/journal.h"
#include "coordinator/plan.h"
#include "coordinator/watch.h"

typedef struct gidd_coordinator gidd_coordinator;

/* What a checkpoint remembers of the coordinator. */
typedef struct gidd_coordinator_mark {
    gidd_journal_mark journal;
    char              plan[GIDD_PLAN_STATE_MAX];
} gidd_coordinator_mark;

typedef struct gidd_coordinator_args {
    gidd_journal_args            journal; /* config, first step ...; its `resume` is set from the next */
    const gidd_coordinator_mark *resume;  /* of the restored checkpoint; NULL: a new run               */
    int               ranks;   /* of the protocol communicator */
    uint32_t          signals; /* seen on any rank before the first order */
} gidd_coordinator_args;

/* Opens the journal; call with the run's lock held. Local. */
gidd_status gidd_coordinator_open(const gidd_coordinator_args *args, gidd_coordinator **coordinator_p);

/* gidd_protocol_decide: `context` is the coordinator. Local. */
gidd_status gidd_coordinator_decide(void *context, const gidd_report *reports, int64_t report_step, int64_t step,
                                    gidd_order *order);

/* The coordinator as it stood after the last step of the checkpoint in flight. Local. */
const gidd_coordinator_mark *gidd_coordinator_checkpoint_mark(const gidd_coordinator *coordinator);

/* As it stands now: for the checkpoint that a stop makes, after gidd_protocol_drain. Local. */
void gidd_coordinator_final_mark(const gidd_coordinator *coordinator, gidd_coordinator_mark *mark);

/* Borrowed. Local. */
gidd_journal *gidd_coordinator_journal(gidd_coordinator *coordinator);

/* Closes the journal. NULL-safe. Local. */
gidd_status gidd_coordinator_close(gidd_coordinator *coordinator);

#endif
