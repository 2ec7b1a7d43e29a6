/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/plan.h"
#include "coordinator/signals.h"

#include <criterion/criterion.h>
#include <string.h>

static gidd_config config; // one process per test

static const int64_t second_ns = INT64_C(1000000000);

static void configure(int64_t steps)
{
    gidd_config_init(&config);
    config.training.steps = steps;
    config.optimizer.warmup_steps = 2;
    config.checkpoint.every_steps = 0;
    config.eval.every_steps = 0;
    config.loss.skip_clean_rows = GIDD_CONFIG_SKIP_OFF;
}

static gidd_order order_for(gidd_plan *plan, int64_t step, gidd_plan_moment moment)
{
    gidd_order order = {.step = step};
    gidd_plan_order(plan, &moment, &order);
    return order;
}

static const gidd_plan_moment quiet = {.left_ns = INT64_MAX};

Test(plan, trains_with_the_schedule_then_finishes)
{
    gidd_plan plan;
    configure(4);
    gidd_plan_init(&plan, &config, 0);
    for (int64_t step = 0; step < 4; step++) {
        gidd_order order = order_for(&plan, step, quiet);
        cr_assert_eq(order.actions, GIDD_ACT_TRAIN, "step %d: %u", (int)step, order.actions);
        cr_assert_eq(order.lr, gidd_lr_at(&plan.lr, step));
    }
    gidd_order last = order_for(&plan, 4, quiet);
    cr_assert_eq(last.actions, GIDD_ACT_STOP);
    cr_assert_eq(last.reason, GIDD_STOP_FINISHED);
    cr_assert_eq(gidd_stop_exit_code(GIDD_STOP_FINISHED), 0);
}

Test(plan, evaluates_on_schedule_and_after_the_last_step)
{
    gidd_plan plan;
    configure(5);
    config.eval.every_steps = 2;
    gidd_plan_init(&plan, &config, 0);
    const int expected[] = {0, 1, 0, 1, 1};
    for (int64_t step = 0; step < 5; step++) {
        cr_assert_eq((order_for(&plan, step, quiet).actions & GIDD_ACT_EVAL) != 0, expected[step], "step %d", (int)step);
    }
}

Test(plan, stops_for_each_cause_with_its_exit_code)
{
    const struct {
        gidd_plan_moment moment;
        int              exit_code;
    } cases[] = {
        {{.left_ns = INT64_MAX, .signals = GIDD_SIGNAL_LEAVE}, 75},
        {{.left_ns = INT64_MAX, .signals = GIDD_SIGNAL_INTERRUPT}, 79},
        {{.left_ns = INT64_MAX, .signals = GIDD_SIGNAL_INTERRUPT | GIDD_SIGNAL_LEAVE}, 79},
        {{.left_ns = INT64_MAX, .stop_file = 1}, 79},
        {{.left_ns = 5 * second_ns}, 75}, // less than the slack of 10 s
        {{.left_ns = INT64_MAX, .elapsed_ns = 121 * second_ns}, 75},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gidd_plan plan;
        configure(100);
        config.run.max_minutes = 2;
        gidd_plan_init(&plan, &config, 0);
        gidd_order order = order_for(&plan, 7, cases[i].moment);
        cr_assert_eq(order.actions, GIDD_ACT_STOP, "case %zu", i);
        cr_assert_eq(gidd_stop_exit_code((gidd_stop_reason)order.reason), cases[i].exit_code, "case %zu", i);
        // once decided it stays decided
        cr_assert_eq(order_for(&plan, 8, quiet).actions, GIDD_ACT_STOP, "case %zu", i);
    }
}

