/* SPDX-License-Identifier: Apache-2.0
 *
 * Generation (SPEC section 9) and self-correction (section 10) with a trained model, any number of
 * sequences in batches of the model's max_B.
 *
 *     gidd_sampler_create(&args, &sampler);
 *     gidd_sampler_generate(sampler, &(gidd_sample_span){first_sample, count, NULL}, ids, NULL);
 *     gidd_sampler_correct(sampler, &correct, &(gidd_sample_span){...}, ids, results);
 *
 * With an autoregressive model (a schedule without noise) generation is ancestral (ancestral.h): `steps` and
 * `width` mean nothing, a step is a token; self-correction and single steps are refused with GIDD_ERR_USAGE.
 *
 * The uniforms of a sequence are a function of (seed, its global sample number, step, position) alone,
 * so what a sequence becomes depends neither on the batch that it shares nor on the rank that draws it,
 * as far as the matrix products give a row the same bits in every batch.
 */
#ifndef GIDD_MODEL_SAMPLER_H
#define GIDD_MODEL_SAMPLER_H

#include "diffusion/correct.h"
#include "diffusion/schedule.h"
#include "model/model.h"

typedef struct gidd_sampler_args {
    gidd_model          *model;    /* borrowed; of either mode                                        */
    const gidd_schedule *schedule; /* borrowed; its process says which posterior is drawn from        */
    int64_t              T;        /* tokens of a sequence, <= model->max_T                           */
    int64_t              steps;    /* n >= 1 of the time grid, < 2^20                                 */
    int64_t              width;    /* columns of the logits that count; 0: V. Vr reproduces the
                                      reference's MDLM, which may then emit ids >= V                  */
    double               temperature; /* logits are divided by it; 0: 1, as trained                   */
    double               min_p;       /* posterior entries below it are dropped; 0: none              */
    uint64_t             seed;
    /* Called after each step with the sequences of the running batch, `step` of `steps` done (a step that is
     * not computed is not counted); NULL: not. */
    void (*progress)(void *context, int64_t step, int64_t steps, const int32_t *z, int64_t B);
    void *context;
} gidd_sampler_args;

typedef struct gidd_sampler gidd_sampler; /* opaque: nothing but scratch */

/* All memory of the loops. GIDD_ERR_ARG: sizes that the model does not have. Local. */
gidd_status gidd_sampler_create(const gidd_sampler_args *args, gidd_sampler **sampler_p);
void        gidd_sampler_destroy(gidd_sampler *sampler); /* NULL-safe. Local. */

/* Which sequences: numbers first_sample ... + count - 1. `given` [count][T] holds the tokens that
 * stay as they are and -1 where one is to be found (infilling); NULL: none is given. */
typedef struct gidd_sample_span {
    int64_t        first_sample, count;
    const int32_t *given;
} gidd_sample_span;

/* Steps of a generation that are computed: all of them, but for GIDD's last one, which leads from a time
 * to itself and is the identity; T - 1 of an autoregressive model. Local. */
int64_t gidd_sampler_computed_steps(const gidd_sampler *sampler);

/* The sequences of a span into ids [count][T]. `entropy` [count][computed steps], or NULL: in the order of
 * the steps, the mean over the positions that could change of the entropy (nats) of the network's
 * prediction there, at the sampler's temperature; 0 where there are none. Local. */
gidd_status gidd_sampler_generate(gidd_sampler *sampler, const gidd_sample_span *span, int32_t *ids,
                                  double *entropy);

/* One step of the loop, i = steps-1 ... 0, with given uniforms [B][T] (unused in MDLM's step 0, which
 * takes the most probable tokens): z [B][T] is read and written. fixed [B][T]: 1 where the token stays;
 * NULL: nowhere. B <= model->max_B. Local. */
gidd_status gidd_sampler_step(gidd_sampler *sampler, int64_t i, int64_t B, const double *uniforms,
                              const uint8_t *fixed, int32_t *z);

typedef struct gidd_correct_args {
    double  t;               /* conditioning time: 0.01                 */
    double  temperature;     /* of the proposals: 0.1                   */
    int64_t tokens_per_step; /* 1                                       */
    int64_t max_steps;       /* 128; < 2^20                             */
    int64_t max_patience;    /* 32 steps without a new best accuracy    */
} gidd_correct_args;

/* Accuracy: share of positions whose token is the most probable one. */
typedef struct gidd_correct_result {
    double               initial_accuracy; /* of the given sequence                                 */
    double               final_accuracy;   /* of the returned one, by the logits that it was made by */
    int64_t              changed;          /* positions that differ from the given sequence         */
    int64_t              steps;            /* forward passes                                        */
    gidd_correct_verdict verdict;          /* CONVERGED, STALLED, or ADOPT: max_steps are over      */
} gidd_correct_result;

/* Improves ids [count][T] in place; results [count]. What span->given holds must be in ids already, and
 * stays. Every sequence stops by itself, and those that still run share the batch. Local. */
gidd_status gidd_sampler_correct(gidd_sampler *sampler, const gidd_correct_args *args,
                                 const gidd_sample_span *span, int32_t *ids,
                                 gidd_correct_result *results);

#endif
