/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the tools that use a trained model get it from: one set of options and one way to open it.
 *
 *     --checkpoint DIR   run directory (its newest checkpoint) or step directory
 *     --ema              the running average of a checkpoint's parameters in place of the parameters themselves
 *     --model PATH       published model: a .safetensors file with config.json beside it, or a folder of both
 *
 * A tool has this argp as a child, with a gidd_model_options as its input; gidd_cli_argp comes with it.
 */
#ifndef GIDD_TOOLS_MODEL_OPTIONS_H
#define GIDD_TOOLS_MODEL_OPTIONS_H

#include "base/cli.h"
#include "comm/comm.h"
#include "worker/inference.h"

typedef struct gidd_model_options {
    gidd_cli    cli;
    gidd_model_weights weights;
    const char *path; /* borrowed from argv; set when parsing has succeeded */
    int         optional; /* set by the program while parsing: no model may be given, path is then NULL */
} gidd_model_options;

extern const struct argp gidd_model_argp;

/* Opens the model for `max_B` sequences at once on this rank's device. Local. */
gidd_status gidd_model_options_open(const gidd_model_options *options, const gidd_comm_set *comms, int64_t max_B,
                                    gidd_inference *inference);

#endif
