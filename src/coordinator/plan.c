/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/plan.h"

#include "coordinator/signals.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const int64_t ns_per_minute = INT64_C(60000000000);
static const int64_t slack_ns = INT64_C(10000000000); // for leaving, beyond the step and the checkpoint

void gidd_plan_init(gidd_plan *plan, const gidd_config *config, int64_t first_step)
{
    static const gidd_lr_kind kinds[] = {
        [GIDD_CONFIG_COSINE] = GIDD_LR_COSINE,
        [GIDD_CONFIG_LINEAR] = GIDD_LR_LINEAR,
        [GIDD_CONFIG_CONSTANT] = GIDD_LR_CONSTANT,
    };
    memset(plan, 0, sizeof *plan);
    plan->config = config;
    plan->first_step = first_step;
    plan->lr = (gidd_lr_schedule){
        .kind = kinds[config->optimizer.schedule],
        .peak = config->optimizer.lr,
        .warmup_steps = config->optimizer.warmup_steps,
        .total_steps = config->training.steps,
    };
    gidd_skip_guard_init(&plan->skip, config);
}

void gidd_plan_format(const gidd_plan *plan, char text[GIDD_PLAN_STATE_MAX])
{
    text[0] = '\0';
    if (plan->skip.end_step != GIDD_SKIP_FOREVER) {
        (void)snprintf(text, GIDD_PLAN_STATE_MAX, "skip_clean_rows_end=%" PRId64, plan->skip.end_step);
    }
}

gidd_status gidd_plan_restore(gidd_plan *plan, const char *text)
{
    int64_t end_step = 0;
    int     used = 0;
    if (text[0] == '\0') {
        return GIDD_OK;
    }
    if (sscanf(text, "skip_clean_rows_end=%" SCNd64 "%n", &end_step, &used) != 1 || text[used] != '\0' || end_step < 0) {
        return gidd_fail(GIDD_ERR_CORRUPT, "the checkpoint's plan is '%.64s', not decisions of this program", text);
    }
    if (plan->skip.may_end) { // else the user has decided otherwise since
        plan->skip.end_step = end_step;
    }
    return GIDD_OK;
}

void gidd_plan_observe(gidd_plan *plan, const gidd_report *reports, int count, int64_t step, int64_t elapsed_ns)
{
    int     busy = 0, idle = 1;
    int64_t longest = 0, skipped_in_row = 0;
    for (int rank = 0; rank < count; rank++) {
        const gidd_report *report = &reports[rank];
        plan->signals |= report->signals;
        busy |= report->writer == GIDD_WRITER_BUSY;
        idle &= report->writer == GIDD_WRITER_IDLE;
        longest = report->step_ns > longest ? report->step_ns : longest;
        skipped_in_row = report->skipped_in_row > skipped_in_row ? report->skipped_in_row : skipped_in_row;
    }
    // decays slowly, so that one long step keeps its weight for a while
    plan->step_ns = longest > plan->step_ns ? longest : plan->step_ns - (plan->step_ns - longest) / 16;
    if (plan->in_flight && !busy && step >= plan->acted_step) {
        plan->writers_wait = !idle;
        plan->in_flight = !idle;
        plan->commit_ns = elapsed_ns - plan->checkpoint_ns;
    }
    gidd_loss_sums eval = gidd_reports_eval(reports, count);
    plan->skip_verdict = eval.positions > 0 ? gidd_skip_guard_observe(&plan->skip, &eval, step) : GIDD_SKIP_FINE;
    if (skipped_in_row > plan->config->training.max_skipped_steps) {
        gidd_plan_stop(plan, GIDD_STOP_DIVERGED);
    }
}

static gidd_stop_reason reason_to_stop(const gidd_plan *plan, const gidd_plan_moment *moment, int64_t step)
{
    double  minutes = plan->config->run.max_minutes;
    int64_t needed_ns = 2 * plan->step_ns + plan->commit_ns + slack_ns;
    if (step >= plan->config->training.steps) {
        return GIDD_STOP_FINISHED;
    }
    if ((moment->signals | plan->signals) & GIDD_SIGNAL_INTERRUPT) {
        return GIDD_STOP_INTERRUPT;
    }
    if ((moment->signals | plan->signals) & GIDD_SIGNAL_LEAVE) {
        return GIDD_STOP_SIGNAL;
    }
    if (moment->stop_file) {
        return GIDD_STOP_FILE;
    }
    if ((minutes > 0 && (double)moment->elapsed_ns >= minutes * (double)ns_per_minute) || moment->left_ns < needed_ns) {
        return GIDD_STOP_TIME;
    }
    return GIDD_STOP_NONE;
}

