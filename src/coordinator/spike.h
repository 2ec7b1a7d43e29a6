/* SPDX-License-Identifier: Apache-2.0
 *
 * Loss spikes: what the training loss usually is, and from which value on a step's loss counts as a spike.
 *
 *     mean, deviation   moving averages over training.spike_window steps; spikes and non-finite losses do not
 *                       enter them
 *     limit             mean + training.spike_z * deviation; before spike_window steps were seen, the
 *                       largest finite number
 *
 * A loss is a spike unless it is at most the limit, so NaN and infinity always are. What happens then is
 * training.spike_policy (PROTOCOL.md, "Bad steps"). The state is part of the checkpoint.
 */
#ifndef GIDD_COORDINATOR_SPIKE_H
#define GIDD_COORDINATOR_SPIKE_H

#include "base/config.h"

#include <stddef.h>

enum { GIDD_SPIKE_TEXT_MAX = 160 };

typedef struct gidd_spike {
    int    policy;       /* GIDD_CONFIG_SPIKE_*                                  */
    double z, window;
    double count;        /* losses that entered the averages                     */
    double mean, square; /* moving averages of the loss and of its squared distance from the mean */
    double previous;     /* limit as it stood before the last loss               */
} gidd_spike;

/* Local. */
void gidd_spike_init(gidd_spike *spike, const gidd_config *config);

/* The limit now. Local. */
double gidd_spike_limit(const gidd_spike *spike);

/* Takes note of a step's loss (sum over all ranks / positions). 1: it was a spike. Local. */
int gidd_spike_observe(gidd_spike *spike, double loss);

/* The state as text, exact to the bit, and back; 0: `text` is not one. Local. */
void gidd_spike_format(const gidd_spike *spike, char text[GIDD_SPIKE_TEXT_MAX]);
int  gidd_spike_parse(gidd_spike *spike, const char *text);

#endif
