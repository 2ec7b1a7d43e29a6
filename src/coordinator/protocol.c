/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/protocol.h"

#include "coordinator/signals.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const int64_t longest_ns = INT64_MAX / 8; // of a time in a report: sums of a few cannot overflow

struct gidd_protocol {
    gidd_protocol_args args;
    int64_t            next_step;   /* whose order gidd_protocol_order returns next             */
    gidd_order         order;       /* pinned until the broadcast is complete                   */
    gidd_comm_request  order_request;
    gidd_report        mine;        /* pinned until the gather is complete                      */
    gidd_report       *reports;     /* [size] on the coordinator                                */
    gidd_comm_request  report_request;
    int64_t            report_step; /* step of the gather in flight; -1: none                    */
};

gidd_status gidd_order_check(const gidd_order *order, int64_t step)
{
    if (order->magic != GIDD_ORDER_MAGIC || order->step != step) {
        return gidd_fail(GIDD_ERR_COMM, "the coordinator's order for step %" PRId64 " is not one (magic %" PRIx64
                         ", step %" PRId64 "): the coordinator failed, or the programs differ",
                         step, order->magic, order->step);
    }
    if ((order->actions & ~(uint32_t)GIDD_ACT_ALL) != 0 || order->reason >= GIDD_STOP_REASONS || !isfinite(order->lr) ||
        isnan(order->loss_limit)) {
        return gidd_fail(GIDD_ERR_COMM, "the coordinator's order for step %" PRId64 " asks for the unknown (actions %" PRIx32
                         ", reason %" PRIu32 ", learning rate %g)", step, order->actions, order->reason, order->lr);
    }
    return GIDD_OK;
}

static int is_time(int64_t ns)
{
    return ns >= 0 && ns <= longest_ns;
}

gidd_status gidd_report_check(const gidd_report *report, int64_t step, int rank)
{
    if (report->magic != GIDD_REPORT_MAGIC || report->step != step) {
        return gidd_fail(GIDD_ERR_COMM, "rank %d reports step %" PRId64 " (magic %" PRIx64 ") where step %" PRId64
                         " was due", rank, report->step, report->magic, step);
    }
    if (report->writer >= GIDD_WRITER_STATES || (report->signals & ~(uint32_t)GIDD_SIGNALS_ALL) != 0 || report->skipped < 0 ||
        report->skipped > 1 || report->skipped_in_row < 0 || report->head_rows < 0 || !is_time(report->step_ns) ||
        !is_time(report->data_ns) || !is_time(report->comm_ns)) {
        return gidd_fail(GIDD_ERR_COMM, "rank %d reports the impossible for step %" PRId64 " (writer %" PRIu32
                         ", signals %" PRIx32 ", skipped %" PRId64 ")", rank, step, report->writer, report->signals,
                         report->skipped);
    }
    return GIDD_OK;
}

static int is_coordinator(const gidd_protocol *protocol)
{
    return gidd_comm_rank(protocol->args.comm) == protocol->args.coordinator;
}

// Decides on the coordinator and starts the broadcast. A failure to decide must still reach everybody:
// it is sent as an order with a wrong magic, so that no rank waits for ever.
static gidd_status send_order(gidd_protocol *protocol, const gidd_report *reports, int64_t step)
{
    gidd_status decided = GIDD_OK;
    if (is_coordinator(protocol)) {
        protocol->order = (gidd_order){.magic = GIDD_ORDER_MAGIC, .step = step};
        decided = protocol->args.decide(protocol->args.context, reports, protocol->report_step, step, &protocol->order);
        if (decided != GIDD_OK) {
            protocol->order.magic = 0;
        }
    }
    GIDD_TRY(gidd_comm_ibcast(protocol->args.comm, protocol->args.coordinator, &protocol->order, sizeof protocol->order,
                              &protocol->order_request));
    return decided;
}

