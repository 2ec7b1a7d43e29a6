/* SPDX-License-Identifier: Apache-2.0
 *
 * config.json of a published model: what the reference's DITConfig (a Hugging Face configuration) knows, and an
 * object "gidd" with what it does not. Other keys are ignored, as Hugging Face's own loader does.
 *
 *     {"model_type": "dit", "vocab_size": 50258, "max_seq_len": 512, "hidden_size": 768, "timestep_cond_dim": 128,
 *      "num_hidden_layers": 12, "num_attention_heads": 12, "p_uniform": 0.1, "t_eps": 0.0001,
 *      "gidd": {"base_ids": 50257, "pad": "eos", "process": "gidd", "step": 0, "tokenizer_digest": "..."}}
 */
#ifndef GIDD_IO_DIT_CONFIG_H
#define GIDD_IO_DIT_CONFIG_H

#include "base/status.h"
#include "io/digest.h"

#include <stdint.h>

typedef struct gidd_dit_config {
    int64_t vocab_size; /* rows of embedding and output matrix in the file that belongs to it */
    int64_t max_seq_len, hidden_size, timestep_cond_dim, num_hidden_layers, num_attention_heads;
    double  p_uniform, t_eps;
    /* the object "gidd"; absent: 0 and "" */
    int64_t base_ids; /* of the tokenizer, without PAD and MASK */
    int64_t step;     /* training steps behind it */
    char    pad[8];     /* "own" or "eos": see model.pad */
    char    process[8]; /* "gidd" or "mdlm" */
    char    tokenizer_digest[GIDD_DIGEST_SIZE];
} gidd_dit_config;

/* Reads a file; keys that are absent have DITConfig's defaults. MISSING; CORRUPT: no JSON, another model_type, a
 * value of a wrong type or beyond all reason, named; IO, NOMEM. Local. */
gidd_status gidd_dit_config_read(const char *path, gidd_dit_config *config);

/* Writes a new file that the reference's DITConfig.from_pretrained takes, and syncs it. `dtype` is the word for
 * torch_dtype ("float32", "bfloat16"). OUTPUT, IO, NOMEM. Local. */
gidd_status gidd_dit_config_write(const char *path, const gidd_dit_config *config, const char *dtype);

#endif
