/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/eval_judge.h"

#include "worker/judge.h"
#include "worker/resolve.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct judge_files {
    gidd_config      config;
    gidd_device     *device;
    gidd_gpt2       *judge;
    gidd_gpt2_shape  shape;
    gidd_bpe        *bpe;
    gidd_judge_texts texts;
} judge_files;

static gidd_status open_files(judge_files *f, const gidd_eval_judge_options *o, const gidd_cli *cli,
                              const gidd_comm_set *comms)
{
    GIDD_TRY(gidd_cli_load(cli, 0, &f->config));
    f->config.training.precision = GIDD_CONFIG_FP32; // the judge's, whatever the samples' model had
    const char *tokenizer = o->tokenizer != NULL ? o->tokenizer : f->config.data.tokenizer;
    GIDD_TRY(gidd_bpe_load(tokenizer, &f->bpe));
    GIDD_TRY(gidd_resolve_device(&f->config, comms->node_rank, comms->node_size, &f->device));
    GIDD_TRY(gidd_judge_open(o->judge, f->device, o->batch, &f->judge, &f->shape));
    if (gidd_bpe_size(f->bpe) != f->shape.V || gidd_bpe_eos(f->bpe) < 0) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s has %d ids, the judge %s was made for %" PRId64, tokenizer,
                         (int)gidd_bpe_size(f->bpe), o->judge, f->shape.V);
    }
    return gidd_judge_texts_read(o->samples, f->bpe, f->shape.T - 1, &f->texts);
}

static void print_judgement(const gidd_eval_judge_options *o, const gidd_judgement *j)
{
    double nll = j->tokens > 0 ? j->nll / j->tokens : 0;
    if (o->json) {
        printf("{\"judge\":\"%s\",\"samples\":%" PRId64 ",\"tokens\":%.0f,\"generative_nll\":%.9g,\"generative_ppl\":%.9g,"
               "\"unigram_entropy\":%.9g,\"sample_entropy\":%.9g,\"empty\":%" PRId64 ",\"cut\":%" PRId64 "}\n",
               o->judge, j->samples, j->tokens, nll, exp(nll), j->unigram_entropy, j->sample_entropy, j->empty, j->cut);
        return;
    }
    printf("judge             %s\n", o->judge);
    printf("samples           %" PRId64 ": %.0f tokens scored; %" PRId64 " empty, %" PRId64 " cut to the judge's window\n",
           j->samples, j->tokens, j->empty, j->cut);
    printf("generative ppl    %.4f (%.4f nats per token)\n", exp(nll), nll);
    printf("entropy           %.4f nats of single tokens over all samples, %.4f within a sample on average\n",
           j->unigram_entropy, j->sample_entropy);
}

gidd_status gidd_eval_judge(const gidd_eval_judge_options *o, const gidd_cli *cli, gidd_comm_set *comms)
{
    judge_files *f = calloc(1, sizeof *f);
    gidd_status  local = f != NULL ? open_files(f, o, cli, comms) : gidd_fail(GIDD_ERR_NOMEM, "no memory");
    gidd_status  status = gidd_comm_agree(comms->world, local);
    if (status == GIDD_OK && f != NULL) {
        gidd_judgement judgement;
        status = gidd_judge_run(&(gidd_judge_args){.comm = comms->world,
                                                   .judge = f->judge,
                                                   .shape = &f->shape,
                                                   .texts = &f->texts,
                                                   .eos = gidd_bpe_eos(f->bpe),
                                                   .max_B = o->batch},
                                &judgement);
        if (status == GIDD_OK && gidd_comm_rank(comms->world) == 0) {
            print_judgement(o, &judgement);
        }
    }
    if (f != NULL) {
        gidd_judge_texts_release(&f->texts);
        gidd_gpt2_destroy(f->judge);
        gidd_device_close(f->device);
        gidd_bpe_destroy(f->bpe);
    }
    free(f);
    return status;
}
