/* SPDX-License-Identifier: Apache-2.0
 *
 * From a configuration to the objects of a run, and back to nothing.
 */
#include "worker/worker.h"

#include "base/log.h"
#include "coordinator/skip_guard.h"
#include "io/gemm_record.h"
#include "worker/evaluate.h"
#include "worker/memory.h"
#include "worker/products.h"
#include "worker/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static gidd_status open_loader(gidd_worker *worker)
{
    const gidd_config     *config = worker->config;
    const gidd_data_info *info = gidd_data_set_info(worker->data);
    worker->vocab = gidd_resolve_vocab(config, info->vocab_size);
    gidd_schedule_args schedule = gidd_resolve_schedule(config, &worker->vocab);
    GIDD_TRY(gidd_schedule_init(&worker->schedule, &schedule));
    return gidd_loader_open(&(gidd_loader_args){.mix = gidd_data_set_parts(worker->data),
                                                .mix_count = info->source_count,
                                                .schedule = &worker->schedule,
                                                .vocab = worker->vocab,
                                                .seed = (uint64_t)config->run.seed,
                                                .eval_seed = (uint64_t)config->eval.seed,
                                                .global_batch = config->training.global_batch,
                                                .T = config->model.context,
                                                .max_add_padding = config->data.max_add_padding,
                                                .window = (gidd_window_mode)config->data.window},
                            &worker->loader);
}

static gidd_status make_layout(gidd_worker *worker)
{
    static const char *const sections[] = {"master", "adam_m", "adam_v", "ema"}; // in the order of section_memory
    const int                count = worker->config->optimizer.ema_decay > 0 ? 4 : 3;
    return gidd_layout_of_params(&worker->params, sections, count, &worker->layout);
}

// All of the parameters' state, or with ZeRO-1 this rank's pieces.
static gidd_status open_slice(gidd_worker *worker)
{
    gidd_comm *workers = worker->args.comms->workers;
    return worker->config->comm.zero ? gidd_slice_init(&worker->slice, &worker->params, gidd_comm_rank(workers),
                                                       gidd_comm_size(workers))
                                     : gidd_slice_init(&worker->slice, &worker->params, 0, 1);
}

static int wants_graphs(const gidd_worker *worker)
{
    int asked = worker->config->device.graphs;
    return asked == GIDD_CONFIG_GRAPHS_ON ||
           (asked == GIDD_CONFIG_GRAPHS_AUTO && strncmp(worker->device->kernels->device, "cuda", 4) == 0);
}

// Of a step. With `rehearse` they are recorded in any case and forgotten: every product has been met then.
static gidd_status open_segments(gidd_worker *worker, int rehearse)
{
    const gidd_config *config = worker->config;
    int64_t            rows = config->training.global_batch / gidd_comm_size(worker->args.comms->workers);
    int64_t            micro_batches = (rows + worker->micro_batch - 1) / worker->micro_batch;
    gidd_skip_guard    guard; // only to know whether any order will say so
    gidd_skip_guard_init(&guard, config);
    worker->step = (gidd_step_context){.model = worker->model,
                                       .optimizer = worker->optimizer,
                                       .results = worker->results,
                                       .micro_batches = micro_batches};
    GIDD_TRY(gidd_segments_create(
        &(gidd_segments_args){.model = worker->model,
                              .optimizer = worker->optimizer,
                              .scale = 1.0f / (float)(config->training.global_batch * config->model.context),
                              .T = config->model.context,
                              .B = worker->micro_batch,
                              .last_B = rows - (micro_batches - 1) * worker->micro_batch,
                              .micro_batches = micro_batches,
                              .may_skip = guard.skips,
                              .use_graphs = rehearse || wants_graphs(worker),
                              .chunk_done = gidd_step_poll,
                              .grads_ready = gidd_step_post,
                              .context = &worker->step},
        &worker->segments));
    if (rehearse) {
        gidd_segments_destroy(worker->segments);
        worker->segments = NULL;
    }
    worker->step.segments = worker->segments;
    return GIDD_OK;
}

