/* SPDX-License-Identifier: Apache-2.0
 *
 * Low-discrepancy times (SPEC section 7): the times of a step are one shifted grid, so that each
 * step sees all noise levels evenly:
 *
 *     t_i = (1 - 2e) frac(pi(i)/G + r) + e,      i = 0..G-1, r uniform in [0, 1), e = t_eps
 *
 * The reference takes pi(i) = i per rank. Here pi(i) is the rank of i's bit reversal among those of
 * 0..G-1 (for G a power of two: the bit reversal itself). Then rows that share their low k bits are
 * neighbours on the grid, so an aligned slice of 2^k rows has exactly one time in each of 2^k
 * intervals of equal width (G not a power of two: of floor or ceil(G/2^k) grid points each).
 * Splitting a step into micro-batches or over ranks therefore leaves each part stratified.
 */
#ifndef GIDD_DIFFUSION_TIME_H
#define GIDD_DIFFUSION_TIME_H

#include <stdint.h>

/* pi(i), 0 <= i < G. O(log G), no table: the j < G that come before i in bit-reversed order agree
 * with i in the low b bits and have a 0 where i has its bit b set; there are ceil((G - i mod 2^b) /
 * 2^(b+1)) of them for each such b. Local. */
int64_t gidd_time_rank(int64_t i, int64_t G);

/* (1 - 2e) frac(k/G + r) + e in float64, rounded once. With k = i it is the reference's time of row
 * i, with k = gidd_time_rank(i, G) ours. Local. */
float gidd_time_on_grid(int64_t k, int64_t G, double r, double t_eps);

/* The offset r of a training step, from (seed, step). Local. */
double gidd_time_offset(uint64_t seed, int64_t step);

/* The offset r of an evaluation draw, from (eval seed, draw). The grid there is over the documents
 * of the validation split: G is their number and i the document's place in it. Local. */
double gidd_time_eval_offset(uint64_t eval_seed, int64_t draw);

#endif
