/* SPDX-License-Identifier: Apache-2.0
 *
 * Orders and reports over real ranks: which report an order rests on, the last reports at the end, a coordinator
 * that fails, and messages that are none.
 */
#include "coordinator/protocol.h"

#include "support/mpi_test.h"

#include <math.h>
#include <string.h>

typedef struct witness {
    int64_t steps_of_reports[16]; /* by step of the order */
    int64_t last_report;
    int     fail_at, ranks, bad_sum;
    int64_t senseless_at; /* step whose report of the last rank is none; 0: all are good */
} witness;

static gidd_status decide(void *context, const gidd_report *reports, int64_t report_step, int64_t step, gidd_order *order)
{
    witness *w = context;
    if (reports != NULL) {
        w->last_report = report_step;
        for (int rank = 0; rank < w->ranks; rank++) {
            w->bad_sum += reports[rank].grad_norm != (double)(100 * report_step + rank);
        }
    }
    if (order == NULL) {
        return GIDD_OK;
    }
    w->steps_of_reports[step] = reports != NULL ? report_step : -1;
    order->actions = GIDD_ACT_TRAIN;
    order->lr = (double)step / 3;
    return step == w->fail_at ? gidd_fail(GIDD_ERR_IO, "planted") : GIDD_OK;
}

static gidd_status run_steps(gidd_comm_set *set, witness *w, int64_t first, int64_t count, int64_t *done_p)
{
    gidd_protocol *protocol = NULL;
    gidd_status    status = GIDD_OK;
    GIDD_TRY(gidd_protocol_create(&(gidd_protocol_args){.comm = set->protocol, .coordinator = set->coordinator,
                                                        .first_step = first, .decide = decide, .context = w},
                                  &protocol));
    for (int64_t step = first; status == GIDD_OK && step < first + count; step++) {
        gidd_order  order;
        gidd_report report;
        memset(&report, 0, sizeof report);
        GIDD_TRY_GOTO(gidd_protocol_order(protocol, &order));
        if (order.lr != (double)step / 3) {
            status = gidd_fail(GIDD_ERR_CORRUPT, "order %lld has lr %g", (long long)step, order.lr);
            break;
        }
        GIDD_TRY_GOTO(gidd_protocol_advance(protocol));
        report.step = step;
        report.grad_norm = (double)(100 * step + gidd_comm_rank(set->protocol));
        if (w->senseless_at > 0 && step == w->senseless_at && gidd_comm_rank(set->protocol) + 1 == gidd_comm_size(set->protocol)) {
            report.writer = 77;
        }
        GIDD_TRY_GOTO(gidd_protocol_report(protocol, &report));
        *done_p = step;
    }
    status = gidd_protocol_drain(protocol);
out:
    gidd_protocol_destroy(protocol);
    return status;
}

static void order_rests_on_the_report_two_steps_earlier(mpi_test *t)
{
    gidd_comm_set *set = &t->set;
    witness w = {.fail_at = -1, .ranks = gidd_comm_size(set->protocol)};
    int64_t done = -1;
    MPI_TEST_CHECK(t, run_steps(set, &w, 3, 6, &done) == GIDD_OK);
    MPI_TEST_CHECK(t, done == 8);
    if (set->is_coordinator) {
        MPI_TEST_CHECK(t, w.bad_sum == 0);
        MPI_TEST_CHECK(t, w.last_report == 8); // drain delivers the last one
        MPI_TEST_CHECK(t, w.steps_of_reports[3] == -1 && w.steps_of_reports[4] == -1);
        for (int64_t step = 5; step <= 9; step++) {
            MPI_TEST_CHECK(t, w.steps_of_reports[step] == step - 2);
        }
    }
}

static void a_failing_coordinator_ends_all_ranks(mpi_test *t)
{
    gidd_comm_set *set = &t->set;
    witness w = {.fail_at = 4, .ranks = gidd_comm_size(set->protocol)};
    int64_t done = -1;
    gidd_status status = run_steps(set, &w, 0, 10, &done);
    MPI_TEST_CHECK(t, status == (set->is_coordinator ? GIDD_ERR_IO : GIDD_ERR_COMM));
}

static void a_senseless_report_ends_all_ranks(mpi_test *t)
{
    static gidd_comm_set own; // its communicator has a failed exchange in flight: of no further use, never destroyed
    gidd_comm_set *set = &own;
    own = t->set;
    witness w = {.fail_at = -1, .ranks = gidd_comm_size(set->protocol), .senseless_at = 3};
    int64_t done = -1;
    MPI_TEST_OK(t, gidd_comm_dup(t->set.world, &own.protocol));
    MPI_TEST_CHECK(t, run_steps(set, &w, 0, 10, &done) == GIDD_ERR_COMM);
    MPI_TEST_CHECK(t, !set->is_coordinator || strstr(gidd_error_last()->text, "reports the impossible for step 3") != NULL);
}

static void bounds_of_messages(mpi_test *t)
{
    gidd_order  order = {.magic = GIDD_ORDER_MAGIC, .step = 4, .actions = GIDD_ACT_ALL, .reason = GIDD_STOP_DIVERGED};
    gidd_report report = {.magic = GIDD_REPORT_MAGIC, .step = 4};
    MPI_TEST_CHECK(t, gidd_order_check(&order, 4) == GIDD_OK && gidd_order_check(&order, 5) == GIDD_ERR_COMM);
    order.actions |= GIDD_ACT_ALL + 1;
    MPI_TEST_CHECK(t, gidd_order_check(&order, 4) == GIDD_ERR_COMM);
    order = (gidd_order){.magic = GIDD_ORDER_MAGIC, .step = 4, .reason = GIDD_STOP_REASONS};
    MPI_TEST_CHECK(t, gidd_order_check(&order, 4) == GIDD_ERR_COMM);
    order = (gidd_order){.magic = GIDD_ORDER_MAGIC, .step = 4, .lr = (double)NAN};
    MPI_TEST_CHECK(t, gidd_order_check(&order, 4) == GIDD_ERR_COMM);
    MPI_TEST_CHECK(t, gidd_report_check(&report, 4, 0) == GIDD_OK && gidd_report_check(&report, 3, 0) == GIDD_ERR_COMM);
    report.train.loss = (double)NAN; // a computed number may be anything: it is judged elsewhere
    MPI_TEST_CHECK(t, gidd_report_check(&report, 4, 0) == GIDD_OK);
    report.step_ns = INT64_MAX;
    MPI_TEST_CHECK(t, gidd_report_check(&report, 4, 0) == GIDD_ERR_COMM);
    report = (gidd_report){.magic = GIDD_REPORT_MAGIC, .step = 4, .signals = 4};
    MPI_TEST_CHECK(t, gidd_report_check(&report, 4, 0) == GIDD_ERR_COMM);
}

int main(int argc, char **argv)
{
    static const mpi_test_case cases[] = {
        {"order_rests_on_the_report_two_steps_earlier", order_rests_on_the_report_two_steps_earlier, 1},
        {"a_failing_coordinator_ends_all_ranks", a_failing_coordinator_ends_all_ranks, 1},
        {"a_senseless_report_ends_all_ranks", a_senseless_report_ends_all_ranks, 1},
        {"bounds_of_messages", bounds_of_messages, 1},
    };
    return mpi_test_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
