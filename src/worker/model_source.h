/* SPDX-License-Identifier: Apache-2.0
 *
 * Where trained parameters come from: a checkpoint of this program (a run directory or a step directory) or a
 * published model (worker/published.h). Both answer the same questions: which configuration and vocabulary, which
 * table of tensors, which values. Evaluation, sampling, export, import and model.init_from read models through
 * this and do not care which it is.
 */
#ifndef GIDD_WORKER_MODEL_SOURCE_H
#define GIDD_WORKER_MODEL_SOURCE_H

#include "base/cli.h"
#include "diffusion/vocab.h"
#include "io/checkpoint.h"
#include "worker/published.h"

/* Which of a checkpoint's vectors of parameters. */
typedef enum gidd_model_weights {
    GIDD_MODEL_MASTERS = 0,
    GIDD_MODEL_AVERAGE, /* the running average, of a run with optimizer.ema_decay */
} gidd_model_weights;

typedef struct gidd_model_source_args {
    const char     *path; /* run directory (its newest checkpoint), step directory, model folder or .safetensors */
    gidd_model_weights weights; /* USAGE where there is no average */
    const gidd_cli *cli;  /* overrides; for a published model, which says nothing of data, also a file. Or NULL */
} gidd_model_source_args;

typedef struct gidd_model_source {
    gidd_config      config;   /* the model's, with overrides */
    char             path[1200];
    char             tokenizer_digest[GIDD_DIGEST_SIZE]; /* "": a published model that does not say */
    int64_t          step;     /* training steps behind it; 0: none, or not said */
    int32_t          base_ids; /* ids of the tokenizer */
    gidd_vocab       vocab;
    gidd_params      params;   /* one bucket: memory order is flat order */
    gidd_checkpoint *checkpoint; /* one of the two is open */
    gidd_published   published;
    int              section;    /* of the checkpoint */
} gidd_model_source;

/* Opens and checks everything but the values. Overrides must not change what the model is. MISSING: nothing
 * there; CORRUPT: damaged, or not a model; CONFIG: overrides. Release with gidd_model_source_close, also after a
 * failure. Local. */
gidd_status gidd_model_source_open(gidd_model_source *source, const gidd_model_source_args *args);
void        gidd_model_source_close(gidd_model_source *source); /* Local. */

/* Flat elements [first, first + count) into host memory; damage is CORRUPT, named. Local. */
gidd_status gidd_model_source_read(gidd_model_source *source, int64_t first, int64_t count, float *values);

#endif
