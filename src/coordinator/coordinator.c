/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/coordinator.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "coordinator/signals.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
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
};

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
    if (args->resume != NULL) {
        journal.resume = &args->resume->journal;
        status = gidd_plan_restore(&coordinator->plan, args->resume->plan);
    }
    if (status == GIDD_OK) {
        status = gidd_journal_open(&journal, &coordinator->journal);
    }
    if (status != GIDD_OK) {
        free(coordinator);
        return status;
    }
    *coordinator_p = coordinator;
    return GIDD_OK;
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

static gidd_status take_reports(gidd_coordinator *coordinator, const gidd_report *reports, int64_t step)
{
    const gidd_order *order = &coordinator->orders[step % KNOWN_ORDERS];
    gidd_plan        *plan = &coordinator->plan;
    gidd_plan_observe(plan, reports, coordinator->ranks, step, (int64_t)(gidd_clock_seconds() * 1e9));
    gidd_fault_point("log");
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
    coordinator->orders[step % KNOWN_ORDERS] = *order;
    return GIDD_OK;
}

const gidd_coordinator_mark *gidd_coordinator_checkpoint_mark(const gidd_coordinator *coordinator)
{
    return &coordinator->mark;
}

void gidd_coordinator_final_mark(const gidd_coordinator *coordinator, gidd_coordinator_mark *mark)
{
    gidd_journal_get_mark(coordinator->journal, &mark->journal);
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
    free(coordinator);
    return status;
}
