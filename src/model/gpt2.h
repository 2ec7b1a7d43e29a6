/* SPDX-License-Identifier: Apache-2.0
 *
 * A GPT-2 network, forward only, in fp32: the judge of generative perplexity. It has no kernels of its own; the
 * device's serve, so it runs where models run:
 *
 *   x = wte[id] + wpe[position]
 *   block: x += W_proj attend(W_attn LN(x));  x += W_proj GELU_tanh(W_fc LN(x))     LN with bias, eps 1e-5
 *   logits = LN(x) wte^T                                                               attention is causal
 *
 * Of the kernels of the diffusion network: LN with bias is norm_mod with scale 0, gate 1 and the bias as shift;
 * attention without rotary embedding is attention with angles 0.
 *
 *     gidd_gpt2_create(&args, &gpt2);
 *     for (each of gidd_gpt2_tensors) gidd_gpt2_set(gpt2, tensor, values);
 *     gidd_gpt2_judge(gpt2, ids, lengths, B, T, nll);
 */
#ifndef GIDD_MODEL_GPT2_H
#define GIDD_MODEL_GPT2_H

#include "kernels/kernels.h"

typedef struct gidd_gpt2_shape {
    int64_t D, L, H; /* n_embd, n_layer, n_head: D a multiple of 8, D/H even and at most 128 */
    int64_t T;       /* n_positions */
    int64_t V;       /* vocab_size  */
} gidd_gpt2_shape;

/* A parameter under its Hugging Face name, without "transformer.". The matrices of Conv1D are [in][out] there. */
typedef struct gidd_gpt2_tensor {
    char    name[48];
    int     dims;
    int64_t shape[2]; /* as published; vectors: shape[1] == 1 */
    int64_t at;       /* private: first element in memory     */
    int     turned;   /* private: kept [out][in]              */
} gidd_gpt2_tensor;

typedef struct gidd_gpt2 gidd_gpt2; /* opaque */

typedef struct gidd_gpt2_args {
    gidd_device    *device; /* borrowed; of dtype fp32 */
    gidd_gpt2_shape shape;
    int64_t         max_B, max_T; /* max_T <= shape.T */
} gidd_gpt2_args;

/* All memory; parameters are 0. *gpt2_p is the caller's. GIDD_ERR_CONFIG: an impossible shape, named;
 * GIDD_ERR_ARG: a device of bf16; GIDD_ERR_NOMEM. Local. */
gidd_status gidd_gpt2_create(const gidd_gpt2_args *args, gidd_gpt2 **gpt2_p);
void        gidd_gpt2_destroy(gidd_gpt2 *gpt2); /* NULL-safe. Local. */

/* The table of parameters, borrowed: 4 + 12 L of them. Local. */
const gidd_gpt2_tensor *gidd_gpt2_tensors(const gidd_gpt2 *gpt2, int64_t *count_p);

/* Sets a parameter from its published values [shape[0]][shape[1]]. Local. */
gidd_status gidd_gpt2_set(gidd_gpt2 *gpt2, const gidd_gpt2_tensor *tensor, const float *values);

/* nll[b][p] of ids [B][T] = -log p(ids[b][p+1] | ids[b][0 .. p]) for p + 1 < lengths[b], else 0. Ids behind a length
 * count nowhere, but must be of the vocabulary. B <= max_B, T <= max_T. GIDD_ERR_ARG. Local. */
gidd_status gidd_gpt2_judge(gidd_gpt2 *gpt2, const int32_t *ids, const int64_t *lengths, int64_t B, int64_t T,
                            float *nll);

/* Logits [B*T][V] of the last judgement on the host, for tests. Local. */
gidd_status gidd_gpt2_read_logits(gidd_gpt2 *gpt2, float *logits);

#endif