static int checkpoint_due(const gidd_plan *plan, const gidd_plan_moment *moment, int64_t completed)
{
    const gidd_config *config = plan->config;
    double             minutes = config->checkpoint.every_minutes;
    if (config->checkpoint.every_steps > 0 && completed % config->checkpoint.every_steps == 0) {
        return 1;
    }
    return minutes > 0 && (double)(moment->elapsed_ns - plan->checkpoint_ns) >= minutes * (double)ns_per_minute;
}

void gidd_plan_order(gidd_plan *plan, const gidd_plan_moment *moment, gidd_order *order)
{
    const gidd_config *config = plan->config;
    int64_t            completed = order->step + 1; // once this order's step is done
    if (plan->stop == GIDD_STOP_NONE) {
        plan->stop = reason_to_stop(plan, moment, order->step);
    }
    order->actions = 0;
    order->reason = (uint32_t)plan->stop;
    order->lr = 0;
    order->loss_limit = HUGE_VAL;
    // a checkpoint that may hold what the run ends for is not completed
    if (plan->writers_wait && gidd_stop_saves(plan->stop)) {
        order->actions |= GIDD_ACT_COMMIT;
        plan->writers_wait = 0;
        plan->acted_step = order->step;
    }
    if (plan->stop != GIDD_STOP_NONE) {
        order->actions |= GIDD_ACT_STOP;
        return;
    }
    order->actions |= GIDD_ACT_TRAIN;
    order->lr = gidd_lr_at(&plan->lr, order->step);
    if (gidd_skip_guard_skips(&plan->skip, order->step)) {
        order->actions |= GIDD_ACT_SKIP_CLEAN;
    }
    if (config->eval.every_steps > 0 &&
        (completed % config->eval.every_steps == 0 || completed == config->training.steps)) {
        order->actions |= GIDD_ACT_EVAL;
    }
    // the last step's checkpoint is the one that STOP makes
    if (!plan->in_flight && completed < config->training.steps && checkpoint_due(plan, moment, completed)) {
        order->actions |= GIDD_ACT_CHECKPOINT;
        plan->in_flight = 1;
        plan->acted_step = order->step;
        plan->checkpoint_ns = moment->elapsed_ns;
    }
}

void gidd_plan_stop(gidd_plan *plan, gidd_stop_reason reason)
{
    if (plan->stop == GIDD_STOP_NONE) {
        plan->stop = reason;
    }
}

static const struct {
    int         exit_code;
    const char *text;
} stop_table[] = {
    [GIDD_STOP_NONE] = {70, "no reason"},
    [GIDD_STOP_FINISHED] = {GIDD_EXIT_FINISHED, "the last step is done"},
    [GIDD_STOP_SIGNAL] = {GIDD_EXIT_RERUN, "a signal asked to leave"},
    [GIDD_STOP_TIME] = {GIDD_EXIT_RERUN, "the time is up"},
    [GIDD_STOP_INTERRUPT] = {GIDD_EXIT_STOPPED, "interrupted"},
    [GIDD_STOP_FILE] = {GIDD_EXIT_STOPPED, "a STOP file was found"},
    [GIDD_STOP_DIVERGED] = {65, "too many steps in a row were left out"},
    [GIDD_STOP_SPIKE] = {65, "the loss of a step was a spike"},
    [GIDD_STOP_ROLLBACK] = {76, "the loss of a step was a spike: back to the last checkpoint"},
};

int gidd_stop_saves(gidd_stop_reason reason)
{
    return reason != GIDD_STOP_DIVERGED && reason != GIDD_STOP_SPIKE && reason != GIDD_STOP_ROLLBACK;
}

int gidd_stop_exit_code(gidd_stop_reason reason)
{
    return stop_table[reason].exit_code;
}

const char *gidd_stop_text(gidd_stop_reason reason)
{
    return stop_table[reason].text;
}
