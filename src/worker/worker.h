/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of a rank: join, open data and model, restore, train as ordered, save, leave. The same code serves
 * a worker, a worker that is the coordinator as well, and a dedicated coordinator (which holds no slice and
 * opens no device).
 */
#ifndef GIDD_WORKER_WORKER_H
#define GIDD_WORKER_WORKER_H

#include "base/config.h"
#include "comm/bucket.h"
#include "comm/comm.h"
#include "coordinator/coordinator.h"
#include "io/checkpoint.h"
#include "io/loader.h"
#include "io/lock.h"
#include "io/data_set.h"
#include "model/model.h"
#include "worker/optimizer.h"
#include "worker/reduction.h"
#include "worker/replicate.h"
#include "worker/resolve.h"
#include "worker/step.h"

typedef struct gidd_worker_args {
    const gidd_config *config;       /* borrowed */
    gidd_comm_set     *comms;        /* borrowed; bootstrapped */
    const char        *allow_change; /* comma separated keys that may differ from the checkpoint; or NULL */
    int                steal_lock;
    int64_t            stop_after;    /* leave once so many steps are done, as if the time were up; 0: do not */
    int64_t            give_up_after; /* end then as if killed: without a final checkpoint, but not before one was
                                         committed; exit code 75; 0: do not */
} gidd_worker_args;

/* Runs until the coordinator orders a stop. *exit_code_p is the process's exit code, the same on all ranks,
 * also on failure. A failure inside the step loop that other ranks cannot know of ends the job at once with
 * the exit code of its status. Collective over the world. */
gidd_status gidd_worker_run(const gidd_worker_args *args, int *exit_code_p);

/* Prints the resolved plan of a run: parameters, memory per rank, the largest micro-batches in `memory_gb` times 10^9
 * bytes, FLOPs, steps, checkpoint size. Local. */
gidd_status gidd_worker_dry_run(const gidd_config *config, int ranks, double memory_gb);

/* ---- shared by the files of this room ------------------------------------------------------------ */

typedef struct gidd_worker {
    gidd_worker_args        args;
    const gidd_config      *config;
    gidd_comm              *world;
    int                     has_slice;      /* this rank is a worker */
    int                     is_coordinator;
    gidd_watch             *watch;
    /* data */
    gidd_data_set          *data;
    gidd_vocab              vocab;
    gidd_schedule           schedule;
    gidd_loader            *loader;
    gidd_feed              *feed;
    /* model; device and below only with a slice */
    gidd_params             params;
    gidd_slice              slice;          /* what this rank updates and saves */
    gidd_device            *device;
    gidd_model             *model;
    gidd_optimizer         *optimizer;
    int                     has_own_gpu;    /* no other rank uses its device; cuda */
    gidd_reduction          reduction;
    const char             *reduction_text; /* how gradients are summed */
    gidd_batch              eval_batch;
    int64_t                 micro_batch;
    gidd_segments          *segments;
    gidd_results           *results;
    gidd_step_context       step;
    /* the run */
    gidd_run_lock          *lock;           /* coordinator */
    gidd_coordinator       *coordinator;    /* coordinator */
    gidd_protocol          *protocol;
    gidd_report             report;         /* of the last step, as far as it is known */
    int                     report_is_open; /* ... and not yet sent                    */
    gidd_checkpoint_layout  layout;
    gidd_checkpoint_writer *writer;
    int64_t                 first_step;     /* steps completed at start */
    int64_t                 completed;      /* steps completed          */
    int                     resumed;
    gidd_coordinator_mark   resume_mark;
    char                    left_out[256];  /* how many documents are, as damaged; "": none */
    char                    origin[512];    /* what the parameters started from; "": random, or resumed */
    char                    device_text[256];
    char                   *config_text;    /* owned */
    char                   *gemm_text;      /* owned; coordinator: RUN/gemm.json, NULL without one */
} gidd_worker;

/* join.c: build and configuration are the same everywhere; run directory and lock; data are there. Collective. */
gidd_status gidd_worker_join(gidd_worker *worker);

/* data_check.c: the shards are proven, or known to have been (data.verify); what data.on_bad_chunk leaves out is known.
 * CORRUPT names file, dataset, chunk and documents. Collective. */
gidd_status gidd_worker_check_data(gidd_worker *worker);

/* build.c: parameters' table, schedule and loader on all ranks; device, model, optimizer, buckets where there is
 * a slice. Collective. */
gidd_status gidd_worker_build(gidd_worker *worker);
void        gidd_worker_release(gidd_worker *worker);

/* build.c: the batch records of steps [first_step, end_step), where there is a slice. Local. */
gidd_status gidd_worker_open_feed(gidd_worker *worker, int64_t first_step, int64_t end_step);

/* initialise.c: masters from the model at `path` (worker/model_source.h), checked against the run's configuration
 * and tokenizer; fills worker->origin. On all ranks. CONFIG, CORRUPT, MISSING. Local. */
gidd_status gidd_worker_initialise(gidd_worker *worker, const char *path);

/* state.c: from and to checkpoints. Collective. */
gidd_status gidd_worker_restore(gidd_worker *worker);
/* This rank's part of a section (index into the layout) from whatever `read` reads, flat elements [first,
 * first + count) at a time. Local. */
gidd_status gidd_worker_fill_section(gidd_worker *worker, int section,
                                     gidd_status (*read)(void *context, int64_t first, int64_t count, float *values),
                                     void *context);
gidd_status gidd_worker_checkpoint_begin(gidd_worker *worker);   /* Local: at the same step everywhere */
gidd_status gidd_worker_checkpoint_advance(gidd_worker *worker);
gidd_status gidd_worker_checkpoint_final(gidd_worker *worker);

#endif
