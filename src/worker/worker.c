/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/worker.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "coordinator/signals.h"
#include "worker/evaluate.h"
#include "worker/replicas.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static gidd_status start_watch(gidd_worker *worker)
{
    const gidd_config *config = worker->config;
    return gidd_watch_create(&(gidd_watch_args){.limit_s = {[GIDD_WATCH_STARTUP] = config->run.startup_limit_s,
                                                            [GIDD_WATCH_STEP] = config->run.step_limit_s,
                                                            [GIDD_WATCH_EVAL] = config->run.eval_limit_s,
                                                            [GIDD_WATCH_CHECKPOINT] = config->run.checkpoint_limit_s,
                                                            [GIDD_WATCH_DATA] = HUGE_VAL},
                                                .expire = gidd_comm_abort,
                                                .collectives = gidd_comm_collectives},
                             &worker->watch);
}

// The validation loss while training: the first eval.documents examples of the split.
static gidd_status evaluate(gidd_worker *worker, gidd_report *report)
{
    int64_t examples = gidd_loader_valid_examples(worker->loader);
    if (examples > worker->config->eval.documents) {
        examples = worker->config->eval.documents;
    }
    gidd_watch_point(worker->watch, GIDD_WATCH_EVAL, worker->completed, "evaluation");
    gidd_fault_point("eval");
    return gidd_evaluate(&(gidd_evaluate_args){.model = worker->model,
                                               .loader = worker->loader,
                                               .batch = &worker->eval_batch,
                                               .examples = examples,
                                               .draws = worker->config->eval.draws,
                                               .rank = gidd_comm_rank(worker->args.comms->workers),
                                               .ranks = gidd_comm_size(worker->args.comms->workers)},
                         &report->eval);
}

static uint32_t writer_state(const gidd_worker *worker)
{
    static const uint32_t states[] = {
        [GIDD_CHECKPOINT_IDLE] = GIDD_WRITER_IDLE,
        [GIDD_CHECKPOINT_WRITING] = GIDD_WRITER_BUSY,
        [GIDD_CHECKPOINT_DONE] = GIDD_WRITER_DONE,
        [GIDD_CHECKPOINT_FAILED] = GIDD_WRITER_FAILED,
    };
    return states[gidd_checkpoint_writer_state(worker->writer)];
}

// The last step's report, once the work of another step was issued behind it, or nothing will be.
static gidd_status send_report(gidd_worker *worker)
{
    if (!worker->report_is_open) {
        return GIDD_OK;
    }
    if (worker->has_slice) {
        GIDD_TRY(gidd_step_report(&worker->step, &worker->report));
    }
    worker->report_is_open = 0;
    worker->report.signals = gidd_signals_seen();
    worker->report.writer = writer_state(worker);
    gidd_fault_point("report");
    return gidd_protocol_report(worker->protocol, &worker->report);
}

static gidd_status midway(void *context)
{
    gidd_worker *worker = context;
    GIDD_TRY(send_report(worker));
    return gidd_protocol_advance(worker->protocol);
}

// One order that is not a stop: the step, then what comes after it. Its report is sent in the next step.
static gidd_status follow_order(gidd_worker *worker, const gidd_order *order)
{
    GIDD_TRY(worker->has_slice ? gidd_step_run(&worker->step, order) : midway(worker));
    worker->completed = order->step + 1;
    if (worker->is_coordinator && order->step == worker->first_step) {
        gidd_log(GIDD_LOG_INFO, "run", "first step done %.2f s after the start of the program", gidd_clock_seconds());
    }
    worker->report_is_open = 1;
    memset(&worker->report, 0, sizeof worker->report);
    worker->report.step = order->step;
    int64_t check_every = worker->config->comm.check_replicas_every;
    if (check_every > 0 && worker->completed % check_every == 0 && worker->has_slice) {
        gidd_watch_point(worker->watch, GIDD_WATCH_STEP, order->step, "comparison of weights");
        GIDD_TRY(gidd_replicas_check(worker->args.comms->workers, worker->model, worker->completed));
    }
    if ((order->actions & GIDD_ACT_EVAL) && worker->has_slice) {
        GIDD_TRY(evaluate(worker, &worker->report));
    }
    if (order->actions & GIDD_ACT_CHECKPOINT) {
        gidd_watch_point(worker->watch, GIDD_WATCH_CHECKPOINT, worker->completed, "checkpoint");
        gidd_fault_point("save");
        // a failure is the writer's state: all ranks give up together at the next stage and train on
        gidd_status begun = gidd_worker_checkpoint_begin(worker);
        if (begun != GIDD_OK) {
            gidd_log_last_error();
        }
    }
    return GIDD_OK;
}

