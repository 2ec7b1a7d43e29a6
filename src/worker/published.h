/* SPDX-License-Identifier: Apache-2.0
 *
 * A published model: a folder of config.json and model.safetensors, as Hugging Face's tools and
 * `gidd-checkpoint export` write it, or a .safetensors file with config.json beside it. Tensor names and shapes
 * are the reference's state dict, which are those of model/params.h.
 *
 *     open      config.json -> configuration and vocabulary; the header of the tensors is checked
 *     check     the tensors are exactly those of the table
 *     read      any range of the flat order as float
 *
 * Two things may differ from the table. The embedding and the output matrix may have V rows instead of Vr: the rows
 * up to Vr are then read as 0 and their output bias as GIDD_PUBLISHED_BIAS, so that no probability falls on them.
 * And buffers that the table does not have (rotary tables, logit_bias) may be there: they must be what the model
 * computes itself. Bad input is GIDD_ERR_CORRUPT, naming file and tensor.
 */
#ifndef GIDD_WORKER_PUBLISHED_H
#define GIDD_WORKER_PUBLISHED_H

#include "base/config.h"
#include "io/digest.h"
#include "io/safetensors.h"
#include "model/params.h"

/* Output bias of ids that do not exist: what the reference puts on the mask's logit. */
#define GIDD_PUBLISHED_BIAS (-1e6F)

typedef struct gidd_published {
    gidd_safetensors *file;     /* owned */
    int64_t           rows;     /* of embedding and output matrix in the file */
    int32_t           base_ids; /* ids of the tokenizer */
    int64_t           step;     /* training steps behind it; 0: not said */
    char              tokenizer_digest[GIDD_DIGEST_SIZE]; /* "": not said */
} gidd_published;

/* Whether the rows of the tensor called `name` are ids. Local. */
int gidd_published_counts_ids(const char *name);

/* 1 if `path` looks like a published model: a regular file, or a folder that is neither a run nor a checkpoint.
 * Local. */
int gidd_published_looks_like(const char *path);

/* Opens; writes model.*, diffusion.process and diffusion.t_eps into `config`, whose other keys stay. MISSING: no
 * such file or folder; CORRUPT: a folder without config.json or model.safetensors, and all that is wrong in them.
 * Release with gidd_published_close, also after a failure. Local. */
gidd_status gidd_published_open(const char *path, gidd_config *config, gidd_published *published);
void        gidd_published_close(gidd_published *published); /* Local. */

/* All tensors of the table are there with their shapes, and besides them only buffers with the right values.
 * Local. */
gidd_status gidd_published_check(const gidd_published *published, const gidd_params *params);

/* Flat elements [first, first + count) of the table that was checked. CORRUPT: a value is not finite. Local. */
gidd_status gidd_published_read(const gidd_published *published, const gidd_params *params, int64_t first,
                                int64_t count, float *values);

#endif
