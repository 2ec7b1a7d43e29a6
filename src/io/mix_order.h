/* SPDX-License-Identifier: Apache-2.0
 *
 * Which source of a mix a sample is drawn from, for any sample, with no state to save.
 *
 * Samples are numbered 0, 1, ... and lie in blocks of 1024. In every block source k has exactly quota[k] samples, its
 * weight's share rounded by largest remainders, so that the quotas sum to 1024; which ones is a permutation keyed by
 * (seed, block). So the proportions hold exactly after every block and never stray by more than a block's quota, while
 * places within a block are as random as a shuffle makes them (they must be: a regular pattern would fall in step with
 * the times of a batch, which are stratified by place). The samples of one source are numbered in order, without gaps.
 */
#ifndef GIDD_IO_MIX_ORDER_H
#define GIDD_IO_MIX_ORDER_H

#include "base/status.h"

#include <stdint.h>

enum { GIDD_MIX_BLOCK = 1024, GIDD_MIX_SOURCES_MAX = 64 };

typedef struct gidd_mix_order {
    uint64_t seed;
    int64_t count;                            /* of sources */
    int32_t before[GIDD_MIX_SOURCES_MAX + 1]; /* sum of the quotas of the sources before; before[count] = 1024 */
} gidd_mix_order;

/* One block worked out: 1024 steps of the permutation, some 0.1 ms. A place for it, for neighbours to share. */
typedef struct gidd_mix_block {
    int64_t number; /* -1: nothing yet */
    uint8_t source[GIDD_MIX_BLOCK];
    int16_t index[GIDD_MIX_BLOCK]; /* samples of the same source before this one in the block */
} gidd_mix_block;

typedef struct gidd_mix_place {
    int64_t source;
    int64_t index; /* samples of this source before this one */
} gidd_mix_place;

/* Shares the block among `count` sources, 1 .. 64, by weights[count] > 0, relative to their sum. Errors: CONFIG (no
 * or too many sources, a weight that is no positive number, or one whose share is below 1/1024). Local. */
gidd_status gidd_mix_order_init(gidd_mix_order *order, uint64_t seed, const double *weights, int64_t count);

/* Samples of a block that source k has. Local. */
int32_t gidd_mix_order_quota(const gidd_mix_order *order, int64_t k);

/* Where sample `sample` >= 0 comes from. `block` (its number -1 at first) is worked out anew when the sample lies in
 * another. With one source the place is {0, sample} and the block is not touched. Local. */
gidd_mix_place gidd_mix_order_at(const gidd_mix_order *order, int64_t sample, gidd_mix_block *block);

/* The largest n such that samples 0 .. n-1 take at most examples[k] of every source k. Local. */
int64_t gidd_mix_order_fitting(const gidd_mix_order *order, const int64_t *examples);

#endif