static gidd_status train(gidd_worker *worker, gidd_stop_reason *reason_p)
{
    for (;;) {
        gidd_order order;
        gidd_watch_point(worker->watch, GIDD_WATCH_STEP, worker->completed, "order");
        GIDD_TRY(gidd_protocol_order(worker->protocol, &order));
        gidd_log_set_step(order.step);
        gidd_fault_set_step(order.step);
        gidd_fault_point("order");
        if (order.actions & GIDD_ACT_COMMIT) {
            GIDD_TRY(gidd_worker_checkpoint_advance(worker));
        }
        if (order.actions & GIDD_ACT_STOP) {
            *reason_p = (gidd_stop_reason)order.reason;
            return send_report(worker);
        }
        GIDD_TRY(follow_order(worker, &order));
        if (worker->completed == worker->args.stop_after || worker->completed == worker->args.give_up_after) {
            *reason_p = worker->completed == worker->args.stop_after ? GIDD_STOP_TIME : GIDD_STOP_NONE;
            return GIDD_OK;
        }
    }
}

static gidd_status open_coordinator(gidd_worker *worker)
{
    int64_t seen = (int64_t)gidd_signals_seen();
    GIDD_TRY(gidd_comm_allreduce_int64(worker->world, &seen, 1, GIDD_COMM_MAX));
    gidd_status local = GIDD_OK;
    if (worker->is_coordinator) {
        local = gidd_coordinator_open(
            &(gidd_coordinator_args){.journal = {.config = worker->config,
                                                 .first_step = worker->first_step,
                                                 .context = worker->config->model.context,
                                                 .flops = gidd_model_flops_of(&worker->params.shape,
                                                                              worker->config->model.context,
                                                                              gidd_resolve_recompute(worker->config))},
                                     .resume = worker->resumed ? &worker->resume_mark : NULL,
                                     .ranks = gidd_comm_size(worker->world),
                                     .signals = (uint32_t)seen},
            &worker->coordinator);
        if (local == GIDD_OK) {
            local = gidd_journal_event(gidd_coordinator_journal(worker->coordinator), worker->first_step,
                                       worker->resumed ? "resume" : "start", worker->device_text);
        }
        if (local == GIDD_OK && worker->left_out[0] != '\0') {
            local = gidd_journal_event(gidd_coordinator_journal(worker->coordinator), worker->first_step, "bad_chunks",
                                       worker->left_out);
        }
        if (local == GIDD_OK && worker->origin[0] != '\0') {
            local = gidd_journal_event(gidd_coordinator_journal(worker->coordinator), worker->first_step, "init",
                                       worker->origin);
        }
    }
    return gidd_comm_agree(worker->world, local);
}

static gidd_status open_loop(gidd_worker *worker)
{
    gidd_status local = GIDD_OK;
    if (worker->has_slice) {
        local = gidd_worker_open_feed(worker, worker->first_step, worker->config->training.steps);
    }
    GIDD_TRY(gidd_comm_agree(worker->world, local));
    GIDD_TRY(open_coordinator(worker));
    GIDD_TRY(gidd_protocol_create(&(gidd_protocol_args){.comm = worker->args.comms->protocol,
                                                        .coordinator = worker->args.comms->coordinator,
                                                        .first_step = worker->first_step,
                                                        .decide = gidd_coordinator_decide,
                                                        .context = worker->coordinator},
                                  &worker->protocol));
    worker->step.midway = midway;
    worker->step.context = worker;
    worker->step.watch = worker->watch;
    worker->completed = worker->first_step;
    return GIDD_OK;
}

