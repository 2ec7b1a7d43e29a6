/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/coordinator.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "coordinator/left_out.h"
#include "coordinator/signals.h"
#include "coordinator/spike.h"
#include "coordinator/straggler.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { KNOWN_ORDERS = 4 }; /* orders ahead of their reports: at most 2 */

struct gidd_coordinator {
    gidd_plan             plan;
    gidd_journal         *journal;
    const gidd_config    *config;
    int                   ranks;
    uint32_t              signals;
    int64_t               stop_looked_ns;
    int                   stop_file;
    gidd_order            orders[KNOWN_ORDERS]; /* by step modulo KNOWN_ORDERS */
    gidd_coordinator_mark mark;
    gidd_spike            spike;
    int64_t               first_step;
    gidd_left_out         left_out;
    gidd_straggler        straggler;
    int                   named_rank; /* slow rank that was told last ...            */
    int64_t               name_again; /* ... and need not be told again before this step */
};

static const char spike_key[] = ";spike "; // behind the journal's own state in a checkpoint

// How the journal stands, and what is usual of the loss.
static void take_mark(const gidd_coordinator *coordinator, gidd_journal_mark *mark)
{
    char text[GIDD_SPIKE_TEXT_MAX];
    gidd_journal_get_mark(coordinator->journal, mark);
    gidd_spike_format(&coordinator->spike, text);
    size_t used = strlen(mark->state);
    (void)snprintf(mark->state + used, sizeof mark->state - used, "%s%s", spike_key, text);
}

static gidd_status restore_spike(gidd_coordinator *coordinator, const gidd_journal_mark *mark)
{
    const char *text = mark != NULL ? strstr(mark->state, spike_key) : NULL;
    gidd_spike_init(&coordinator->spike, coordinator->config);
    // checkpoints of builds that knew no spikes say nothing: the averages start anew
    if (text != NULL && !gidd_spike_parse(&coordinator->spike, text + strlen(spike_key))) {
        return gidd_fail(GIDD_ERR_CORRUPT, "the checkpoint's averages of the loss are not four numbers");
    }
    return GIDD_OK;
}

gidd_status gidd_coordinator_open(const gidd_coordinator_args *args, gidd_coordinator **coordinator_p)
{
    gidd_coordinator *coordinator = calloc(1, sizeof *coordinator);
    if (coordinator == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the coordinator");
    }
    coordinator->config = args->journal.config;
    coordinator->ranks = args->ranks;
    coordinator->signals = args->signals;
    gidd_plan_init(&coordinator->plan, coordinator->config, args->journal.first_step);
    coordinator->plan.checkpoint_ns = (int64_t)(gidd_clock_seconds() * 1e9);
    gidd_journal_args journal = args->journal;
    gidd_status       status = GIDD_OK;
    coordinator->first_step = args->journal.first_step;
    if (args->resume != NULL) {
        journal.resume = &args->resume->journal;
        GIDD_TRY_GOTO(gidd_plan_restore(&coordinator->plan, args->resume->plan));
    }
    GIDD_TRY_GOTO(restore_spike(coordinator, journal.resume));
    GIDD_TRY_GOTO(gidd_straggler_init(&coordinator->straggler, args->ranks));
    GIDD_TRY_GOTO(gidd_left_out_read(&coordinator->left_out, coordinator->config->run.dir));
    GIDD_TRY_GOTO(gidd_journal_open(&journal, &coordinator->journal));
    *coordinator_p = coordinator;
    return GIDD_OK;
out:
    gidd_left_out_release(&coordinator->left_out);
    gidd_straggler_release(&coordinator->straggler);
    free(coordinator);
    return status;
}

// A STOP file is a request, used up when it is followed: else the next start would stop at once.
static int stop_file_found(gidd_coordinator *coordinator, int64_t now_ns)
{
    char path[GIDD_CONFIG_TEXT_MAX + 8];
    if (coordinator->stop_file || now_ns - coordinator->stop_looked_ns < INT64_C(500000000)) {
        return coordinator->stop_file; // a look costs a round trip to the file server: twice a second at most
    }
    coordinator->stop_looked_ns = now_ns;
    (void)snprintf(path, sizeof path, "%s/STOP", coordinator->config->run.dir);
    if (access(path, F_OK) == 0 && unlink(path) == 0) {
        coordinator->stop_file = 1;
    }
    return coordinator->stop_file;
}

