/* SPDX-License-Identifier: Apache-2.0
 *
 * Orders and reports: the two messages between the coordinator and the workers (PROTOCOL.md). Fixed
 * size, on a communicator of their own, posted by every rank in one fixed order:
 *
 *     step k:   wait order k | issue forward | post report k-1, advance | issue the rest
 *     advance:  complete the gather of report k-1; the coordinator decides; broadcast of order k+1
 *
 * so the order for step k+2 rests on report k and on nothing newer, on every machine and at every speed.
 * Waiting for the coordinator costs nothing: its answer is due a step later.
 */
#ifndef GIDD_COORDINATOR_PROTOCOL_H
#define GIDD_COORDINATOR_PROTOCOL_H

#include "comm/comm.h"
#include "kernels/loss.h"

#include <stdint.h>

#define GIDD_ORDER_MAGIC UINT64_C(0x6f72646572303031)  /* "order001" */
#define GIDD_REPORT_MAGIC UINT64_C(0x7265706f72743031) /* "report01" */

/* What an order asks for, in the sequence in which it is done. */
enum {
    GIDD_ACT_COMMIT = 1,     /* before the step: the next stage of the checkpoint in flight */
    GIDD_ACT_STOP = 2,       /* do not do this step; save and leave                      */
    GIDD_ACT_TRAIN = 4,      /* do this step                                             */
    GIDD_ACT_EVAL = 8,       /* after the step: validation                               */
    GIDD_ACT_CHECKPOINT = 16, /* after the step: begin a checkpoint                      */
    GIDD_ACT_SKIP_CLEAN = 32, /* TRAIN leaves rows with z = x out of head and loss       */
    GIDD_ACT_LEAVE_OUT = 64,  /* of the step: compute it, but leave the parameters       */
    GIDD_ACT_ALL = 127
};

typedef enum gidd_stop_reason {
    GIDD_STOP_NONE = 0,
    GIDD_STOP_FINISHED,   /* the last step is done                    exit 0  */
    GIDD_STOP_SIGNAL,     /* SIGUSR1, SIGUSR2 or SIGTERM              exit 75 */
    GIDD_STOP_TIME,       /* run.max_minutes or run.end_time          exit 75 */
    GIDD_STOP_INTERRUPT,  /* SIGINT                                   exit 79 */
    GIDD_STOP_FILE,       /* run.dir/STOP                             exit 79 */
    GIDD_STOP_DIVERGED,   /* too many steps in a row were left out    exit 65 */
    GIDD_STOP_SPIKE,      /* training.spike_policy=stop               exit 65 */
    GIDD_STOP_ROLLBACK,   /* training.spike_policy=rollback           exit 76 */
    GIDD_STOP_REASONS,
} gidd_stop_reason;

typedef struct gidd_order {
    uint64_t magic;
    int64_t  step;       /* this order is for step `step`, counted from 0 */
    double   lr;         /* learning rate of the step                     */
    double   loss_limit; /* leave the step out if its loss is not at most this; infinite: do not look */
    uint32_t actions;    /* GIDD_ACT_*                                    */
    uint32_t reason;     /* gidd_stop_reason of a STOP                    */
} gidd_order;

/* State of a rank's checkpoint writer. */
typedef enum gidd_writer_state {
    GIDD_WRITER_IDLE = 0,
    GIDD_WRITER_BUSY,
    GIDD_WRITER_DONE, /* written, not committed */
    GIDD_WRITER_FAILED,
    GIDD_WRITER_STATES,
} gidd_writer_state;

/* What a rank says after a step. Sums are over this rank's sequences. */
typedef struct gidd_report {
    uint64_t       magic;
    int64_t        step;
    gidd_loss_sums train;
    gidd_loss_sums eval;       /* zero without GIDD_ACT_EVAL */
    double         grad_norm;  /* of the whole gradient: equal on all ranks */
    int64_t        skipped;    /* 1: the step was left out (non-finite gradient, spike, order) */
    int64_t        skipped_in_row;
    int64_t        head_rows;  /* rows that went through the head, padding included */
    int64_t        step_ns;    /* wall time of the step on this rank */
    int64_t        data_ns;    /* of it: waiting for the batch record */
    int64_t        comm_ns;    /* of it: waiting for the reduction */
    uint32_t       signals;    /* GIDD_SIGNAL_* seen so far */
    uint32_t       writer;     /* gidd_writer_state */
} gidd_report;

/* Whether a message is one of this protocol, for `step`, and within the protocol's bounds: known actions and
 * reason, finite learning rate; known states, no negative count or time. GIDD_ERR_COMM says what is wrong, and,
 * of a report, that it came from `rank`. Numbers that were computed (losses, norms) may be anything. Local. */
gidd_status gidd_order_check(const gidd_order *order, int64_t step);
gidd_status gidd_report_check(const gidd_report *report, int64_t step, int rank);

/* The evaluation over all ranks; positions is 0 where there was none. Local. */
gidd_loss_sums gidd_reports_eval(const gidd_report *reports, int count);

typedef struct gidd_protocol gidd_protocol;

/* Called on the coordinator to make the order for `step`. `reports` [size] in world order (a dedicated
 * coordinator's own entry is zero), of step `report_step`; NULL for the first orders of a life. */
typedef gidd_status (*gidd_protocol_decide)(void *context, const gidd_report *reports, int64_t report_step,
                                            int64_t step, gidd_order *order);

typedef struct gidd_protocol_args {
    gidd_comm           *comm; /* protocol communicator, borrowed */
    int                  coordinator;
    int64_t              first_step;
    gidd_protocol_decide decide; /* used on the coordinator only */
    void                *context;
} gidd_protocol_args;

/* Starts the exchange: the coordinator decides the order for first_step from nothing and broadcasts it.
 * Collective. */
gidd_status gidd_protocol_create(const gidd_protocol_args *args, gidd_protocol **protocol_p);
void        gidd_protocol_destroy(gidd_protocol *protocol);

/* Waits for the order of the next step. GIDD_ERR_COMM: gidd_order_check refuses it. Collective. */
gidd_status gidd_protocol_order(gidd_protocol *protocol, gidd_order *order);

/* Between an order and its report: completes the gather of the previous report and starts the broadcast of
 * the next order. Collective. */
gidd_status gidd_protocol_advance(gidd_protocol *protocol);

/* Posts the report of step report->step: the one whose order was received last, or the one before it (its
 * results are read when the next step has been issued); the same on all ranks. Collective. */
gidd_status gidd_protocol_report(gidd_protocol *protocol, const gidd_report *report);

/* After an order to stop: completes what is in flight; the coordinator gets the last reports through
 * `decide` with order NULL. Collective. */
gidd_status gidd_protocol_drain(gidd_protocol *protocol);

#endif