static gidd_status meet_products(void *context)
{
    return open_segments(context, 1);
}

// The algorithms of all products, then the segments that use them.
static gidd_status settle_products(gidd_worker *worker)
{
    GIDD_TRY(gidd_products_settle(&(gidd_products_args){.workers = worker->args.comms->workers,
                                                        .device = worker->device,
                                                        .run_dir = worker->config->run.dir,
                                                        .meet = meet_products,
                                                        .context = worker}));
    return gidd_comm_agree(worker->args.comms->workers, open_segments(worker, 0));
}

// What takes memory on the device.
static gidd_status allocate_model(gidd_worker *worker, const gidd_model_args *args)
{
    const gidd_config *config = worker->config;
    GIDD_TRY(gidd_model_create(args, &worker->model));
    GIDD_TRY(gidd_optimizer_create(&(gidd_optimizer_args){.device = worker->device,
                                                          .params = &worker->params,
                                                          .slice = &worker->slice,
                                                          .beta1 = config->optimizer.beta1,
                                                          .beta2 = config->optimizer.beta2,
                                                          .epsilon = config->optimizer.epsilon,
                                                          .weight_decay = config->optimizer.weight_decay,
                                                          .clip = config->optimizer.clip,
                                                          .ema_decay = config->optimizer.ema_decay},
                                   &worker->optimizer));
    return gidd_results_create(worker->model, worker->optimizer, &worker->results);
}

static gidd_status open_model(gidd_worker *worker)
{
    const gidd_config *config = worker->config;
    int64_t            rows = 0;
    GIDD_TRY(open_slice(worker));
    GIDD_TRY(gidd_resolve_split(config, gidd_comm_size(worker->args.comms->workers), &rows, &worker->micro_batch));
    GIDD_TRY(gidd_resolve_device(config, worker->args.comms->node_rank, worker->args.comms->node_size, &worker->device));
    gidd_device_describe(worker->device, worker->device_text, sizeof worker->device_text);
    gidd_log(GIDD_LOG_INFO, "device", "%s", worker->device_text);
    gidd_model_args args = {.device = worker->device,
                            .params = &worker->params,
                            .slice = &worker->slice,
                            .mode = GIDD_MODEL_TRAIN,
                            .recompute = gidd_resolve_recompute(config),
                            .loss = gidd_resolve_loss(config),
                            .max_B = worker->micro_batch,
                            .max_T = config->model.context};
    gidd_status status = allocate_model(worker, &args);
    if (status != GIDD_OK) {
        return status == GIDD_ERR_NOMEM ? gidd_memory_explain(&(gidd_memory_args){&args, config->optimizer.ema_decay}) : status;
    }
    void *memory = aligned_alloc(64, (gidd_batch_bytes(worker->micro_batch, config->model.context) + 63) / 64 * 64);
    if (memory == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the evaluation batch");
    }
    gidd_batch_layout(&worker->eval_batch, worker->micro_batch, config->model.context, memory);
    return GIDD_OK;
}

// What carries the gradients: the same on all ranks, so that it is NCCL only where every rank has a GPU of its own.
static gidd_status open_reduction(gidd_worker *worker)
{
    gidd_comm            *workers = worker->args.comms->workers;
    int64_t               own_gpu = gidd_resolve_owns_gpu(worker->device, worker->args.comms->node_size);
    gidd_bucket_transport transport = GIDD_BUCKET_MPI;
    GIDD_TRY(gidd_comm_allreduce_int64(workers, &own_gpu, 1, GIDD_COMM_MIN));
    GIDD_TRY(gidd_comm_agree(workers, gidd_resolve_transport(worker->config, worker->device, (int)own_gpu, &transport)));
    GIDD_TRY(gidd_reduction_open(&worker->reduction, &(gidd_reduction_args){.workers = workers,
                                                                            .model = worker->model,
                                                                            .transport = transport,
                                                                            .deterministic = worker->config->comm.deterministic}));
    worker->reduction_text = gidd_bucket_transport_name(transport);
    worker->step.buckets = worker->reduction.buckets;
    return GIDD_OK;
}

