/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/spike.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const double least_deviation = 1e-3; // of the mean: a plateau must not make every ripple a spike

void gidd_spike_init(gidd_spike *spike, const gidd_config *config)
{
    *spike = (gidd_spike){.policy = config->training.spike_policy,
                          .z = config->training.spike_z,
                          .window = (double)config->training.spike_window,
                          .previous = DBL_MAX};
}

double gidd_spike_limit(const gidd_spike *spike)
{
    if (spike->count < spike->window) {
        return DBL_MAX;
    }
    return spike->mean + spike->z * fmax(sqrt(spike->square), least_deviation * fabs(spike->mean));
}

int gidd_spike_observe(gidd_spike *spike, double loss)
{
    double limit = gidd_spike_limit(spike);
    spike->previous = limit;
    if (!(loss <= limit) || isinf(loss)) { // NaN compares with nothing
        return 1;
    }
    double weight = 1 / fmin(spike->count + 1, spike->window), step = loss - spike->mean;
    spike->mean += weight * step;
    spike->square = (1 - weight) * (spike->square + weight * step * step);
    spike->count += 1;
    return 0;
}

void gidd_spike_format(const gidd_spike *spike, char text[GIDD_SPIKE_TEXT_MAX])
{
    (void)snprintf(text, GIDD_SPIKE_TEXT_MAX, "%a %a %a %a", spike->count, spike->mean, spike->square, spike->previous);
}

int gidd_spike_parse(gidd_spike *spike, const char *text)
{
    gidd_spike read = *spike;
    if (sscanf(text, "%la %la %la %la", &read.count, &read.mean, &read.square, &read.previous) != 4 ||
        !isfinite(read.count + read.mean + read.square) || read.count < 0 || read.square < 0 || isnan(read.previous)) {
        return 0;
    }
    *spike = read;
    return 1;
}
