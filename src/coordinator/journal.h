/* SPDX-License-Identifier: Apache-2.0
 *
 * What a run says about itself, written by the coordinator:
 *
 *   metrics.jsonl   one JSON object a line, deterministic fields only: two equal runs are equal bytes. A window with
 *                   a step that left clean rows out has elbo_noised, the noised rows' part, instead of elbo and ppl
 *   timings.jsonl   what depends on the machine: milliseconds, tokens per second
 *   tensorboard/    the same numbers for TensorBoard
 *   journal.jsonl   events: starts, resumes, stops, allowed changes of the configuration
 *   the terminal    a progress line, redrawn on a terminal, plain lines otherwise
 *
 * Lines go through a bounded queue to a thread, so that slow storage never delays an order. A checkpoint
 * remembers the journal as it was after its last step (gidd_journal_mark); a resume continues from there,
 * so an interrupted run's metrics.jsonl becomes the bytes of an uninterrupted one.
 */
#ifndef GIDD_COORDINATOR_JOURNAL_H
#define GIDD_COORDINATOR_JOURNAL_H

#include "base/config.h"
#include "coordinator/protocol.h"
#include "model/model.h"

enum { GIDD_JOURNAL_STATE_MAX = 1024 };

/* Where the journal stood: bytes of metrics.jsonl, and the sums of the unfinished window of log.every_steps
 * steps as text (hexadecimal numbers, exact). */
typedef struct gidd_journal_mark {
    int64_t metrics_bytes;
    int64_t tokens_seen; /* real tokens of all steps so far */
    int64_t skipped_total, skipped_in_row; /* steps with a non-finite gradient */
    char    state[GIDD_JOURNAL_STATE_MAX];
} gidd_journal_mark;

typedef struct gidd_journal gidd_journal;

typedef struct gidd_journal_args {
    const gidd_config       *config;    /* borrowed */
    const gidd_journal_mark *resume;    /* of the restored checkpoint; NULL: a new run */
    int64_t                  first_step;
    int64_t                  context;   /* tokens of a sequence */
    gidd_model_flops         flops;
} gidd_journal_args;

/* Opens the files in run.dir. On resume metrics.jsonl is cut at the mark and what followed goes to
 * metrics.lost.jsonl. Call with the run's lock held. Local (coordinator). */
gidd_status gidd_journal_open(const gidd_journal_args *args, gidd_journal **journal_p);

/* Takes one step's reports; writes lines when a window of log.every_steps ends or an evaluation came with
 * them; draws the progress line. GIDD_ERR_IO: an earlier line could not be written. Local. */
gidd_status gidd_journal_step(gidd_journal *journal, const gidd_report *reports, int count, int64_t step,
                              const gidd_order *order);

/* The mark after the steps taken so far. Local. */
void gidd_journal_get_mark(const gidd_journal *journal, gidd_journal_mark *mark);

/* An event for people: {"step":..,"event":"..","text":".."}. Local. */
gidd_status gidd_journal_event(gidd_journal *journal, int64_t step, const char *event, const char *text);

/* Waits until every line so far is written and synced. Local. */
gidd_status gidd_journal_flush(gidd_journal *journal);

/* Flushes, ends the thread, closes. NULL-safe. Local. */
gidd_status gidd_journal_close(gidd_journal *journal);

#endif