static void look_around(gidd_coordinator *coordinator, gidd_plan_moment *moment)
{
    moment->elapsed_ns = (int64_t)(gidd_clock_seconds() * 1e9);
    moment->left_ns = INT64_MAX;
    if (coordinator->config->run.end_time > 0) { // the one use of the wall clock: the job's end is given in it
        double left = difftime((time_t)coordinator->config->run.end_time, time(NULL));
        moment->left_ns = left > 9e9 ? INT64_MAX : (int64_t)(left * 1e9);
    }
    moment->stop_file = stop_file_found(coordinator, gidd_clock_ns());
    moment->signals = coordinator->signals | gidd_signals_seen();
}

// An evaluation found that what skipped steps leave out is not next to nothing.
static gidd_status tell_skipping(gidd_coordinator *coordinator, const gidd_report *reports, int64_t step)
{
    const gidd_plan *plan = &coordinator->plan;
    gidd_loss_sums   eval = gidd_reports_eval(reports, coordinator->ranks);
    char             found[256], text[512];
    gidd_skip_guard_describe(&eval, found, sizeof found);
    if (plan->skip_verdict == GIDD_SKIP_ENDS) {
        (void)snprintf(text, sizeof text, "off after step %" PRId64 ": %s", plan->skip.end_step, found);
    } else {
        (void)snprintf(text, sizeof text, "stays on, as configured: %s", found);
    }
    gidd_log(GIDD_LOG_WARN, "eval", "loss.skip_clean_rows: %s", text);
    return gidd_journal_event(coordinator->journal, step + 1, "skip_clean_rows", text);
}

// For whoever wants to see the batch again: it is a function of the seed and these numbers.
static gidd_status tell_bad_step(gidd_coordinator *coordinator, int64_t step, const char *event, double loss, double limit,
                                 const char *consequence)
{
    char    text[256];
    int64_t batch = coordinator->config->training.global_batch;
    (void)snprintf(text, sizeof text, "loss %.9g, limit %.9g, seed %" PRId64 ", samples %" PRId64 " to %" PRId64 ": %s", loss,
                   limit, coordinator->config->run.seed, step * batch, (step + 1) * batch - 1, consequence);
    gidd_log(GIDD_LOG_WARN, event, "step %" PRId64 ": %s", step, text);
    return gidd_journal_event(coordinator->journal, step, event, text);
}

// The step's loss against what is usual; a step that was left out by order has been judged before.
static gidd_status judge_loss(gidd_coordinator *coordinator, const gidd_report *reports, const gidd_order *order)
{
    double loss = 0, positions = 0, limit = gidd_spike_limit(&coordinator->spike);
    int    skipped = 0, nonfinite = 0;
    for (int rank = 0; rank < coordinator->ranks; rank++) {
        loss += reports[rank].train.loss;
        positions += reports[rank].train.positions;
        skipped |= reports[rank].skipped != 0;
        nonfinite |= !(fabs(reports[rank].grad_norm) < HUGE_VAL);
    }
    loss = positions > 0 ? loss / positions : 0;
    coordinator->spike.previous = limit; // also where this loss does not enter the averages
    if (order->actions & GIDD_ACT_LEAVE_OUT) {
        return tell_bad_step(coordinator, order->step, "left out", loss, limit, "as an earlier start decided");
    }
    if (skipped && nonfinite) {
        return tell_bad_step(coordinator, order->step, "non-finite", loss, limit, "the gradient is not finite, left out");
    }
    if (!gidd_spike_observe(&coordinator->spike, loss) && !skipped) {
        return GIDD_OK;
    }
    switch (coordinator->spike.policy) {
    case GIDD_CONFIG_SPIKE_SKIP:
        return tell_bad_step(coordinator, order->step, "spike", loss, order->loss_limit, "left out");
    case GIDD_CONFIG_SPIKE_ROLLBACK:
        gidd_plan_stop(&coordinator->plan, GIDD_STOP_ROLLBACK);
        GIDD_TRY(tell_bad_step(coordinator, order->step, "spike", loss, limit, "back to the last checkpoint, then left out"));
        return gidd_left_out_add(coordinator->config->run.dir, order->step);
    case GIDD_CONFIG_SPIKE_STOP:
        gidd_plan_stop(&coordinator->plan, GIDD_STOP_SPIKE);
        return tell_bad_step(coordinator, order->step, "spike", loss, limit, "the run ends");
    default: // off: only what is no number is worth a word
        return isfinite(loss) ? GIDD_OK
                              : tell_bad_step(coordinator, order->step, "non-finite", loss, limit, "the gradient is finite");
    }
}