// The coordinator puts the record into its checkpoints.
static gidd_status keep_products(gidd_worker *worker)
{
    char   path[GIDD_CONFIG_TEXT_MAX + 32];
    size_t bytes = 0;
    char  *text = NULL;
    (void)snprintf(path, sizeof path, "%s/gemm.json", worker->config->run.dir);
    if (!worker->is_coordinator || gidd_gemm_record_read(path, &text, &bytes) != GIDD_OK) {
        return GIDD_OK; // none was made
    }
    worker->gemm_text = strndup(text, bytes);
    free(text);
    return worker->gemm_text != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory for the record of matrix products");
}

gidd_status gidd_worker_build(gidd_worker *worker)
{
    const gidd_config *config = worker->config;
    gidd_watch_point(worker->watch, GIDD_WATCH_STARTUP, 0, "model");
    gidd_status local = open_loader(worker);
    if (local == GIDD_OK) {
        gidd_model_shape shape = gidd_resolve_shape(config, gidd_data_set_info(worker->data)->vocab_size);
        int64_t          pieces = worker->has_slice ? gidd_comm_size(worker->args.comms->workers) : 1;
        local = gidd_params_init(&worker->params, &shape, (size_t)(config->comm.bucket_mib * 1048576), pieces);
    }
    if (local == GIDD_OK) {
        local = make_layout(worker);
    }
    if (local == GIDD_OK && worker->has_slice) {
        local = open_model(worker);
    }
    GIDD_TRY(gidd_comm_agree(worker->world, local));
    if (worker->has_slice) {
        local = settle_products(worker);
        local = local == GIDD_OK ? open_reduction(worker) : local;
        worker->step.workers = worker->args.comms->workers;
    }
    GIDD_TRY(gidd_comm_agree(worker->world, local));
    return gidd_comm_agree(worker->world, keep_products(worker));
}

gidd_status gidd_worker_open_feed(gidd_worker *worker, int64_t first_step, int64_t end_step)
{
    int64_t first = 0, rows = 0;
    gidd_loader_slice(worker->config->training.global_batch, gidd_comm_rank(worker->args.comms->workers),
                      gidd_comm_size(worker->args.comms->workers), &first, &rows);
    GIDD_TRY(gidd_feed_create(worker->device,
                              &(gidd_prefetch_args){.loader = worker->loader,
                                                    .first_step = first_step,
                                                    .end_step = end_step,
                                                    .row_first = first,
                                                    .row_count = rows,
                                                    .micro_batch = worker->micro_batch},
                              &worker->feed));
    worker->step.feed = worker->feed;
    return GIDD_OK;
}

void gidd_worker_release(gidd_worker *worker)
{
    gidd_feed_destroy(worker->feed);
    gidd_segments_destroy(worker->segments);
    gidd_results_destroy(worker->results);
    gidd_protocol_destroy(worker->protocol);
    gidd_checkpoint_writer_destroy(worker->writer);
    (void)!gidd_coordinator_close(worker->coordinator); // open only after a failure, which is being told
    gidd_reduction_close(&worker->reduction);
    gidd_optimizer_destroy(worker->optimizer);
    gidd_model_destroy(worker->model);
    gidd_slice_release(&worker->slice);
    gidd_device_close(worker->device);
    free(worker->eval_batch.memory);
    free(worker->layout.tensors);
    gidd_params_release(&worker->params);
    gidd_loader_close(worker->loader);
    gidd_data_set_close(worker->data);
    gidd_run_lock_release(worker->lock);
    gidd_watch_destroy(worker->watch);
    free(worker->config_text);
    free(worker->gemm_text);
}
