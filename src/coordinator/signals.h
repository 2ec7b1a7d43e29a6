/* SPDX-License-Identifier: Apache-2.0
 *
 * Signals only set a flag; the flag travels in the report and everybody stops at the same step.
 */
#ifndef GIDD_COORDINATOR_SIGNALS_H
#define GIDD_COORDINATOR_SIGNALS_H

#include <stdint.h>

enum {
    GIDD_SIGNAL_LEAVE = 1,     /* SIGUSR1, SIGUSR2, SIGTERM: checkpoint, exit 75 */
    GIDD_SIGNAL_INTERRUPT = 2, /* SIGINT: checkpoint, exit 79                    */
    GIDD_SIGNALS_ALL = 3
};

/* Installs the handlers; a second signal changes nothing. Call before any thread is started. Local. */
void gidd_signals_install(void);

/* Flags seen since. Local; async-signal-safe. */
uint32_t gidd_signals_seen(void);

#endif
