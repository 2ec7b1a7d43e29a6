/* SPDX-License-Identifier: Apache-2.0
 *
 * The progress line: step, loss, ELBO and the perplexity bound, learning rate, gradient norm, speed (also as
 * FLOPs: of the model, and executed), time left, share of time spent waiting for data and communication. Redrawn in place on a terminal, a plain
 * line every ten seconds otherwise. Shows recent steps, not averages over the run.
 */
#ifndef GIDD_COORDINATOR_PROGRESS_H
#define GIDD_COORDINATOR_PROGRESS_H

#include "base/config.h"
#include "coordinator/protocol.h"
#include "model/model.h"

typedef struct gidd_progress_args {
    const gidd_config *config; /* borrowed */
    int64_t            first_step, context;
    gidd_model_flops   flops;
} gidd_progress_args;

typedef struct gidd_progress {
    gidd_progress_args args;
    int                terminal;
    int                noised_only; /* the last step left clean rows out                */
    int64_t            drawn_ns;    /* when the line was drawn last                     */
    int64_t            started_ns;  /* when the first step was seen                     */
    int64_t            last_step_ns;
    /* exponential averages over about the last 20 steps */
    double             step_ms, data_ms, comm_ms, loss, elbo, grad_norm, tokens_per_s, slowest_ms;
    double             slowest_rank, executed_flops; /* FLOPs of a step                 */
    double             model_gflops_per_s, executed_gflops_per_s;
    double             valid_elbo;  /* of the last evaluation; 0: none yet              */
    int64_t            seen;
} gidd_progress;

/* Local, all of them. */
void gidd_progress_init(gidd_progress *progress, const gidd_progress_args *args);
void gidd_progress_step(gidd_progress *progress, const gidd_report *reports, int count, const gidd_order *order);
void gidd_progress_eval(gidd_progress *progress, int64_t completed, double elbo);
void gidd_progress_end(gidd_progress *progress);

#endif
