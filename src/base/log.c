/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include "base/clock.h"
#include "base/status.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// The log sink: one of the three allowed pieces of file-scope state (STYLE: context is passed).
static atomic_int            log_level = GIDD_LOG_INFO;
static atomic_int            log_rank = -1;
static _Atomic int64_t       log_step = -1;
static void (*hook_before)(void);
static void (*hook_after)(void);

void gidd_log_set_level(gidd_log_level level)
{
    atomic_store(&log_level, (int)level);
}

void gidd_log_set_rank(int rank)
{
    atomic_store(&log_rank, rank);
}

void gidd_log_set_step(int64_t step)
{
    atomic_store(&log_step, step);
}

void gidd_log_set_hook(void (*before)(void), void (*after)(void))
{
    hook_before = before;
    hook_after = after;
}

static int write_prefix(char *line, size_t size, gidd_log_level level, const char *room)
{
    static const char *const marks[] = {"error: ", "warning: ", "", "debug: ", "trace: "};
    char                     place[64] = "";
    int                      rank = atomic_load(&log_rank);
    int64_t                  step = atomic_load(&log_step);
    if (rank >= 0 && step >= 0) {
        (void)snprintf(place, sizeof place, " [r%d s%lld]", rank, (long long)step);
    } else if (rank >= 0) {
        (void)snprintf(place, sizeof place, " [r%d]", rank);
    }
    return snprintf(line, size, "%.3f%s %s: %s", gidd_clock_seconds(), place, room, marks[level]);
}

void gidd_log(gidd_log_level level, const char *room, const char *format, ...)
{
    if ((int)level > atomic_load(&log_level)) {
        return;
    }
    if (level == GIDD_LOG_INFO && atomic_load(&log_rank) > 0) {
        return;
    }
    char   line[2048];
    size_t used = (size_t)write_prefix(line, sizeof line, level, room);
    if (used > sizeof line - 2) {
        used = sizeof line - 2;
    }
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line + used, sizeof line - 1 - used, format, args);
    va_end(args);
    used = strlen(line);
    line[used++] = '\n';
    if (hook_before != NULL) {
        hook_before();
    }
    ssize_t written = write(STDERR_FILENO, line, used);
    (void)written; // nowhere to report a failing stderr
    if (hook_after != NULL) {
        hook_after();
    }
}

void gidd_log_last_error(void)
{
    const gidd_error *error = gidd_error_last();
    const char       *base = error->file != NULL ? strrchr(error->file, '/') : NULL;
    gidd_log(GIDD_LOG_ERROR, gidd_status_name(error->code), "%s:%d %s: %s",
             base != NULL ? base + 1 : (error->file != NULL ? error->file : "?"), error->line,
             error->func != NULL ? error->func : "?", error->text);
}
