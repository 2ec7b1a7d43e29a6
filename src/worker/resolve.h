/* SPDX-License-Identifier: Apache-2.0
 *
 * What a configuration means: the shapes, schedules, shares and devices that follow from its keys. Training,
 * evaluation, sampling and the plan of --dry-run all ask here.
 */
#ifndef GIDD_WORKER_RESOLVE_H
#define GIDD_WORKER_RESOLVE_H

#include "base/config.h"
#include "diffusion/schedule.h"
#include "diffusion/vocab.h"
#include "kernels/device.h"
#include "model/model.h"
#include "model/params.h"

/* The network's ids over a tokenizer of `base_ids` ids. Local. */
gidd_vocab gidd_resolve_vocab(const gidd_config *config, int32_t base_ids);

/* Shapes that a configuration and a tokenizer of `base_ids` ids give. Local. */
gidd_model_shape gidd_resolve_shape(const gidd_config *config, int32_t base_ids);

/* Noise process, loss weights and their bounds. Local. */
gidd_schedule_args gidd_resolve_schedule(const gidd_config *config, const gidd_vocab *vocab);

/* Sequences of a step on each of `ranks` ranks and of a micro-batch. GIDD_ERR_CONFIG: G is not divisible; the
 * text lists the numbers of ranks that do. Local. */
gidd_status gidd_resolve_split(const gidd_config *config, int ranks, int64_t *rows_p, int64_t *micro_p);

/* What backward recomputes. Local. */
gidd_recompute gidd_resolve_recompute(const gidd_config *config);

/* Opens the device that a configuration names: "auto" and "cuda" take the node's `node_rank`-th GPU, "auto" the
 * CPU where there is none; threads are the rank's share of `node_size`. *device_p is the caller's. Local. */
gidd_status gidd_resolve_device(const gidd_config *config, int node_rank, int node_size, gidd_device **device_p);

#endif