// After the order to stop: the last reports, then everything that was done becomes a checkpoint.
static gidd_status leave(gidd_worker *worker, gidd_stop_reason reason)
{
    gidd_watch_point(worker->watch, GIDD_WATCH_CHECKPOINT, worker->completed, "leaving");
    GIDD_TRY(gidd_comm_agree(worker->world, gidd_protocol_drain(worker->protocol)));
    if (gidd_stop_saves(reason)) {
        GIDD_TRY(gidd_worker_checkpoint_final(worker));
    }
    gidd_status local = GIDD_OK;
    if (worker->is_coordinator) {
        local = gidd_journal_event(gidd_coordinator_journal(worker->coordinator), worker->completed, "stop",
                                   gidd_stop_text(reason));
        gidd_status closed = gidd_coordinator_close(worker->coordinator);
        worker->coordinator = NULL;
        local = local == GIDD_OK ? closed : local;
    }
    GIDD_TRY(gidd_comm_agree(worker->world, local));
    if (worker->is_coordinator) {
        gidd_log(GIDD_LOG_INFO, "run", "stopped after step %" PRId64 ": %s (exit %d)", worker->completed,
                 gidd_stop_text(reason), gidd_stop_exit_code(reason));
    }
    return GIDD_OK;
}

// As if killed, but for one thing: there has to be a checkpoint to come back to.
static gidd_status give_up(gidd_worker *worker)
{
    GIDD_TRY(gidd_comm_agree(worker->world, gidd_protocol_drain(worker->protocol)));
    while (gidd_checkpoint_committed_step(worker->writer) < 0 &&
           gidd_checkpoint_writer_state(worker->writer) != GIDD_CHECKPOINT_IDLE) {
        GIDD_TRY(gidd_worker_checkpoint_advance(worker));
    }
    return GIDD_OK;
}

static gidd_status run_loop(gidd_worker *worker, int *exit_code_p)
{
    gidd_stop_reason reason = GIDD_STOP_NONE;
    GIDD_TRY(open_loop(worker));
    gidd_status trained = train(worker, &reason);
    if (trained != GIDD_OK) {
        // the others wait in some collective and cannot be asked: the job ends here, with a documented code
        gidd_log_last_error();
        gidd_comm_abort(gidd_status_exit_code(trained));
    }
    if (reason == GIDD_STOP_NONE) {
        *exit_code_p = GIDD_EXIT_RERUN;
        return give_up(worker);
    }
    GIDD_TRY(leave(worker, reason));
    *exit_code_p = gidd_stop_exit_code(reason);
    if (reason == GIDD_STOP_DIVERGED) {
        return gidd_fail(GIDD_ERR_DIVERGED, "more than %" PRId64 " steps in a row were left out (non-finite gradient, or a "
                         "spike); the last checkpoint stands", worker->config->training.max_skipped_steps);
    }
    if (reason == GIDD_STOP_SPIKE) {
        return gidd_fail(GIDD_ERR_DIVERGED, "the loss is a spike (training.spike_policy=stop); journal.jsonl names step and "
                         "samples; the last checkpoint stands");
    }
    return GIDD_OK;
}

static gidd_status live(gidd_worker *worker, int *exit_code_p)
{
    GIDD_TRY(gidd_worker_join(worker));
    GIDD_TRY(gidd_worker_build(worker));
    GIDD_TRY(gidd_worker_restore(worker));
    if (worker->first_step >= worker->config->training.steps) {
        gidd_log(GIDD_LOG_INFO, "run", "%s is finished: %" PRId64 " steps; nothing to do", worker->config->run.dir,
                 worker->first_step);
        *exit_code_p = GIDD_EXIT_FINISHED;
        return GIDD_OK;
    }
    return run_loop(worker, exit_code_p);
}

gidd_status gidd_worker_run(const gidd_worker_args *args, int *exit_code_p)
{
    gidd_worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the worker");
    }
    worker->args = *args;
    worker->config = args->config;
    worker->world = args->comms->world;
    worker->has_slice = args->comms->workers != NULL;
    worker->is_coordinator = args->comms->is_coordinator;
    gidd_log_set_level((gidd_log_level)args->config->log.level);
    gidd_signals_install();
    gidd_status status = gidd_fault_init(gidd_comm_rank(worker->world));
    if (status == GIDD_OK) {
        status = start_watch(worker);
    }
    status = gidd_comm_agree(worker->world, status);
    if (status == GIDD_OK) {
        status = live(worker, exit_code_p);
    }
    gidd_error story = *gidd_error_last();
    gidd_worker_release(worker);
    free(worker);
    if (status != GIDD_OK) {
        gidd_error_restore(&story);
        *exit_code_p = gidd_status_exit_code(status);
    }
    return status;
}