Test(plan, one_checkpoint_in_flight_and_its_stages_in_order)
{
    gidd_plan   plan;
    gidd_report reports[2];
    configure(100);
    config.checkpoint.every_steps = 2;
    gidd_plan_init(&plan, &config, 0);
    memset(reports, 0, sizeof reports);
    (void)order_for(&plan, 0, quiet);
    cr_assert(order_for(&plan, 1, quiet).actions & GIDD_ACT_CHECKPOINT); // after it two steps are done
    // an old report, from before the writers began, must not count as "idle again"
    gidd_plan_observe(&plan, reports, 2, 0, 0);
    cr_assert_eq(order_for(&plan, 2, quiet).actions, GIDD_ACT_TRAIN);
    reports[0].writer = GIDD_WRITER_DONE;
    reports[1].writer = GIDD_WRITER_BUSY;
    gidd_plan_observe(&plan, reports, 2, 1, 0);
    cr_assert_eq(order_for(&plan, 3, quiet).actions, GIDD_ACT_TRAIN, "one rank is still writing; no second checkpoint");
    reports[1].writer = GIDD_WRITER_FAILED;
    gidd_plan_observe(&plan, reports, 2, 2, 0);
    cr_assert_eq(order_for(&plan, 4, quiet).actions, GIDD_ACT_TRAIN | GIDD_ACT_COMMIT);
    // report 3 is from before order 4's commit
    gidd_plan_observe(&plan, reports, 2, 3, 0);
    cr_assert_eq(order_for(&plan, 5, quiet).actions, GIDD_ACT_TRAIN);
    reports[0].writer = reports[1].writer = GIDD_WRITER_IDLE;
    gidd_plan_observe(&plan, reports, 2, 4, 0);
    (void)order_for(&plan, 6, quiet);
    cr_assert_eq(order_for(&plan, 7, quiet).actions, GIDD_ACT_TRAIN | GIDD_ACT_CHECKPOINT, "the next one at its time");
}

Test(plan, checkpoints_by_time)
{
    gidd_plan plan;
    configure(100);
    config.checkpoint.every_minutes = 1;
    gidd_plan_init(&plan, &config, 0);
    gidd_plan_moment early = {.left_ns = INT64_MAX, .elapsed_ns = 59 * second_ns};
    gidd_plan_moment due = {.left_ns = INT64_MAX, .elapsed_ns = 60 * second_ns};
    cr_assert_not(order_for(&plan, 0, early).actions & GIDD_ACT_CHECKPOINT);
    cr_assert(order_for(&plan, 1, due).actions & GIDD_ACT_CHECKPOINT);
}

Test(plan, too_many_skipped_steps_in_a_row_end_the_run)
{
    gidd_plan   plan;
    gidd_report report;
    configure(100);
    config.training.max_skipped_steps = 3;
    gidd_plan_init(&plan, &config, 0);
    memset(&report, 0, sizeof report);
    report.skipped_in_row = 3;
    gidd_plan_observe(&plan, &report, 1, 5, 0);
    cr_assert_eq(order_for(&plan, 7, quiet).actions, GIDD_ACT_TRAIN, "three are allowed");
    report.skipped_in_row = 4;
    gidd_plan_observe(&plan, &report, 1, 6, 0);
    gidd_order order = order_for(&plan, 8, quiet);
    cr_assert_eq(order.actions, GIDD_ACT_STOP);
    cr_assert_eq(gidd_stop_exit_code((gidd_stop_reason)order.reason), 65);
}

Test(plan, time_left_counts_the_longest_step_and_the_checkpoint)
{
    gidd_plan   plan;
    gidd_report report;
    configure(100);
    config.checkpoint.every_steps = 1;
    gidd_plan_init(&plan, &config, 0);
    memset(&report, 0, sizeof report);
    report.step_ns = 30 * second_ns;
    gidd_plan_moment at = {.left_ns = INT64_MAX, .elapsed_ns = 0};
    (void)order_for(&plan, 0, at); // begins a checkpoint
    report.writer = GIDD_WRITER_DONE;
    gidd_plan_observe(&plan, &report, 1, 0, 20 * second_ns); // which took 20 s
    // needed: 2 x 30 s + 20 s + 10 s = 90 s
    cr_assert_not(order_for(&plan, 2, (gidd_plan_moment){.left_ns = 91 * second_ns}).actions & GIDD_ACT_STOP);
    cr_assert(order_for(&plan, 3, (gidd_plan_moment){.left_ns = 89 * second_ns}).actions & GIDD_ACT_STOP);
}
