/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/watch.h"

#include "base/log.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RECENT_STEPS = 63 };

struct gidd_watch {
    gidd_watch_args       args;
    pthread_t             thread;
    atomic_int            stop;
    atomic_int            phase;
    _Atomic int64_t       step;
    _Atomic(const char *) point;
    _Atomic int64_t       beat; /* grows with every point */
    _Atomic int64_t       median_ns;
    int64_t               recent_ns[RECENT_STEPS]; /* main thread only */
    int64_t               recent_count;
};

static double phase_limit_s(gidd_watch *watch, int phase)
{
    double limit = watch->args.limit_s[phase];
    if (phase == GIDD_WATCH_STEP && limit <= 0) {
        int64_t median = atomic_load(&watch->median_ns);
        if (median == 0) { // before the first step is done nothing is known about its length
            return watch->args.limit_s[GIDD_WATCH_STARTUP];
        }
        limit = 5e-9 * (double)median;
        limit = limit < 60 ? 60 : limit;
    }
    return limit;
}

// The job is ended from this thread; if that blocks, the process ends itself.
static void *end_self(void *unused)
{
    (void)unused;
    (void)sleep(5);
    _exit(gidd_status_exit_code(GIDD_ERR_TIMEOUT));
}

static void expire(gidd_watch *watch, int64_t ticks)
{
    pthread_t killer;
    gidd_log(GIDD_LOG_ERROR, "watchdog", "nothing moved for %" PRId64 " s: last point '%s', step %" PRId64
             ", collective %" PRId64 "; ending the job", ticks, atomic_load(&watch->point), atomic_load(&watch->step),
             watch->args.collectives != NULL ? watch->args.collectives() : -1);
    (void)sleep(2); // the others watch in ticks of their own: let them speak too
    if (pthread_create(&killer, NULL, end_self, NULL) != 0) {
        _exit(gidd_status_exit_code(GIDD_ERR_TIMEOUT));
    }
    watch->args.expire(gidd_status_exit_code(GIDD_ERR_TIMEOUT));
}

static void *watch_main(void *context)
{
    gidd_watch *watch = context;
    int64_t     last_beat = -1, ticks = 0;
    while (!atomic_load(&watch->stop)) {
        // short naps, so that destroy() need not wait a second
        for (int nap = 0; nap < 20 && !atomic_load(&watch->stop); nap++) {
            (void)nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
        }
        int64_t beat = atomic_load(&watch->beat);
        ticks = beat == last_beat ? ticks + 1 : 0;
        last_beat = beat;
        if ((double)ticks > phase_limit_s(watch, atomic_load(&watch->phase))) {
            expire(watch, ticks);
        }
    }
    return NULL;
}

gidd_status gidd_watch_create(const gidd_watch_args *args, gidd_watch **watch_p)
{
    gidd_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the watchdog");
    }
    watch->args = *args;
    atomic_store(&watch->point, "start");
    sigset_t all, before; // signals belong to the main thread
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&watch->thread, NULL, watch_main, watch);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        free(watch);
        return gidd_fail(GIDD_ERR_NOMEM, "cannot start the watchdog thread: %s", strerror(error));
    }
    *watch_p = watch;
    return GIDD_OK;
}

void gidd_watch_destroy(gidd_watch *watch)
{
    if (watch != NULL) {
        atomic_store(&watch->stop, 1);
        (void)pthread_join(watch->thread, NULL);
        free(watch);
    }
}

void gidd_watch_point(gidd_watch *watch, gidd_watch_phase phase, int64_t step, const char *point)
{
    if (watch != NULL) {
        atomic_store(&watch->phase, (int)phase);
        atomic_store(&watch->step, step);
        atomic_store(&watch->point, point);
        atomic_fetch_add(&watch->beat, 1);
    }
}

static int compare_ns(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

void gidd_watch_step_done(gidd_watch *watch, int64_t ns)
{
    if (watch == NULL) {
        return;
    }
    watch->recent_ns[watch->recent_count++ % RECENT_STEPS] = ns;
    int64_t sorted[RECENT_STEPS];
    size_t  count = watch->recent_count < RECENT_STEPS ? (size_t)watch->recent_count : RECENT_STEPS;
    memcpy(sorted, watch->recent_ns, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare_ns);
    atomic_store(&watch->median_ns, sorted[count / 2]);
}