static gidd_status look_for_stragglers(gidd_coordinator *coordinator, const gidd_report *reports, int64_t completed)
{
    char text[160];
    gidd_straggler_add(&coordinator->straggler, reports);
    if (completed % coordinator->config->log.every_steps != 0) {
        return GIDD_OK;
    }
    gidd_straggler_finding found = gidd_straggler_find(&coordinator->straggler);
    if (found.rank < 0 || (found.rank == coordinator->named_rank && completed < coordinator->name_again)) {
        return GIDD_OK;
    }
    coordinator->named_rank = found.rank;
    coordinator->name_again = completed + 20 * coordinator->config->log.every_steps;
    (void)snprintf(text, sizeof text, "rank %d is slow: %.3g ms a step, the median rank %.3g ms", found.rank, found.busy_ms,
                   found.median_ms);
    gidd_log(GIDD_LOG_WARN, "straggler", "step %" PRId64 ": %s", completed, text);
    return gidd_journal_event(coordinator->journal, completed, "straggler", text);
}

static gidd_status take_reports(gidd_coordinator *coordinator, const gidd_report *reports, int64_t step)
{
    const gidd_order *order = &coordinator->orders[step % KNOWN_ORDERS];
    gidd_plan        *plan = &coordinator->plan;
    gidd_plan_observe(plan, reports, coordinator->ranks, step, (int64_t)(gidd_clock_seconds() * 1e9));
    gidd_fault_point("log");
    GIDD_TRY(judge_loss(coordinator, reports, order));
    GIDD_TRY(look_for_stragglers(coordinator, reports, step + 1));
    GIDD_TRY(gidd_journal_step(coordinator->journal, reports, coordinator->ranks, step, order));
    if (order->actions & GIDD_ACT_CHECKPOINT) {
        gidd_coordinator_final_mark(coordinator, &coordinator->mark);
    }
    return plan->skip_verdict != GIDD_SKIP_FINE ? tell_skipping(coordinator, reports, step) : GIDD_OK;
}

gidd_status gidd_coordinator_decide(void *context, const gidd_report *reports, int64_t report_step, int64_t step,
                                    gidd_order *order)
{
    gidd_coordinator *coordinator = context;
    gidd_plan_moment  moment;
    if (reports != NULL) {
        GIDD_TRY(take_reports(coordinator, reports, report_step));
    }
    if (order == NULL) {
        return GIDD_OK;
    }
    look_around(coordinator, &moment);
    gidd_plan_order(&coordinator->plan, &moment, order);
    if ((order->actions & GIDD_ACT_TRAIN) && gidd_left_out_has(&coordinator->left_out, step)) {
        order->actions |= GIDD_ACT_LEAVE_OUT;
    }
    if (coordinator->spike.policy == GIDD_CONFIG_SPIKE_SKIP) { // of reports up to step - 2, also in the first order of a life
        order->loss_limit = step == coordinator->first_step ? coordinator->spike.previous : gidd_spike_limit(&coordinator->spike);
    }
    coordinator->orders[step % KNOWN_ORDERS] = *order;
    return GIDD_OK;
}

const gidd_coordinator_mark *gidd_coordinator_checkpoint_mark(const gidd_coordinator *coordinator)
{
    return &coordinator->mark;
}

void gidd_coordinator_final_mark(const gidd_coordinator *coordinator, gidd_coordinator_mark *mark)
{
    take_mark(coordinator, &mark->journal);
    gidd_plan_format(&coordinator->plan, mark->plan);
}

gidd_journal *gidd_coordinator_journal(gidd_coordinator *coordinator)
{
    return coordinator->journal;
}

gidd_status gidd_coordinator_close(gidd_coordinator *coordinator)
{
    if (coordinator == NULL) {
        return GIDD_OK;
    }
    gidd_status status = gidd_journal_close(coordinator->journal);
    gidd_left_out_release(&coordinator->left_out);
    gidd_straggler_release(&coordinator->straggler);
    free(coordinator);
    return status;
}
