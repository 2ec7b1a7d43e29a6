/* SPDX-License-Identifier: Apache-2.0
 *
 * The plan in a world of its own: workers, their checkpoint writers, a disk, a clock and an operator, all in this
 * process and all made from one seed. Writers take as long as they like and fail, ranks are killed between any two
 * things that they do, signals, STOP files and the job's end come at any moment. In every schedule
 *
 *   one checkpoint at most is in flight, its stages come one after another and none while a writer is busy;
 *   every step is trained in order, a life goes on from the newest commit, and what a kill costs is bounded;
 *   a wish to leave is met within two steps, with its exit code, and with the state saved unless the state is bad;
 *   the run ends, and what stands then is its last step.
 *
 * GIDD_SCHEDULE=SEED runs that one; GIDD_SCHEDULES=N runs so many.
 */
#include "coordinator/plan.h"
#include "coordinator/signals.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS = 3, STAGES = 3, LIVES_MAX = 64, KILLS_MAX = 3, SPAN_MAX = 5 };

static const int64_t second_ns = INT64_C(1000000000);

typedef struct world {
    uint64_t    seed, state;
    gidd_config config;
    gidd_plan   plan;
    int64_t     now_ns, step_ns, save_ns; /* a step and a final checkpoint take so long */
    int64_t     end_ns;                   /* of the job; INT64_MAX: none                */
    int64_t     committed;                /* newest step on disk                        */
    int64_t     saving;                   /* step of the checkpoint in flight; -1: none */
    int         stage, failed;
    int         busy[RANKS];              /* steps that a writer still needs            */
    uint32_t    signals;
    int64_t     signal_step;              /* of which the signal came; -1: none         */
    int64_t     bad_from;                 /* steps are left out from here on; -1: none  */
    int         stop_file, kills, failures, may_fail;
} world;

