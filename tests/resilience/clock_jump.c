/* SPDX-License-Identifier: Apache-2.0
 *
 * LD_PRELOAD: a wall clock that jumps by a day, forth and back at every fourth look (with CLOCK_JUMP_BACK set, back
 * and forth). Clocks that only count are left alone: a program that keeps its intervals by them notices nothing.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static atomic_int looks;

static time_t jump(void)
{
    int look = atomic_fetch_add(&looks, 1);
    if (look == 4) {
        static const char text[] = "clock jumps\n";
        (void)!write(STDERR_FILENO, text, sizeof text - 1);
    }
    time_t day = getenv("CLOCK_JUMP_BACK") != NULL ? -86400 : 86400;
    return look / 4 % 2 == 1 ? day : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int code = (int)syscall(SYS_clock_gettime, clock, now);
    if (code == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        now->tv_sec += jump();
    }
    return code;
}

time_t time(time_t *now_p)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (now_p != NULL) {
        *now_p = now.tv_sec;
    }
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict now_p, void *restrict zone)
{
    struct timespec now = {0};
    (void)zone;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    *now_p = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}
