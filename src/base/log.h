/* SPDX-License-Identifier: Apache-2.0
 *
 * Log lines for people, on stderr. Levels are defined by volume: error (cannot go on), warn (goes on),
 * info (per phase, rank 0), debug (per object), trace (per step). A line reads
 *     12.345 [r3 s1200] comm: bucket 4 is late
 * Metrics are another stream (coordinator/journal). Library code logs sparingly: silence is golden.
 */
#ifndef GIDD_BASE_LOG_H
#define GIDD_BASE_LOG_H

#include <stdint.h>

typedef enum gidd_log_level {
    GIDD_LOG_ERROR = 0,
    GIDD_LOG_WARN,
    GIDD_LOG_INFO,
    GIDD_LOG_DEBUG,
    GIDD_LOG_TRACE,
} gidd_log_level;

/* Lines above `level` are dropped. Default info. Local. */
void gidd_log_set_level(gidd_log_level level);

/* Rank (-1: none, the default: no prefix) and step (-1: none) that lines carry. Info lines are
 * printed by rank <= 0 only. Local. */
void gidd_log_set_rank(int rank);
void gidd_log_set_step(int64_t step);

/* Called before and after each printed line, so that a progress line can clear and redraw itself;
 * NULL: none. Local. */
void gidd_log_set_hook(void (*before)(void), void (*after)(void));

/* Prints one line "time [rank step] room: text". One write(2) a line, so that lines of several ranks
 * do not mix. Local. */
void gidd_log(gidd_log_level level, const char *room, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Prints the thread's error record as an error line with file, line and function. Local. */
void gidd_log_last_error(void);

#endif