static uint64_t draw(world *w)
{
    w->state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = w->state;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static int64_t below(world *w, int64_t n)
{
    return (int64_t)(draw(w) % (uint64_t)n);
}

static int chance(world *w, int64_t one_in)
{
    return below(w, one_in) == 0;
}

#define expect(w, condition, ...)                                                                                         \
    do {                                                                                                                  \
        char said[160];                                                                                                   \
        (void)snprintf(said, sizeof said, __VA_ARGS__);                                                                   \
        cr_assert(condition, "GIDD_SCHEDULE=%llu: %s", (unsigned long long)(w)->seed, said);                              \
    } while (0)

static void make_world(world *w, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    w->seed = seed;
    w->state = seed * UINT64_C(0xd1342543de82ef95) + 1;
    gidd_config_init(&w->config);
    w->config.training.steps = 2 + below(w, 40);
    w->config.optimizer.warmup_steps = 1;
    w->config.optimizer.schedule = GIDD_CONFIG_CONSTANT;
    w->config.training.max_skipped_steps = 2;
    w->config.checkpoint.every_steps = 1 + below(w, 8);
    w->config.eval.every_steps = below(w, 4);
    w->config.loss.skip_clean_rows = GIDD_CONFIG_SKIP_OFF;
    w->step_ns = 1 + below(w, 3 * second_ns);
    w->save_ns = below(w, 5 * second_ns);
    w->end_ns = INT64_MAX;
    w->saving = -1;
    w->may_fail = chance(w, 4);
    w->bad_from = chance(w, 16) ? below(w, w->config.training.steps) : -1;
}

/* ---- the checkpoint in flight --------------------------------------------------------------------- */

static int writers_busy(const world *w)
{
    int busy = 0;
    for (int r = 0; r < RANKS; r++) {
        busy |= w->busy[r] > 0;
    }
    return busy;
}

static void start_stage(world *w)
{
    for (int r = 0; r < RANKS; r++) {
        w->busy[r] = (int)below(w, SPAN_MAX + 1);
    }
    w->failed |= w->may_fail && chance(w, 6);
}

static void begin_checkpoint(world *w, int64_t step)
{
    expect(w, w->saving < 0, "a checkpoint after step %lld while that of %lld is in flight", (long long)step,
           (long long)w->saving);
    w->saving = step;
    w->stage = 0;
    w->failed = 0;
    start_stage(w);
}

static void next_stage(world *w)
{
    expect(w, w->saving >= 0, "a stage of no checkpoint");
    expect(w, !writers_busy(w), "a stage of %lld while a writer is busy", (long long)w->saving);
    if (w->failed) { // all give up together
        w->failures++;
        w->saving = -1;
    } else if (++w->stage == STAGES) {
        w->committed = w->saving;
        w->saving = -1;
    } else {
        start_stage(w);
    }
}

static uint32_t writer_of(const world *w, int rank)
{
    return w->saving < 0 ? GIDD_WRITER_IDLE : w->busy[rank] > 0 ? GIDD_WRITER_BUSY : w->failed ? GIDD_WRITER_FAILED
                                                                                               : GIDD_WRITER_DONE;
}

/* ---- the world around ----------------------------------------------------------------------------- */

static void time_passes(world *w)
{
    w->now_ns += w->step_ns;
    for (int r = 0; r < RANKS; r++) {
        w->busy[r] -= w->busy[r] > 0;
    }
}

static void something_happens(world *w, int64_t step)
{
    if (w->signal_step < 0 && chance(w, 60)) {
        w->signals = chance(w, 3) ? GIDD_SIGNAL_INTERRUPT : GIDD_SIGNAL_LEAVE;
        w->signal_step = step;
    }
    w->stop_file |= chance(w, 200);
}

static gidd_order decide(world *w, int64_t report_step, int64_t step)
{
    gidd_order       order = {.step = step};
    gidd_plan_moment moment = {.elapsed_ns = w->now_ns,
                               .left_ns = w->end_ns == INT64_MAX ? INT64_MAX : w->end_ns - w->now_ns,
                               .stop_file = w->stop_file};
    if (report_step >= 0) {
        gidd_report reports[RANKS];
        memset(reports, 0, sizeof reports);
        for (int r = 0; r < RANKS; r++) {
            reports[r].step = report_step;
            reports[r].step_ns = w->step_ns;
            reports[r].writer = writer_of(w, r);
            reports[r].signals = r == 1 ? w->signals : 0; // one rank is enough
            reports[r].skipped_in_row = w->bad_from >= 0 && report_step >= w->bad_from ? report_step - w->bad_from + 1 : 0;
        }
        gidd_plan_observe(&w->plan, reports, RANKS, report_step, w->now_ns);
    }
    gidd_plan_order(&w->plan, &moment, &order);
    return order;
}

// What a kill costs at most, unless checkpoints failed: an interval and two flights, for the one in flight began only
// when the one before it had landed. A flight is every writer's time in each stage, and the steps until the order.
static void die(world *w, int64_t completed)
{
    int64_t flight = STAGES * (SPAN_MAX + 4), lost = completed - w->committed;
    expect(w, w->failures > 0 || lost <= w->config.checkpoint.every_steps + 2 * flight, "a kill after step %lld, the commit is "
           "of %lld", (long long)completed, (long long)w->committed);
    w->kills++;
    w->saving = -1; // its directory has no final name
}

static void leave(world *w, gidd_stop_reason reason, int64_t completed)
{
    if (!gidd_stop_saves(reason)) {
        return;
    }
    w->saving = -1;
    w->committed = completed > w->committed ? completed : w->committed;
    w->now_ns += w->save_ns;
    expect(w, reason != GIDD_STOP_TIME || w->now_ns <= w->end_ns, "left %lld ns after the job's end",
           (long long)(w->now_ns - w->end_ns));
}

// One start of the program; its exit code, 137 for a kill.
static int live(world *w)
{
    const int64_t first = w->committed, steps = w->config.training.steps;
    int64_t       completed = first;
    w->signals = 0;
    w->signal_step = -1;
    w->stop_file = 0;
    w->failures = 0;
    w->end_ns = chance(w, 6) ? w->now_ns + 12 * second_ns + below(w, 40) * w->step_ns : INT64_MAX;
    gidd_plan_init(&w->plan, &w->config, first);
    w->plan.checkpoint_ns = w->now_ns;
    gidd_order order = decide(w, -1, first);
    for (int64_t step = first;; step++) {
        int kills_here = w->kills < KILLS_MAX && chance(w, 40) ? 1 + (int)below(w, 3) : 0;
        expect(w, order.step == step && step <= steps, "order %lld at step %lld", (long long)order.step, (long long)step);
        expect(w, !(order.actions & GIDD_ACT_TRAIN) != !(order.actions & GIDD_ACT_STOP), "actions %u", order.actions);
        expect(w, w->signal_step < 0 || step < w->signal_step + 2 || (order.actions & GIDD_ACT_STOP), "a signal of step %lld is "
               "not followed at %lld", (long long)w->signal_step, (long long)step);
        if (order.actions & GIDD_ACT_COMMIT) {
            next_stage(w);
        }
        if (kills_here == 1) {
            die(w, completed);
            return 137;
        }
        if (order.actions & GIDD_ACT_STOP) {
            leave(w, (gidd_stop_reason)order.reason, completed);
            return gidd_stop_exit_code((gidd_stop_reason)order.reason);
        }
        something_happens(w, step); // before the report is made, or after
        gidd_order next = decide(w, step > first ? step - 1 : -1, step + 1);
        if (w->signal_step < 0) {
            something_happens(w, step);
        }
        completed = step + 1;
        time_passes(w);
        expect(w, (order.actions & GIDD_ACT_EVAL) == 0 || w->config.eval.every_steps > 0, "an evaluation nobody asked for");
        if (kills_here == 2) {
            die(w, completed);
            return 137;
        }
        if (order.actions & GIDD_ACT_CHECKPOINT) {
            begin_checkpoint(w, completed);
        }
        if (kills_here == 3) {
            die(w, completed);
            return 137;
        }
        order = next;
    }
}

static void run_schedule(uint64_t seed)
{
    world w;
    make_world(&w, seed);
    for (int life = 0; life < LIVES_MAX; life++) {
        int64_t before = w.committed;
        int     code = live(&w);
        expect(&w, w.committed >= before, "the commit of %lld is gone", (long long)before);
        if (code == 0) {
            expect(&w, w.committed == w.config.training.steps, "finished, but step %lld is what stands", (long long)w.committed);
            return;
        }
        if (code == 65) {
            expect(&w, w.bad_from >= 0 && w.committed <= w.bad_from + 5, "exit 65 after step %lld", (long long)w.committed);
            return;
        }
        expect(&w, code == 75 || code == 79 || code == 137, "exit %d", code);
    }
    expect(&w, 0, "%d starts and no end", LIVES_MAX);
}

Test(schedules, keep_what_they_promise, .timeout = 300)
{
    const char *one = getenv("GIDD_SCHEDULE"), *many = getenv("GIDD_SCHEDULES");
    uint64_t    count = many != NULL ? strtoull(many, NULL, 10) : 100000;
    if (one != NULL) {
        run_schedule(strtoull(one, NULL, 10));
        return;
    }
    for (uint64_t seed = 0; seed < count; seed++) {
        run_schedule(seed);
    }
}
