/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/watch.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

static void leave_with(int code)
{
    _exit(code);
}

static gidd_watch *start(double step_limit_s)
{
    gidd_watch *watch = NULL;
    cr_assert_eq(gidd_watch_create(&(gidd_watch_args){.limit_s = {[GIDD_WATCH_STARTUP] = 100,
                                                                  [GIDD_WATCH_STEP] = step_limit_s,
                                                                  [GIDD_WATCH_EVAL] = 100,
                                                                  [GIDD_WATCH_CHECKPOINT] = 100,
                                                                  [GIDD_WATCH_DATA] = HUGE_VAL},
                                                      .expire = leave_with},
                                   &watch),
                 GIDD_OK);
    return watch;
}

Test(watch, a_stalled_step_ends_the_process_with_76, .exit_code = 76, .timeout = 20)
{
    gidd_watch *watch = start(1);
    gidd_watch_point(watch, GIDD_WATCH_STEP, 3, "reduction");
    (void)sleep(15);
    cr_assert_fail("the watchdog slept");
}

Test(watch, progress_keeps_it_quiet, .timeout = 20)
{
    gidd_watch *watch = start(1);
    for (int i = 0; i < 30; i++) {
        gidd_watch_point(watch, GIDD_WATCH_STEP, i, "micro-batch");
        (void)nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    }
    gidd_watch_destroy(watch);
}
