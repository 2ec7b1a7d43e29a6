/* SPDX-License-Identifier: Apache-2.0
 *
 * Every rank holds the same weights; memory or a device that lies can make one copy differ, and nothing in the
 * loss would show it for long. Every comm.check_replicas_every steps the copies are compared by their digests.
 */
#ifndef GIDD_WORKER_REPLICAS_H
#define GIDD_WORKER_REPLICAS_H

#include "comm/comm.h"
#include "model/model.h"

/* Compares the weights that forward reads, over the workers. GIDD_ERR_CORRUPT, on all ranks with the same
 * words, names step, the first tensor that differs and the ranks that stand against the majority (of two
 * ranks nobody knows which is right: both are named). Waits for the device. Collective. */
gidd_status gidd_replicas_check(gidd_comm *workers, gidd_model *model, int64_t step);

#endif
