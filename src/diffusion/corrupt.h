/* SPDX-License-Identifier: Apache-2.0
 *
 * Forward noising: z_t from x by inverse CDF, one uniform u in [0, 1) a token, O(1) a token.
 *
 * GIDD: z is the first id j whose cumulative probability exceeds u (SPEC sections 4 and 8). With
 * ids in order and the mask last the boundaries are, for b = beta_other,
 *
 *     0      x b        (x+1) b + alpha      N b + alpha     1
 *     |-- j = floor(u/b) --|------ x ------|-- j = floor((u-alpha)/b) --|-- mask --|
 *
 * MDLM: z is the mask where u < M(t), else x. Without noise z is x.
 */
#ifndef GIDD_DIFFUSION_CORRUPT_H
#define GIDD_DIFFUSION_CORRUPT_H

#include "base/rng.h"
#include "diffusion/schedule.h"

#include <stdint.h>

/* The boundaries at one time, made once a sequence. */
typedef struct gidd_corruption {
    gidd_process process;
    gidd_marginal at;
    double per_other; /* 1 / beta_other; GIDD only */
    double mask_from; /* GIDD: N beta_other + alpha; MDLM: M(t); no noise: 0 */
    int32_t mask;
} gidd_corruption;

/* Local. */
void gidd_corruption_init(gidd_corruption *corruption, const gidd_schedule *schedule, double t);

/* One token: 0 <= x < V, u in [0, 1). Exact: the boundaries are the float64 values of the
 * expressions above, and u on a boundary belongs to the right of it. Local. */
int32_t gidd_corrupt_token(const gidd_corruption *corruption, int32_t x, double u);

/* z[0..count) from x[0..count) and one uniform a token. Local. */
void gidd_corrupt(const gidd_corruption *corruption, const int32_t *x, const double *u,
                  int64_t count, int32_t *z);

/* The same with the uniforms of (seed, stream, index): tokens 2k and 2k+1 take the two doubles of
 * draw k, so a row's noise depends on nothing but its own number. Local. */
void gidd_corrupt_row(const gidd_corruption *corruption, uint64_t seed, gidd_rng_stream stream,
                      uint64_t index, const int32_t *x, int64_t count, int32_t *z);

#endif
