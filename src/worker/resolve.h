/* SPDX-License-Identifier: Apache-2.0
 *
 * What a configuration means: the shapes, schedules, shares and devices that follow from its keys. Training,
 * evaluation, sampling and the plan of --dry-run all ask here.
 */
#ifndef GIDD_WORKER_RESOLVE_H
#define GIDD_WORKER_RESOLVE_H

#include "base/config.h"
#include "comm/bucket.h"
#include "diffusion/schedule.h"
#include "diffusion/vocab.h"
#include "kernels/device.h"
#include "model/model.h"
#include "model/params.h"

/* The network's ids over a tokenizer of `base_ids` ids. Local. */
gidd_vocab gidd_resolve_vocab(const gidd_config *config, int32_t base_ids);

/* Shapes that a configuration and a tokenizer of `base_ids` ids give. Local. */
gidd_model_shape gidd_resolve_shape(const gidd_config *config, int32_t base_ids);

/* The loss of the configuration's type of model and noise process. Local. */
gidd_loss_kind gidd_resolve_loss(const gidd_config *config);

/* Noise process, loss weights and their bounds. Local. */
gidd_schedule_args gidd_resolve_schedule(const gidd_config *config, const gidd_vocab *vocab);

/* Sequences of a step on each of `ranks` ranks and of a micro-batch. GIDD_ERR_CONFIG: G is not divisible; the
 * text lists the numbers of ranks that do. Local. */
gidd_status gidd_resolve_split(const gidd_config *config, int ranks, int64_t *rows_p, int64_t *micro_p);

/* What backward recomputes. Local. */
gidd_recompute gidd_resolve_recompute(const gidd_config *config);

/* Opens the device that a configuration names: "auto" and "cuda" take the node's `node_rank`-th GPU (of fewer GPUs
 * than ranks they take turns), "auto" the CPU where there is none; GIDD_ERR_DEVICE: no GPU, or no driver for it;
 * GIDD_ERR_UNSUPPORTED: this build has no code for it; threads are the rank's share of `node_size`. *device_p is
 * the caller's. Local. */
gidd_status gidd_resolve_device(const gidd_config *config, int node_rank, int node_size, gidd_device **device_p);

/* 1: the device is a GPU that no other of the node's `node_size` ranks has. Local. */
int gidd_resolve_owns_gpu(const gidd_device *device, int node_size);

/* What carries the gradients, by comm.backend: NCCL where every rank of the job has a GPU of its own, else MPI.
 * Asked for NCCL, GIDD_ERR_CONFIG: the device is no GPU; GIDD_ERR_DEVICE: more ranks than GPUs. Local. */
gidd_status gidd_resolve_transport(const gidd_config *config, const gidd_device *device, int all_have_own_gpu,
                                   gidd_bucket_transport *transport_p);

#endif
