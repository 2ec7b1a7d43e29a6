/* SPDX-License-Identifier: Apache-2.0
 *
 * The proof that a run resumes bit for bit, on the user's own machines and configuration: six steps
 * in one go; the same six with an end in the middle, as abrupt as one job can have it (no final
 * checkpoint, everything torn down, restored from disk); then both results compared byte by byte.
 *
 *     T/whole      steps 1 ... 6, a checkpoint every 2         T = run.dir.prove-resume-XXXXXX
 *     T/resumed    steps 1 ... 5, given up; again from the last checkpoint to 6
 *
 * Launchers cannot start a job inside a job, so all of it happens in one; a kill from outside is what
 * tests/resilience do. T is removed if the bytes agree, and kept for inspection if not. run.dir
 * itself is not touched.
 */
#ifndef GIDD_WORKER_PROVE_RESUME_H
#define GIDD_WORKER_PROVE_RESUME_H

#include "worker/worker.h"

/* GIDD_OK and exit code 0: bit-exact, said on the coordinator's stdout. GIDD_ERR_CORRUPT (exit code
 * 65): the first difference, as tensor, index and both values, or line of metrics.jsonl. Otherwise
 * what stopped the training. Collective over the world. */
gidd_status gidd_prove_resume(const gidd_worker_args *args, int *exit_code_p);

#endif
