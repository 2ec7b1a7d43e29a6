/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step.h"

#include "base/clock.h"
#include "base/fault.h"
#include "worker/replicate.h"

#include <math.h>


// Keeps MPI moving between the head's chunks; a failure is told at the next place that can return it.
void gidd_step_poll(void *context)
{
    gidd_step_context *c = context;
    if (c->poll_status == GIDD_OK) {
        c->poll_status = gidd_bucket_poll(c->buckets);
    }
}

// Backward has completed all gradients up to `group`: buckets that end there can be summed over the ranks.
void gidd_step_post(void *context, int32_t group)
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
    gidd_step_poll(c);
}

static gidd_status run(gidd_step_context *c, gidd_segment segment, gidd_segment_kind kind)
{
    segment.kind = kind;
    return gidd_segment_run(c->segments, &segment);
}

static gidd_status run_micro_batch(gidd_step_context *c, int64_t index, int skip_clean)
{
    const gidd_batch *batch = NULL;
    gidd_fault_point("fetch");
    GIDD_TRY(gidd_feed_take(c->feed, c->model, &batch));
    c->head_rows += gidd_model_head_rows(c->model, skip_clean);
    gidd_segment segment = {.B = batch->B,
                            .accumulate = index > 0,
                            .last = index + 1 == c->micro_batches,
                            .skip_clean = skip_clean,
                            .rows = c->model->listed_rows};
    gidd_fault_point("forward");
    GIDD_TRY(run(c, segment, GIDD_SEGMENT_TRUNK));
    GIDD_TRY(run(c, segment, GIDD_SEGMENT_HEAD));
    GIDD_TRY(gidd_feed_send(c->feed)); // the next record travels while the device is busy
    if (index == 0 && c->midway != NULL) {
        GIDD_TRY(c->midway(c->context));
    }
    gidd_fault_point("backward");
    if (segment.last && gidd_fault_nan("gradient")) {
        c->model->grads[0] = __builtin_nanf(""); // on the CPU the device's memory is the host's
    }
    if (segment.last && gidd_fault_nan("parameter")) {
        c->model->master[0] = __builtin_nanf("");
    }
    GIDD_TRY(run(c, segment, GIDD_SEGMENT_BACKWARD));
    return c->poll_status;
}

// Faults at point `loss`: what a step whose loss is no number, or far too large, looks like.
static double spoil_loss(void)
{
    return gidd_fault_nan("loss") ? (double)NAN : gidd_fault_flip("loss") ? 1e6 : 1;
}

// Whether the parameters stay as they are: by order, or because the loss over all ranks is beyond the order's limit.
// The same answer on all ranks, and before anything is updated. Costs a wait for the device, so only where asked for.
static gidd_status judge_step(gidd_step_context *c, const gidd_order *order, double loss_factor, int *leave_out_p)
{
    gidd_loss_sums sums;
    *leave_out_p = (order->actions & GIDD_ACT_LEAVE_OUT) != 0;
    if (!isfinite(order->loss_limit)) {
        return GIDD_OK;
    }
    GIDD_TRY(gidd_model_read_sums(c->model, &sums));
    double totals[2] = {sums.loss * loss_factor, sums.positions};
    GIDD_TRY(gidd_comm_allreduce_double(c->workers, totals, 2, GIDD_COMM_SUM));
    double loss = totals[0] / totals[1];
    *leave_out_p |= !(loss <= order->loss_limit) || isinf(loss); // NaN compares with nothing
    return GIDD_OK;
}

static gidd_status update(gidd_step_context *c, const gidd_order *order, int leave_out)
{
    const gidd_segment any = {0};
    GIDD_TRY(gidd_optimizer_set(c->optimizer, order->step, order->lr));
    GIDD_TRY(run(c, any, GIDD_SEGMENT_NORM));
    GIDD_TRY(gidd_replicate_norm(c->optimizer, c->buckets));
    if (!leave_out) {
        GIDD_TRY(run(c, any, GIDD_SEGMENT_UPDATE));
        GIDD_TRY(gidd_replicate_weights(c->model, c->buckets));
    }
    if (gidd_fault_flip("weight")) { // the lowest bit of the exponent, on this rank alone
        ((unsigned char *)c->model->weights)[3] ^= 1;
    }
    return GIDD_OK;
}

gidd_status gidd_step_run(gidd_step_context *c, const gidd_order *order)
{
    int64_t start_ns = gidd_clock_ns(), waited_ns = gidd_feed_waited_ns(c->feed);
    c->next_bucket = 0;
    c->poll_status = GIDD_OK;
    c->head_rows = 0;
    GIDD_TRY(gidd_model_zero_sums(c->model));
    for (int64_t i = 0; i < c->micro_batches; i++) {
        gidd_watch_point(c->watch, GIDD_WATCH_STEP, order->step, "micro-batch");
        GIDD_TRY(run_micro_batch(c, i, (order->actions & GIDD_ACT_SKIP_CLEAN) != 0));
    }
    gidd_fault_point("reduce");
    int64_t reduce_ns = gidd_clock_ns();
    gidd_watch_point(c->watch, GIDD_WATCH_STEP, order->step, "reduction");
    GIDD_TRY(gidd_bucket_wait_all(c->buckets));
    struct gidd_step_times times = {.step = order->step,
                                    .head_rows = c->head_rows,
                                    .comm_ns = gidd_clock_ns() - reduce_ns,
                                    .loss_factor = spoil_loss()};
    gidd_fault_point("update");
    GIDD_TRY(judge_step(c, order, times.loss_factor, &times.left_out));
    GIDD_TRY(update(c, order, times.left_out));
    gidd_fault_point("updated");
    GIDD_TRY(gidd_results_send(c->results));
    times.step_ns = gidd_clock_ns() - start_ns;
    times.data_ns = gidd_feed_waited_ns(c->feed) - waited_ns;
    c->times[c->issued++ % 2] = times;
    gidd_watch_step_done(c->watch, times.step_ns);
    return GIDD_OK;
}

int gidd_step_is_open(const gidd_step_context *c)
{
    return c->reported < c->issued;
}

gidd_status gidd_step_report(gidd_step_context *c, gidd_report *report)
{
    gidd_result result;
    GIDD_TRY(gidd_results_take(c->results, &result));
    const struct gidd_step_times *times = &c->times[c->reported++ % 2];
    int skipped = result.update.skip || times->left_out;
    c->skipped_in_row = skipped ? c->skipped_in_row + 1 : 0;
    report->step = times->step;
    report->train = result.train;
    report->train.loss *= times->loss_factor;
    report->grad_norm = result.update.norm;
    report->skipped = skipped;
    report->skipped_in_row = c->skipped_in_row;
    report->head_rows = times->head_rows;
    report->step_ns = times->step_ns;
    report->data_ns = times->data_ns;
    report->comm_ns = times->comm_ns;
    return GIDD_OK;
}
