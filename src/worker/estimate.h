/* SPDX-License-Identifier: Apache-2.0
 *
 * Estimates of the ELBO of a set of sequences, over all ranks, with their errors.
 *
 * The ELBO of a sequence is an integral over t of an expectation over z ~ q_t(z | x). Two estimates of it:
 *
 *   stratified   every sequence gets K draws, at u in each of K equal parts of [0, 1); over all N sequences these are
 *                one grid of N K points, the k-th of sequence i being point k N + pi(i) (diffusion/time.h), shifted
 *                around by an offset that the seed decides. Time is t = (1 - 2e) u^2 + e with weight 2u: the ELBO's
 *                variance grows like t^(-3/2) towards 0 where tokens are replaced, like 1/t where they are masked
 *   one draw     the reference's (SPEC section 11): one time a sequence and one z, as evaluation during training
 *
 * Both are unbiased; the first is to be believed and the second tells what a number of the second kind is worth.
 *
 * Sums go by blocks of GIDD_ESTIMATE_BLOCK sequences, in one order, and blocks are added in order on every rank: the
 * result has the same bits for any number of ranks and any batch, as far as a sequence's logits do.
 */
#ifndef GIDD_WORKER_ESTIMATE_H
#define GIDD_WORKER_ESTIMATE_H

#include "base/rng.h"
#include "comm/comm.h"
#include "diffusion/schedule.h"
#include "model/model.h"

enum { GIDD_ESTIMATE_BLOCK = 8, GIDD_ESTIMATE_BINS = 10 };

/* What noise has made of a token. */
typedef enum gidd_token_class {
    GIDD_TOKEN_MASKED = 0,
    GIDD_TOKEN_REPLACED, /* by another token: uniform noise */
    GIDD_TOKEN_CLEAN,
    GIDD_TOKEN_CLASSES,
} gidd_token_class;

/* Sums over real tokens (attention mask 1) and draws, each with its draw's weight. */
typedef struct gidd_estimate_cell {
    double tokens;
    double elbo; /* omega (KL + IS)                             */
    double nll;  /* -log of the probability of the clean token  */
} gidd_estimate_cell;

/* Sums over sequences i with n_i real tokens: Y_i is the mean over draws of a sequence's summed ELBO. */
typedef struct gidd_estimate_sums {
    double             rows, positions;
    double             y, n, yy, yn, nn;   /* Y_i, n_i and their products                              */
    double             noise;              /* variance of Y_i over its draws, estimated (see .c)       */
    double             single;             /* variance that one draw at a uniform time would have        */
    double             loss;               /* w (KL + IS) of all positions, mean over draws            */
    double             clean_loss;         /* of it at positions with z = x                            */
    double             min_log_px;         /* smallest log-probability of a clean token that was there */
    double             nonfinite;          /* positions whose terms are not finite                     */
    gidd_estimate_cell cells[GIDD_ESTIMATE_BINS][GIDD_TOKEN_CLASSES]; /* by tenths of [0, 1] that t is in */
} gidd_estimate_sums;

/* The sequences. `build` fills rows 0 .. count-1 of `batch`, laid out for `count` rows: clean ids, attention mask,
 * and one draw of noise with its coefficients, as gidd_loader_build_eval does for draw 0. */
typedef struct gidd_estimate_source {
    void   *context;
    int64_t rows;
    gidd_status (*build)(void *context, int64_t first, int64_t count, gidd_batch *batch);
} gidd_estimate_source;

typedef struct gidd_estimate_args {
    gidd_comm            *comm;
    gidd_model           *model;    /* borrowed; its max_B is the batch */
    const gidd_schedule  *schedule; /* borrowed                         */
    gidd_estimate_source  source;
    int64_t               T;
    int64_t               draws; /* K of the stratified estimate, below 2^23; 0: the one draw of the source, with
                                    which .noise stays 0 */
    uint64_t              seed;
    int64_t              *histogram; /* [V] counts of real tokens of this rank's rows, added to; NULL: none */
    void (*progress)(void *context, int64_t done, int64_t count); /* sequences of this rank; may be NULL */
    void *context;
} gidd_estimate_args;

/* Sums of all sequences, the same on all ranks. Collective. */
gidd_status gidd_estimate(const gidd_estimate_args *args, gidd_estimate_sums *sums);

/* Row b of a batch at time t: z from x and the coefficients; the noise is that of (seed, stream, index). Local. */
void gidd_estimate_noise(const gidd_schedule *schedule, uint64_t seed, gidd_rng_stream stream, uint64_t index, float t,
                         gidd_batch *batch, int64_t b);

/* Nats per real token, an upper bound on the negative log-likelihood. Local. */
double gidd_estimate_elbo(const gidd_estimate_sums *sums);

/* Its standard error, the sequences being a sample of all texts: noise and choice of sequences together (ratio
 * estimate; 0 for fewer than two). Local. */
double gidd_estimate_error(const gidd_estimate_sums *sums);

/* The part of it that comes from the draws of noise and time alone, for these very sequences: of the stratified
 * estimate, and what it would be with one draw a sequence. Both come from a stratified estimate's sums. Local. */
double gidd_estimate_noise_error(const gidd_estimate_sums *sums);
double gidd_estimate_single_error(const gidd_estimate_sums *sums);

#endif
