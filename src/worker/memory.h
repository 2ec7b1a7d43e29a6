/* SPDX-License-Identifier: Apache-2.0
 *
 * What a rank's training wants of its device's memory, line by line: for --dry-run, and when it is not there.
 */
#ifndef GIDD_WORKER_MEMORY_H
#define GIDD_WORKER_MEMORY_H

#include "model/model.h"

enum { GIDD_MEMORY_LINES = 24 };

typedef struct gidd_memory_args {
    const gidd_model_args *model;
    double                 ema_decay; /* of the running average of the parameters; 0: there is none */
} gidd_memory_args;

/* The model's plan, and the moments and the average of the model's slice. The workspace of the kernels, the staged batch
 * records and what the device's libraries take are not in it. Local. */
gidd_status gidd_memory_plan(const gidd_memory_args *args, gidd_plan_line lines[GIDD_MEMORY_LINES], int64_t *count_p);

/* Sequences of the largest micro-batch whose plan has at most `bytes`, whatever the model's max_B says, up to
 * GIDD_MEMORY_MOST_B; 0: not one. Local. */
enum { GIDD_MEMORY_MOST_B = 1 << 20 };
gidd_status gidd_memory_largest(const gidd_memory_args *args, double bytes, int64_t *max_B_p);

/* After GIDD_ERR_NOMEM: the same error, with its text followed by the plan and by what could be asked for instead.
 * Local. */
gidd_status gidd_memory_explain(const gidd_memory_args *args);

#endif
