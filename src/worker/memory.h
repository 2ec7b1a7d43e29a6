/* SPDX-License-Identifier: Apache-2.0
 *
 * What a rank's training wants of its device's memory, line by line: for --dry-run, and when it is not there.
 */
#ifndef GIDD_WORKER_MEMORY_H
#define GIDD_WORKER_MEMORY_H

#include "model/model.h"

enum { GIDD_MEMORY_LINES = 24 };

/* The model's plan and Adam's moments of args->slice. The workspace of the kernels, the staged batch records and what
 * the device's libraries take are not in it. Local. */
gidd_status gidd_memory_plan(const gidd_model_args *args, gidd_plan_line lines[GIDD_MEMORY_LINES], int64_t *count_p);

/* After GIDD_ERR_NOMEM: the same error, with its text followed by the plan and by what could be asked for instead.
 * Local. */
gidd_status gidd_memory_explain(const gidd_model_args *args);

#endif