gidd_status gidd_protocol_create(const gidd_protocol_args *args, gidd_protocol **protocol_p)
{
    gidd_protocol *protocol = calloc(1, sizeof *protocol);
    gidd_report   *reports = calloc((size_t)gidd_comm_size(args->comm), sizeof *reports);
    gidd_status    local = protocol != NULL && reports != NULL
                               ? GIDD_OK
                               : gidd_fail(GIDD_ERR_NOMEM, "no memory for the order protocol");
    gidd_status    status = gidd_comm_agree(args->comm, local);
    if (status == GIDD_OK) {
        protocol->args = *args;
        protocol->reports = reports;
        protocol->next_step = args->first_step;
        protocol->report_step = -1;
        status = send_order(protocol, NULL, args->first_step);
    }
    if (status != GIDD_OK) {
        free(reports);
        free(protocol);
        return status;
    }
    *protocol_p = protocol;
    return GIDD_OK;
}

void gidd_protocol_destroy(gidd_protocol *protocol)
{
    if (protocol != NULL) {
        free(protocol->reports);
        free(protocol);
    }
}

gidd_status gidd_protocol_order(gidd_protocol *protocol, gidd_order *order)
{
    GIDD_TRY(gidd_comm_wait(&protocol->order_request));
    GIDD_TRY(gidd_order_check(&protocol->order, protocol->next_step));
    *order = protocol->order;
    protocol->next_step++;
    return GIDD_OK;
}

// Completes the gather in flight, if any; *reports_p is NULL where there is nothing to read.
static gidd_status take_reports(gidd_protocol *protocol, const gidd_report **reports_p)
{
    *reports_p = NULL;
    if (protocol->report_step < 0) {
        return GIDD_OK;
    }
    GIDD_TRY(gidd_comm_wait(&protocol->report_request));
    if (!is_coordinator(protocol)) {
        return GIDD_OK;
    }
    for (int rank = 0; rank < gidd_comm_size(protocol->args.comm); rank++) {
        GIDD_TRY(gidd_report_check(&protocol->reports[rank], protocol->report_step, rank));
    }
    *reports_p = protocol->reports;
    return GIDD_OK;
}

gidd_status gidd_protocol_advance(gidd_protocol *protocol)
{
    const gidd_report *reports = NULL;
    gidd_status        taken = take_reports(protocol, &reports);
    if (taken != GIDD_OK && !is_coordinator(protocol)) {
        return taken;
    }
    // a coordinator with a bad report still has to send something: see send_order
    if (taken != GIDD_OK) {
        protocol->order.magic = 0;
        GIDD_TRY(gidd_comm_ibcast(protocol->args.comm, protocol->args.coordinator, &protocol->order,
                                  sizeof protocol->order, &protocol->order_request));
        return taken;
    }
    return send_order(protocol, reports, protocol->next_step);
}

gidd_status gidd_protocol_report(gidd_protocol *protocol, const gidd_report *report)
{
    protocol->mine = *report;
    protocol->mine.magic = GIDD_REPORT_MAGIC;
    GIDD_ASSERT(report->step == protocol->next_step - 1 || report->step == protocol->next_step - 2);
    protocol->report_step = protocol->mine.step;
    return gidd_comm_igather(protocol->args.comm, protocol->args.coordinator, &protocol->mine, sizeof protocol->mine,
                             protocol->reports, &protocol->report_request);
}

gidd_loss_sums gidd_reports_eval(const gidd_report *reports, int count)
{
    gidd_loss_sums total = {.min_log_px = HUGE_VAL};
    for (int rank = 0; rank < count; rank++) {
        if (reports[rank].eval.positions > 0) { // else no evaluation, or no slice: not sums, but zeros
            gidd_loss_sums_add(&total, &reports[rank].eval);
        }
    }
    return total;
}

gidd_status gidd_protocol_drain(gidd_protocol *protocol)
{
    const gidd_report *reports = NULL;
    GIDD_TRY(gidd_comm_wait(&protocol->order_request));
    GIDD_TRY(take_reports(protocol, &reports));
    if (reports != NULL) {
        GIDD_TRY(protocol->args.decide(protocol->args.context, reports, protocol->report_step, -1, NULL));
    }
    protocol->report_step = -1;
    return GIDD_OK;
}
