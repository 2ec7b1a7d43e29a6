/* SPDX-License-Identifier: Apache-2.0
 *
 * Models out of this program and into it, as the folders that worker/published.h describes.
 *
 *     FOLDER/model.safetensors   tensors under the reference's names, sorted by name, with its buffers
 *            config.json         for its DITConfig
 *            vocab.json merges.txt added_tokens.json special_tokens_map.json tokenizer_config.json
 *
 * Export and import of fp32 are bit-exact inverses: embedding and output matrix keep the number of rows with which
 * they came in.
 */
#ifndef GIDD_WORKER_EXCHANGE_H
#define GIDD_WORKER_EXCHANGE_H

#include "base/cli.h"
#include "comm/comm.h"
#include "io/safetensors.h"
#include "worker/model_source.h"

typedef struct gidd_export_args {
    const char            *model;  /* see gidd_model_source_args.path */
    const char            *folder; /* to be made; must not exist */
    gidd_model_weights     weights;
    gidd_safetensors_dtype dtype;  /* F32 or BF16; buffers stay F32 */
    const gidd_cli        *cli;    /* overrides: data.tokenizer=DIR */
} gidd_export_args;

/* Writes a folder beside its final name and renames it: whole or not there. The tokenizer is that of data.tokenizer,
 * left out with a warning if there is none. OUTPUT: the folder exists or cannot be made; what
 * gidd_model_source_open returns; CORRUPT: the tokenizer is another than the model's. Local. */
gidd_status gidd_export_model(const gidd_export_args *args);

typedef struct gidd_import_args {
    const char     *model;
    const char     *run_dir; /* made if need be; must hold no checkpoint */
    const gidd_cli *cli;     /* --config and overrides: the run's other keys */
    gidd_comm      *comm;    /* all ranks take part */
} gidd_import_args;

/* Makes RUN/checkpoints/step-000000000, with masters and without moments: evaluation and sampling use it like any
 * other, training starts from it at step 0. OUTPUT: the run has a checkpoint, or somebody else's lock. Collective. */
gidd_status gidd_import_model(const gidd_import_args *args);

#endif
