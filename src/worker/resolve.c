/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/resolve.h"

#include "kernels/kernels.h"

#include "base/processors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

gidd_vocab gidd_resolve_vocab(const gidd_config *config, int32_t base_ids)
{
    return config->model.pad == GIDD_CONFIG_PAD_EOS ? gidd_vocab_with_eos_pad(base_ids) : gidd_vocab_of(base_ids);
}

gidd_model_shape gidd_resolve_shape(const gidd_config *config, int32_t base_ids)
{
    gidd_vocab vocab = gidd_resolve_vocab(config, base_ids);
    return (gidd_model_shape){
        .type = config->model.type == GIDD_CONFIG_AUTOREGRESSIVE ? GIDD_MODEL_AUTOREGRESSIVE : GIDD_MODEL_DIFFUSION,
        .D = config->model.hidden_size,
        .L = config->model.blocks,
        .H = config->model.heads,
        .C = config->model.cond_size,
        .T = config->model.context,
        .V = vocab.V,
        .Vr = vocab.Vr,
        .mask_id = vocab.mask,
    };
}

gidd_loss_kind gidd_resolve_loss(const gidd_config *config)
{
    if (config->model.type == GIDD_CONFIG_AUTOREGRESSIVE) {
        return GIDD_LOSS_NEXT;
    }
    return config->diffusion.process == GIDD_CONFIG_MDLM ? GIDD_LOSS_MDLM : GIDD_LOSS_GIDD;
}

static gidd_process process_of(const gidd_config *config)
{
    static const gidd_process processes[] = {
        [GIDD_LOSS_GIDD] = GIDD_PROCESS_GIDD, [GIDD_LOSS_MDLM] = GIDD_PROCESS_MDLM, [GIDD_LOSS_NEXT] = GIDD_PROCESS_NONE};
    return processes[gidd_resolve_loss(config)];
}

gidd_schedule_args gidd_resolve_schedule(const gidd_config *config, const gidd_vocab *vocab)
{
    static const gidd_weighting weightings[] = {
        [GIDD_CONFIG_WEIGHT_NONE] = GIDD_WEIGHTING_NONE,
        [GIDD_CONFIG_WEIGHT_CLIP] = GIDD_WEIGHTING_CLIP,
        [GIDD_CONFIG_WEIGHT_DYNAMIC] = GIDD_WEIGHTING_DYNAMIC,
    };
    return (gidd_schedule_args){
        .process = process_of(config),
        .weighting = weightings[config->loss.weighting],
        .p_uniform = config->model.p_uniform,
        .t_eps = config->diffusion.t_eps,
        .min_weight = config->loss.min_weight,
        .max_weight = config->loss.max_weight,
        .vocab_size = vocab->V,
        .mask_id = vocab->mask,
    };
}

gidd_status gidd_resolve_split(const gidd_config *config, int ranks, int64_t *rows_p, int64_t *micro_p)
{
    int64_t G = config->training.global_batch;
    if (G % ranks != 0) {
        char   allowed[256] = "";
        size_t used = 0;
        for (int64_t count = 1; count <= G && used < sizeof allowed - 16; count++) {
            if (G % count == 0) {
                used += (size_t)snprintf(allowed + used, sizeof allowed - used, "%s%lld", used > 0 ? ", " : "",
                                         (long long)count);
            }
        }
        return gidd_fail(GIDD_ERR_CONFIG, "%s: training.global_batch: %lld sequences cannot be shared by %d ranks; allowed "
                         "numbers of ranks: %s", gidd_config_place(config, "training.global_batch"), (long long)G, ranks,
                         allowed);
    }
    int64_t rows = G / ranks, micro = config->training.micro_batch;
    if (micro == 0) { // the largest divisor that is not too large
        for (micro = rows < 64 ? rows : 64; rows % micro != 0; micro--) {
        }
    }
    *rows_p = rows;
    *micro_p = micro < rows ? micro : rows;
    return GIDD_OK;
}

gidd_recompute gidd_resolve_recompute(const gidd_config *config)
{
    static const gidd_recompute kinds[] = {
        [GIDD_CONFIG_RECOMPUTE_NONE] = GIDD_RECOMPUTE_NONE,
        [GIDD_CONFIG_RECOMPUTE_MLP] = GIDD_RECOMPUTE_MLP,
        [GIDD_CONFIG_RECOMPUTE_BLOCK] = GIDD_RECOMPUTE_BLOCK,
    };
    return kinds[config->training.recompute];
}

gidd_status gidd_resolve_device(const gidd_config *config, int node_rank, int node_size, gidd_device **device_p)
{
    const char      *kind = config->device.kind;
    int              is_auto = strcmp(kind, "auto") == 0, wants_cuda = is_auto || strcmp(kind, "cuda") == 0, gpus = 0;
    char             name[GIDD_CONFIG_TEXT_MAX + 16];
    gidd_device_args args = {.name = name,
                             .dtype = config->training.precision == GIDD_CONFIG_BF16 ? GIDD_BF16 : GIDD_F32,
                             .threads = gidd_processors_share(config->device.threads, node_size)};
    gidd_status      status = wants_cuda ? gidd_device_count("cuda", &gpus) : GIDD_OK;
    if (wants_cuda && status == GIDD_OK) { // one a rank of a node; where there are too few, ranks share
        (void)snprintf(name, sizeof name, "cuda:%d", node_rank % gpus);
    } else {
        (void)snprintf(name, sizeof name, "%s", is_auto ? "cpu" : kind);
    }
    if (status == GIDD_OK) {
        status = gidd_device_open(&args, device_p);
    }
    if (is_auto && (status == GIDD_ERR_DEVICE || status == GIDD_ERR_UNSUPPORTED)) {
        (void)snprintf(name, sizeof name, "cpu");
        status = gidd_device_open(&args, device_p);
    }
    return status;
}

int gidd_resolve_owns_gpu(const gidd_device *device, int node_size)
{
    int gpus = 0;
    return strcmp(device->kernels->device, "cuda") == 0 && gidd_device_count("cuda", &gpus) == GIDD_OK && gpus >= node_size;
}

gidd_status gidd_resolve_transport(const gidd_config *config, const gidd_device *device, int all_have_own_gpu,
                                   gidd_bucket_transport *transport_p)
{
    int asked = config->comm.backend, is_cuda = strcmp(device->kernels->device, "cuda") == 0;
    if (asked == GIDD_CONFIG_BACKEND_NCCL && !is_cuda) {
        return gidd_fail(GIDD_ERR_CONFIG, "%s: comm.backend: nccl sums on GPUs, and the device is %s: leave it auto, or set "
                         "device.kind=cuda", gidd_config_place(config, "comm.backend"), device->kernels->device);
    }
    if (asked == GIDD_CONFIG_BACKEND_NCCL && !all_have_own_gpu) {
        return gidd_fail(GIDD_ERR_DEVICE, "comm.backend=nccl needs a GPU for each rank, and a node has more ranks than GPUs: "
                         "start one rank per GPU, or set comm.backend=mpi");
    }
    int use_nccl = is_cuda && all_have_own_gpu && asked != GIDD_CONFIG_BACKEND_MPI;
    *transport_p = use_nccl ? GIDD_BUCKET_NCCL : GIDD_BUCKET_MPI;
    return GIDD_OK;
}
