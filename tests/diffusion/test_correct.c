/* SPDX-License-Identifier: Apache-2.0 */
#include "diffusion/correct.h"

#include <criterion/criterion.h>
#include <string.h>

static const double score[6] = {0.5, 0.0, 0.9, 0.5, 0.1, 0.0};
static const int32_t proposal[6] = {10, 11, 12, 13, 14, 15};

Test(correct, takes_the_best_first)
{
    int32_t z[6] = {0}, chosen[3] = {-1, -1, -1};
    const int32_t want_z[6] = {10, 0, 12, 13, 0, 0}, want_chosen[3] = {2, 0, 3};
    cr_assert_eq(gidd_correct_select(score, proposal, 6, 3, z, chosen), 3);
    cr_assert_arr_eq(z, want_z, sizeof z);
    cr_assert_arr_eq(chosen, want_chosen, sizeof chosen);
}

Test(correct, lower_position_wins_a_tie)
{
    int32_t z[6] = {0};
    const int32_t want[6] = {10, 0, 12, 0, 0, 0};
    cr_assert_eq(gidd_correct_select(score, proposal, 6, 2, z, NULL), 2);
    cr_assert_arr_eq(z, want, sizeof z);
}

Test(correct, never_takes_a_zero)
{
    int32_t z[6] = {0};
    const int32_t want[6] = {10, 0, 12, 13, 14, 0};
    cr_assert_eq(gidd_correct_select(score, proposal, 6, 6, z, NULL), 4);
    cr_assert_arr_eq(z, want, sizeof z);
    memset(z, 0, sizeof z);
    cr_assert_eq(gidd_correct_select((double[6]){0}, proposal, 6, 2, z, NULL), 0);
    cr_assert_arr_eq(z, ((int32_t[6]){0}), sizeof z);
}

Test(correct, patience_runs_out_without_progress)
{
    gidd_correct_patience patience = {.max_patience = 2};
    cr_assert_eq(gidd_correct_judge(&patience, 0.5, 1), GIDD_CORRECT_ADOPT);
    cr_assert_eq(gidd_correct_judge(&patience, 0.5, 1),
                 GIDD_CORRECT_ADOPT); // 1: equal is no progress
    cr_assert_eq(gidd_correct_judge(&patience, 0.6, 1), GIDD_CORRECT_ADOPT); // starts again
    cr_assert_eq(gidd_correct_judge(&patience, 0.1, 1), GIDD_CORRECT_ADOPT);
    cr_assert_eq(gidd_correct_judge(&patience, 0.6, 1), GIDD_CORRECT_ADOPT);
    cr_assert_eq(gidd_correct_judge(&patience, 0.6, 0), GIDD_CORRECT_STALLED); // before "converged"
    cr_assert(patience.best == 0.6);
}

Test(correct, stops_when_nothing_changes)
{
    gidd_correct_patience patience = {.max_patience = 2};
    cr_assert_eq(gidd_correct_judge(&patience, 0.5, 0), GIDD_CORRECT_CONVERGED);
}
