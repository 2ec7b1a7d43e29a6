/* SPDX-License-Identifier: Apache-2.0
 *
 * ZeRO-1: what each rank computed of its slice becomes known to all. With a whole slice every rank has
 * computed everything, and nothing is done.
 */
#ifndef GIDD_WORKER_REPLICATE_H
#define GIDD_WORKER_REPLICATE_H

#include "comm/bucket.h"
#include "worker/optimizer.h"

/* Between gidd_optimizer_norm and _apply: the partial sums of all slices. Collective. */
gidd_status gidd_replicate_norm(gidd_optimizer *optimizer, gidd_buckets *buckets);

/* After the masters of the slices have changed, and this rank's part of the E copy with them: the whole E
 * copy, and the tensors that are read in fp32. Collective. */
gidd_status gidd_replicate_weights(gidd_model *model, gidd_buckets *buckets);

#endif
