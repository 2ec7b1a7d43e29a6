/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-eval --judge: generative perplexity of a file of samples.
 */
#ifndef GIDD_TOOLS_EVAL_JUDGE_H
#define GIDD_TOOLS_EVAL_JUDGE_H

#include "base/cli.h"
#include "comm/comm.h"

typedef struct gidd_eval_judge_options {
    const char *judge, *samples; /* safetensors file, JSON lines */
    const char *tokenizer;       /* folder; NULL: data.tokenizer */
    int64_t     batch;
    int         json;
} gidd_eval_judge_options;

/* Judges and prints on rank 0. The configuration gives device and tokenizer. Collective. */
gidd_status gidd_eval_judge(const gidd_eval_judge_options *options, const gidd_cli *cli, gidd_comm_set *comms);

#endif
