/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/signals.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

static _Atomic uint32_t seen; // the one flag that handlers may touch

static void remember_signal(int number)
{
    atomic_fetch_or(&seen, number == SIGINT ? (uint32_t)GIDD_SIGNAL_INTERRUPT : (uint32_t)GIDD_SIGNAL_LEAVE);
}

void gidd_signals_install(void)
{
    static const int numbers[] = {SIGUSR1, SIGUSR2, SIGTERM, SIGINT};
    struct sigaction action = {.sa_handler = remember_signal, .sa_flags = SA_RESTART};
    (void)sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        (void)sigaction(numbers[i], &action, NULL);
    }
    action.sa_handler = SIG_IGN; // a closed pipe is a write error, not a death
    (void)sigaction(SIGPIPE, &action, NULL);
}

uint32_t gidd_signals_seen(void)
{
    return atomic_load(&seen);
}
