/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/plan.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static gidd_config config; // one process per test

static gidd_skip_guard guard_of(int key, int process, double p_uniform, int weighting, double min_weight)
{
    gidd_skip_guard guard;
    gidd_config_init(&config);
    config.loss.skip_clean_rows = key;
    config.diffusion.process = process;
    config.model.p_uniform = p_uniform;
    config.loss.weighting = weighting;
    config.loss.min_weight = min_weight;
    gidd_skip_guard_init(&guard, &config);
    return guard;
}

Test(skip_guard, who_leaves_clean_rows_out_and_who_may_stop)
{
    enum { AUTO = GIDD_CONFIG_SKIP_AUTO, ON = GIDD_CONFIG_SKIP_ON, OFF = GIDD_CONFIG_SKIP_OFF };
    enum { DYNAMIC = GIDD_CONFIG_WEIGHT_DYNAMIC, CLIP = GIDD_CONFIG_WEIGHT_CLIP, NONE = GIDD_CONFIG_WEIGHT_NONE };
    static const struct {
        int    key, process;
        double p_uniform;
        int    weighting;
        double min_weight;
        int    skips, guarded, may_end;
    } cases[] = {
        {AUTO, GIDD_CONFIG_MDLM, 0, DYNAMIC, 0, 1, 0, 0},
        {AUTO, GIDD_CONFIG_MDLM, 0, DYNAMIC, 0.5, 1, 0, 0}, // MDLM knows no bounds
        {ON, GIDD_CONFIG_MDLM, 0, DYNAMIC, 0, 1, 0, 0},
        {OFF, GIDD_CONFIG_MDLM, 0, DYNAMIC, 0, 0, 0, 0},
        {AUTO, GIDD_CONFIG_GIDD, 0, DYNAMIC, 0, 1, 1, 1},
        {AUTO, GIDD_CONFIG_GIDD, 0, NONE, 0.5, 1, 1, 1}, // unweighted: the bound does not act
        {ON, GIDD_CONFIG_GIDD, 0, DYNAMIC, 0, 1, 1, 0},
        {OFF, GIDD_CONFIG_GIDD, 0, DYNAMIC, 0, 0, 0, 0},
        {AUTO, GIDD_CONFIG_GIDD, 1e-9, DYNAMIC, 0, 0, 0, 0},
        {AUTO, GIDD_CONFIG_GIDD, 0.2, DYNAMIC, 0, 0, 0, 0},
        {AUTO, GIDD_CONFIG_GIDD, 0, DYNAMIC, 1e-3, 0, 0, 0},
        {AUTO, GIDD_CONFIG_GIDD, 0, CLIP, 1e-3, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gidd_skip_guard guard = guard_of(cases[i].key, cases[i].process, cases[i].p_uniform, cases[i].weighting,
                                         cases[i].min_weight);
        cr_assert_eq(gidd_skip_guard_skips(&guard, 1000), cases[i].skips, "case %zu", i);
        cr_assert_eq(guard.guarded, cases[i].guarded, "case %zu", i);
        cr_assert_eq(guard.may_end, cases[i].may_end, "case %zu", i);
    }
}

static gidd_loss_sums shares(double of_loss, double of_elbo)
{
    return (gidd_loss_sums){.positions = 64, .loss = 8, .clean_loss = 8 * of_loss, .elbo = 32, .clean_elbo = 32 * of_elbo};
}

Test(skip_guard, ends_where_either_share_exceeds_the_bound)
{
    static const struct {
        double            of_loss, of_elbo;
        gidd_skip_verdict verdict;
    } cases[] = {
        {0, 0, GIDD_SKIP_FINE},
        {0.9e-4, 0.9e-4, GIDD_SKIP_FINE},
        {1.1e-4, 0, GIDD_SKIP_ENDS},
        {0, 1.1e-4, GIDD_SKIP_ENDS},
        {1, 1, GIDD_SKIP_ENDS},
        {(double)NAN, 0, GIDD_SKIP_FINE}, // not a share; other rules end a diverged run
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gidd_skip_guard guard = guard_of(GIDD_CONFIG_SKIP_AUTO, GIDD_CONFIG_GIDD, 0, GIDD_CONFIG_WEIGHT_DYNAMIC, 0);
        gidd_loss_sums  eval = shares(cases[i].of_loss, cases[i].of_elbo);
        cr_assert_eq(gidd_skip_guard_observe(&guard, &eval, 40), cases[i].verdict, "case %zu", i);
        cr_assert(gidd_skip_guard_skips(&guard, 41), "order 41 was made before report 40");
        cr_assert_eq(gidd_skip_guard_skips(&guard, 42), cases[i].verdict == GIDD_SKIP_FINE, "case %zu", i);
        eval = shares(1, 1);
        gidd_skip_verdict next = gidd_skip_guard_observe(&guard, &eval, 50);
        cr_assert_eq(next, cases[i].verdict == GIDD_SKIP_FINE ? GIDD_SKIP_ENDS : GIDD_SKIP_FINE, "it ends once");
    }
}

Test(skip_guard, on_is_warned_about_and_stays_and_masks_only_cannot_err)
{
    gidd_loss_sums  eval = shares(1, 1);
    gidd_skip_guard on = guard_of(GIDD_CONFIG_SKIP_ON, GIDD_CONFIG_GIDD, 0, GIDD_CONFIG_WEIGHT_DYNAMIC, 0);
    cr_assert_eq(gidd_skip_guard_observe(&on, &eval, 1), GIDD_SKIP_WARN);
    cr_assert(gidd_skip_guard_skips(&on, 1000));
    gidd_skip_guard mdlm = guard_of(GIDD_CONFIG_SKIP_AUTO, GIDD_CONFIG_MDLM, 0, GIDD_CONFIG_WEIGHT_DYNAMIC, 0);
    cr_assert_eq(gidd_skip_guard_observe(&mdlm, &eval, 1), GIDD_SKIP_FINE);
}

// ---- in a plan, over ranks and restarts

static void configure(void)
{
    gidd_config_init(&config);
    config.training.steps = 100;
    config.optimizer.warmup_steps = 2;
    config.checkpoint.every_steps = 0;
    config.eval.every_steps = 5;
}

static uint32_t actions_of(gidd_plan *plan, int64_t step)
{
    gidd_order order = {.step = step};
    gidd_plan_order(plan, &(gidd_plan_moment){.left_ns = INT64_MAX}, &order);
    return order.actions & (GIDD_ACT_TRAIN | GIDD_ACT_SKIP_CLEAN);
}

// A dedicated coordinator's zeros, a quiet rank, and one whose clean rows make up a share of both together.
static void observe(gidd_plan *plan, int64_t step, double share)
{
    gidd_report reports[3];
    memset(reports, 0, sizeof reports);
    if (share >= 0) {
        reports[1].eval = shares(0, 0);
        reports[2].eval = shares(2 * share, 0);
    }
    gidd_plan_observe(plan, reports, 3, step, 0);
}

Test(skip_guard, the_order_two_steps_after_the_report_computes_all_rows)
{
    enum { SKIPS = GIDD_ACT_TRAIN | GIDD_ACT_SKIP_CLEAN };
    gidd_plan plan;
    configure();
    gidd_plan_init(&plan, &config, 0);
    cr_assert_eq(actions_of(&plan, 4), SKIPS);
    cr_assert_eq(actions_of(&plan, 5), SKIPS);
    observe(&plan, 4, 0.9e-4);
    cr_assert_eq(plan.skip_verdict, GIDD_SKIP_FINE);
    cr_assert_eq(actions_of(&plan, 6), SKIPS);
    observe(&plan, 9, 1.1e-4);
    cr_assert_eq(plan.skip_verdict, GIDD_SKIP_ENDS);
    cr_assert_eq(actions_of(&plan, 11), GIDD_ACT_TRAIN);
    observe(&plan, 10, -1);
    cr_assert_eq(plan.skip_verdict, GIDD_SKIP_FINE, "said once");
    cr_assert_eq(actions_of(&plan, 12), GIDD_ACT_TRAIN);
}

Test(skip_guard, a_checkpoint_between_report_and_order_resumes_to_the_same_orders)
{
    char      text[GIDD_PLAN_STATE_MAX];
    gidd_plan plan, resumed;
    configure();
    gidd_plan_init(&plan, &config, 0);
    gidd_plan_format(&plan, text);
    cr_assert_str_eq(text, "");
    observe(&plan, 9, 1);
    gidd_plan_format(&plan, text);
    gidd_plan_init(&resumed, &config, 10);
    cr_assert_eq(gidd_plan_restore(&resumed, text), GIDD_OK);
    for (int64_t step = 10; step < 14; step++) {
        cr_assert_eq(actions_of(&resumed, step), step < 11 ? GIDD_ACT_TRAIN | GIDD_ACT_SKIP_CLEAN : GIDD_ACT_TRAIN);
    }
    observe(&resumed, 14, 1);
    cr_assert_eq(resumed.skip_verdict, GIDD_SKIP_FINE, "it is off already");
}

Test(skip_guard, a_user_who_says_on_after_that_is_obeyed)
{
    gidd_plan plan;
    configure();
    config.loss.skip_clean_rows = GIDD_CONFIG_SKIP_ON;
    gidd_plan_init(&plan, &config, 10);
    cr_assert_eq(gidd_plan_restore(&plan, "skip_clean_rows_end=7"), GIDD_OK);
    cr_assert_eq(actions_of(&plan, 10), GIDD_ACT_TRAIN | GIDD_ACT_SKIP_CLEAN);
}

Test(skip_guard, a_damaged_decision_is_refused)
{
    static const char *const texts[] = {"skip_clean_rows_end=", "skip_clean_rows_end=-1", "skip_clean_rows_end=9x", "9",
                                        "skip_clean_rows_end=9 skip_clean_rows_end=9"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        gidd_plan plan;
        configure();
        gidd_plan_init(&plan, &config, 0);
        cr_assert_eq(gidd_plan_restore(&plan, texts[i]), GIDD_ERR_CORRUPT, "'%s'", texts[i]);
    }
}
