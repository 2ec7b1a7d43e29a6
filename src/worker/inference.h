/* SPDX-License-Identifier: Apache-2.0
 *
 * A trained model for the tools: the configuration, vocabulary and parameters of a checkpoint or a published
 * model, on a device, without gradients or moments.
 */
#ifndef GIDD_WORKER_INFERENCE_H
#define GIDD_WORKER_INFERENCE_H

#include "base/cli.h"
#include "diffusion/schedule.h"
#include "diffusion/vocab.h"
#include "io/digest.h"
#include "model/model.h"
#include "worker/model_source.h"

typedef struct gidd_inference_args {
    const char     *model; /* see gidd_model_source_args.path */
    gidd_model_weights weights;
    const gidd_cli *cli;   /* overrides of the model's configuration */
    int64_t         max_B; /* sequences at once */
    int             node_rank, node_size; /* place among the ranks of this node: device and threads */
} gidd_inference_args;

typedef struct gidd_inference {
    gidd_config   config; /* the model's, with overrides */
    int64_t       step;   /* steps it was trained for; 0: none, or not said */
    char          path[1200];
    char          tokenizer_digest[GIDD_DIGEST_SIZE]; /* "": not said */
    int32_t       base_ids;
    gidd_vocab    vocab;
    gidd_schedule schedule;
    gidd_params   params;
    gidd_device  *device;
    gidd_model   *model;
} gidd_inference;

/* Opens, reading and verifying the parameters. Overrides must not change the model's shape. Release with
 * gidd_inference_close, also after a failure. Local. */
gidd_status gidd_inference_open(gidd_inference *inference, const gidd_inference_args *args);
void        gidd_inference_close(gidd_inference *inference);

/* GIDD_ERR_CORRUPT unless the model was trained with the tokenizer of this digest and number of ids; where a model
 * does not say its digest, the number must do. `what` has that tokenizer, for the message. Local. */
gidd_status gidd_inference_check_tokenizer(const gidd_inference *inference, const char *what, const char *digest,
                                           int32_t base_ids);

#endif
