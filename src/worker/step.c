/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step.h"

#include "base/clock.h"
#include "base/fault.h"
#include "worker/replicate.h"

#include <string.h>

// Keeps MPI moving between the head's chunks; a failure is told at the next place that can return it.
static void poll_reduction(void *context)
{
    gidd_step_context *c = context;
    if (c->poll_status == GIDD_OK) {
        c->poll_status = gidd_bucket_poll(c->buckets);
    }
}

// Backward has completed all gradients up to `group`: buckets that end there can be summed over the ranks.
static void post_buckets(void *context, int32_t group)
{
    gidd_step_context *c = context;
    const gidd_params *params = c->model->params;
    while (c->poll_status == GIDD_OK && c->next_bucket < params->bucket_count) {
        const gidd_param_bucket *bucket = &params->buckets[c->next_bucket];
        if (bucket->first_group + bucket->group_count - 1 > group) {
            break;
        }
        c->poll_status = gidd_bucket_post(c->buckets, c->next_bucket++);
    }
    poll_reduction(c);
}

static gidd_status run_micro_batch(gidd_step_context *c, int64_t index, int skip_clean, gidd_report *report)
{
    const gidd_batch *batch = NULL;
    int               last = index + 1 == c->micro_batches;
    gidd_fault_point("fetch");
    GIDD_TRY(gidd_prefetch_next(c->prefetch, &batch));
    GIDD_TRY(gidd_model_load(c->model, batch));
    report->head_rows += gidd_model_head_rows(c->model, skip_clean);
    gidd_fault_point("forward");
    GIDD_TRY(gidd_model_forward(c->model));
    GIDD_TRY(gidd_model_head(c->model, &(gidd_head_args){.mode = GIDD_LOSS_TRAIN,
                                                         .scale = c->scale,
                                                         .accumulate = index > 0,
                                                         .skip_clean = skip_clean,
                                                         .chunk_done = poll_reduction,
                                                         .context = c}));
    if (index == 0 && c->protocol != NULL) {
        GIDD_TRY(gidd_protocol_advance(c->protocol)); // the last step's reports have long arrived
    }
    gidd_fault_point("backward");
    if (last && gidd_fault_nan("gradient")) {
        c->model->grads[0] = __builtin_nanf(""); // on the CPU the device's memory is the host's
    }
    GIDD_TRY(gidd_model_backward(c->model, &(gidd_backward_args){.accumulate = index > 0,
                                                                 .grads_ready = last ? post_buckets : NULL,
                                                                 .context = c}));
    gidd_prefetch_release(c->prefetch);
    return c->poll_status;
}

static gidd_status update(gidd_step_context *c, const gidd_order *order)
{
    GIDD_TRY(gidd_optimizer_set(c->optimizer, order->step, order->lr));
    GIDD_TRY(gidd_optimizer_norm(c->optimizer, c->model));
    GIDD_TRY(gidd_replicate_norm(c->optimizer, c->buckets));
    GIDD_TRY(gidd_optimizer_apply(c->optimizer, c->model));
    return gidd_replicate_weights(c->model, c->buckets);
}

gidd_status gidd_step_run(gidd_step_context *c, const gidd_order *order, gidd_report *report)
{
    int64_t start_ns = gidd_clock_ns(), waited_ns = gidd_prefetch_waited_ns(c->prefetch);
    memset(report, 0, sizeof *report);
    c->next_bucket = 0;
    c->poll_status = GIDD_OK;
    GIDD_TRY(gidd_model_zero_sums(c->model));
    for (int64_t i = 0; i < c->micro_batches; i++) {
        gidd_watch_point(c->watch, GIDD_WATCH_STEP, order->step, "micro-batch");
        GIDD_TRY(run_micro_batch(c, i, (order->actions & GIDD_ACT_SKIP_CLEAN) != 0, report));
    }
    gidd_fault_point("reduce");
    int64_t reduce_ns = gidd_clock_ns();
    gidd_watch_point(c->watch, GIDD_WATCH_STEP, order->step, "reduction");
    GIDD_TRY(gidd_bucket_wait_all(c->buckets));
    report->comm_ns = gidd_clock_ns() - reduce_ns;
    gidd_fault_point("update");
    GIDD_TRY(update(c, order));
    int skipped = 0;
    GIDD_TRY(gidd_optimizer_read(c->optimizer, &report->grad_norm, &skipped));
    gidd_fault_point("updated");
    GIDD_TRY(gidd_model_read_sums(c->model, &report->train));
    c->skipped_in_row = skipped ? c->skipped_in_row + 1 : 0;
    report->skipped = skipped;
    report->skipped_in_row = c->skipped_in_row;
    report->data_ns = gidd_prefetch_waited_ns(c->prefetch) - waited_ns;
    report->step_ns = gidd_clock_ns() - start_ns;
    gidd_watch_step_done(c->watch, report->step_ns);
    return GIDD_OK;
}
