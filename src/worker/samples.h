/* SPDX-License-Identifier: Apache-2.0
 *
 * Samples of a trained model: generated, infilled or read from a file, self-corrected, written; the work spread
 * over all ranks.
 *
 *     gidd_samples_create(num, T, &samples);                 // or gidd_samples_read(path, ...)
 *     gidd_samples_give(&samples, given);                    // infilling: tokens that stay
 *     gidd_samples_run(&args, &samples);                     // Collective
 *     gidd_samples_write_json(stream, bpe, vocab, &samples, i);     // on rank 0
 *
 * What a sample becomes is a function of (model, seed, its number) alone: not of the number of ranks, nor of the
 * batch it was in, as far as the matrix products give a row the same bits in every batch.
 */
#ifndef GIDD_WORKER_SAMPLES_H
#define GIDD_WORKER_SAMPLES_H

#include "comm/comm.h"
#include "diffusion/vocab.h"
#include "model/sampler.h"
#include "tokenizer/bpe.h"

#include <stdio.h>

/* All arrays are owned. After a run they are complete on rank 0; elsewhere only that rank's share is. */
typedef struct gidd_samples {
    int64_t              num, T;
    int64_t              steps;   /* entropies of a sample; 0: it was not generated here              */
    int32_t             *ids;     /* [num][T]                                                         */
    int32_t             *given;   /* [num][T] tokens that stay, -1 elsewhere; NULL: none does         */
    int32_t             *before;  /* [num][T] ids before self-correction; NULL: they were not corrected */
    double              *entropy; /* [num][steps] of the predictions (model/sampler.h), or NULL       */
    gidd_correct_result *results; /* [num] of self-correction, or NULL                                */
} gidd_samples;

/* `num` samples of T tokens, all 0. Release in every case. GIDD_ERR_NOMEM. Local. */
gidd_status gidd_samples_create(int64_t num, int64_t T, gidd_samples *samples);
void        gidd_samples_release(gidd_samples *samples);

/* Every sample keeps given[T] where it is not -1. Local. */
gidd_status gidd_samples_give(gidd_samples *samples, const int32_t *given);

/* What is told after each step of a batch of this rank. */
typedef struct gidd_samples_progress {
    const char    *what;          /* "sampling", "correcting"                          */
    int64_t        sample, count; /* number of the batch's first sample; samples in it */
    int64_t        step, steps;   /* step 1 ... steps                                  */
    int64_t        done, mine;    /* samples of this rank finished before the batch; all of them */
    const int32_t *z;             /* [count][T] as they are now                        */
} gidd_samples_progress;

typedef struct gidd_samples_args {
    gidd_comm               *comm;
    gidd_model              *model;    /* borrowed; its max_B is the batch   */
    const gidd_schedule     *schedule; /* borrowed                           */
    int64_t                  steps;    /* of a generation; 0: ids are there already, on every rank */
    double                   temperature, min_p;
    uint64_t                 seed;
    const gidd_correct_args *correct; /* self-correction afterwards; NULL: none */
    void (*progress)(void *context, const gidd_samples_progress *now); /* may be NULL */
    void *context;
} gidd_samples_args;

/* Generates, unless steps is 0, then self-corrects, if asked to; everything to rank 0. Collective. */
gidd_status gidd_samples_run(const gidd_samples_args *args, gidd_samples *samples);

/* Entropy in nats of the distribution of single tokens in all samples' ids. Local. */
double gidd_samples_unigram_entropy(const gidd_samples *samples, int64_t V);

/* ---- files (samples_file.c) -------------------------------------------------------------------------------- */

/* The text of ids[count], valid UTF-8 (other bytes become U+FFFD) and ending in NUL; *text_p is the caller's to free.
 * GIDD_ERR_CORRUPT: an id beyond the vocabulary. Local. */
gidd_status gidd_samples_render(const gidd_bpe *bpe, const int32_t *ids, int64_t count, gidd_bpe_specials specials,
                                char **text_p);

/* The text of a sample, ids[T]: up to the end-of-text mark that closes it (one at the very start opens it), specials
 * left out; else as gidd_samples_render. Local. */
gidd_status gidd_samples_text(const gidd_bpe *bpe, const gidd_vocab *vocab, const int32_t *ids, int64_t T, char **text_p);

/* Sample i as one line of JSON: sample, ids, text; entropy [steps], given [positions]; before [ids],
 * initial_accuracy, final_accuracy, changed, steps, ended (converged, patience, limit) where there is such. Stream
 * errors are left to the caller's ferror. Local. */
gidd_status gidd_samples_write_json(FILE *stream, const gidd_bpe *bpe, const gidd_vocab *vocab,
                                    const gidd_samples *samples, int64_t i);

/* Reads what gidd_samples_write_json wrote: ids and given; blank lines are skipped. Every sample has T ids below
 * vocab->V. GIDD_ERR_MISSING, GIDD_ERR_CORRUPT with file and line; a file without samples is the latter. Release
 * `samples` in every case. Local. */
gidd_status gidd_samples_read(const char *path, const gidd_vocab *vocab, int64_t T, gidd_samples *samples);

/* How self-correction ended, as a word. Local. */
const char *gidd_samples_ending(const gidd_correct_result *result);

/* ---- what is given (samples_given.c) ----------------------------------------------------------------------- */

/* given[T] from a text with holes: "[MASK]" is one token to be found, "[MASK:12]" twelve; "<|endoftext|>" is that
 * id. Text between them is encoded piece by piece and stays. What follows the template is to be found too, but for
 * one that ends in "<|endoftext|>": then it is padding, as after a short document in training.
 * GIDD_ERR_USAGE: more tokens than T, or a hole of no tokens. Local. */
gidd_status gidd_given_of_text(const gidd_bpe *bpe, const gidd_vocab *vocab, const char *text, int64_t T, int32_t *given);

/* given[T] from a JSON file: a list of {"position": P, "ids": [...]} or {"position": P, "text": "..."}; all other
 * positions are to be found. GIDD_ERR_MISSING; GIDD_ERR_CORRUPT: bad JSON, positions outside the window or given
 * twice, ids that are not of the vocabulary, all with the place. Local. */
gidd_status gidd_given_of_file(const gidd_bpe *bpe, const gidd_vocab *vocab, const char *path, int64_t T, int32_t *given);

#endif
