/* SPDX-License-Identifier: Apache-2.0
 *
 * Which GIDD_FAULT is understood, and that a fault strikes at its rank, point, step and passage only.
 */
#include "base/fault.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static gidd_status arm(const char *text, int rank)
{
    cr_assert(setenv("GIDD_FAULT", text, 1) == 0);
    return gidd_fault_init(rank);
}

Test(fault, nothing_armed)
{
    cr_assert(unsetenv("GIDD_FAULT") == 0);
    cr_expect(gidd_fault_init(0) == GIDD_OK);
    gidd_fault_point("order");
    cr_expect(gidd_fault_nan("order") == 0);
}

Test(fault, not_understood_is_refused)
{
    // those without a point first: a point is kept from one reading to the next
    static const char *const wrong[] = {"kill", "kill:", ":", "kill:rank=0", "explode:rank=0,point=order", "kill:point=order,when=now", "kill:point=nowhere"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cr_expect(arm(wrong[i], 0) == GIDD_ERR_USAGE, "'%s' was accepted", wrong[i]);
        cr_expect(strstr(gidd_error_last()->text, "GIDD_FAULT") != NULL);
    }
    char text[512] = "kill:point=";
    memset(text + strlen(text), 'p', 400);
    cr_expect(arm(text, 0) == GIDD_ERR_USAGE);
}

Test(fault, kill_strikes_here, .signal = SIGKILL)
{
    cr_assert(arm("kill:rank=2,point=reduce,step=5", 2) == GIDD_OK);
    gidd_fault_set_step(5);
    gidd_fault_point("reduce");
}

Test(fault, exit_code_of_kind_exit, .exit_code = 3)
{
    cr_assert(arm("exit:rank=any,point=reduce", 7) == GIDD_OK);
    gidd_fault_point("reduce");
}

Test(fault, other_rank_point_and_step_pass)
{
    cr_assert(arm("kill:rank=2,point=reduce,step=5", 1) == GIDD_OK);
    gidd_fault_set_step(5);
    gidd_fault_point("reduce");
    cr_assert(arm("kill:rank=2,point=reduce,step=5", 2) == GIDD_OK);
    gidd_fault_point("updated");
    gidd_fault_point("red");
    gidd_fault_set_step(4);
    gidd_fault_point("reduce");
}

Test(fault, count_is_the_passage_that_strikes)
{
    cr_assert(arm("nan:point=gradient,count=3", 0) == GIDD_OK);
    cr_expect(gidd_fault_nan("gradient") == 0);
    cr_expect(gidd_fault_nan("gradient") == 0);
    cr_expect(gidd_fault_nan("gradient") == 1);
    cr_expect(gidd_fault_nan("gradient") == 0);
}

Test(fault, nan_does_not_act_at_plain_points)
{
    cr_assert(arm("nan:point=gradient", 0) == GIDD_OK);
    gidd_fault_point("gradient");
    cr_expect(gidd_fault_nan("gradient") == 1);
}
