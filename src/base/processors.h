/* SPDX-License-Identifier: Apache-2.0
 *
 * How many threads a rank starts.
 */
#ifndef GIDD_BASE_PROCESSORS_H
#define GIDD_BASE_PROCESSORS_H

#include <stdint.h>

/* What was asked for (device.threads) if above 0, else OMP_NUM_THREADS if that is a positive number, else this
 * rank's share of the processors that its process may run on, `ranks` being the ranks of its node (0 counts as 1).
 * At least 1. Local. */
int gidd_processors_share(int64_t asked, int ranks);

#endif
