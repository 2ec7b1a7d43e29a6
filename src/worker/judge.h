/* SPDX-License-Identifier: Apache-2.0
 *
 * Generative perplexity: how probable a published GPT-2 finds samples. A model that says little is rewarded by it
 * (a sample of one word repeated is very probable), so the entropy of the samples is always told beside it.
 *
 * A sample is judged as its text: special ids are left out, it ends at the first <|endoftext|> that does not open
 * it, the text is encoded anew (a network's choice of ids need not be the tokenizer's), cut to the judge's
 * positions less one, and put behind one <|endoftext|>, which is context and not scored.
 */
#ifndef GIDD_WORKER_JUDGE_H
#define GIDD_WORKER_JUDGE_H

#include "comm/comm.h"
#include "model/gpt2.h"
#include "tokenizer/bpe.h"

/* Texts as a judge reads them. All arrays are owned. */
typedef struct gidd_judge_texts {
    int64_t   count;
    int64_t  *first; /* [count + 1] of a text in ids                    */
    int32_t  *ids;   /* without the <|endoftext|> in front              */
    int64_t   cut;   /* texts that were longer than the judge's window  */
} gidd_judge_texts;

/* Reads a file of JSON objects, one a line, each with "text" or, where there is none, "ids". Texts are cut to
 * `longest` ids. GIDD_ERR_MISSING, GIDD_ERR_IO; GIDD_ERR_CORRUPT with file and line: no JSON, neither key, ids that
 * the tokenizer does not have, a file without texts. Release in every case. Local. */
gidd_status gidd_judge_texts_read(const char *path, const gidd_bpe *bpe, int64_t longest, gidd_judge_texts *texts);
void        gidd_judge_texts_release(gidd_judge_texts *texts);

/* Opens a judge: a safetensors file with config.json beside it (n_layer, n_head, n_embd, n_positions, vocab_size),
 * tensors named as Hugging Face names GPT-2's, with or without "transformer." in front. `max_B` sequences at once;
 * `device` of fp32, borrowed. *judge_p is destroyed with gidd_gpt2_destroy. GIDD_ERR_MISSING: a file is not there;
 * GIDD_ERR_CORRUPT: a missing, surplus or misshapen tensor, a config.json that is not of such a model, an untied
 * head. Local. */
gidd_status gidd_judge_open(const char *path, gidd_device *device, int64_t max_B, gidd_gpt2 **judge_p,
                            gidd_gpt2_shape *shape);

typedef struct gidd_judgement {
    int64_t samples, empty, cut; /* texts; those without a token; those cut to the window */
    double  tokens, nll;         /* scored tokens; sum over them of -log p, in nats       */
    double  unigram_entropy;     /* nats, of the distribution of tokens over all texts    */
    double  sample_entropy;      /* nats, of a text's own distribution; mean over texts that are not empty */
} gidd_judgement;

typedef struct gidd_judge_args {
    gidd_comm              *comm;
    gidd_gpt2              *judge;
    const gidd_gpt2_shape  *shape;
    const gidd_judge_texts *texts; /* the same on every rank */
    int32_t                 eos;
    int64_t                 max_B;
} gidd_judge_args;

/* All texts, shared among the ranks; the result is the same on all of them, and on any number up to rounding.
 * Collective. */
gidd_status gidd_judge_run(const gidd_judge_args *args, gidd_judgement *judgement);

#endif
