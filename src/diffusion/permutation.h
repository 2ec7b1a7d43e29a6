/* SPDX-License-Identifier: Apache-2.0
 *
 * A keyed shuffle of 0..n-1 that can be asked for any place in O(1) memory: no list, nothing to
 * save, nothing to fast-forward. The order of documents in an epoch is the permutation of (seed,
 * epoch).
 *
 * A balanced Feistel network over the smallest 4^h >= n, walked until it lands below n again (fewer
 * than 4 turns on average); its round functions are Philox under keys drawn from (seed, epoch).
 */
#ifndef GIDD_DIFFUSION_PERMUTATION_H
#define GIDD_DIFFUSION_PERMUTATION_H

#include <stdint.h>

enum { GIDD_PERMUTATION_ROUNDS = 8 };

typedef struct gidd_permutation {
    uint64_t n;
    uint32_t half_bits; /* h */
    uint64_t key[GIDD_PERMUTATION_ROUNDS];
} gidd_permutation;

/* 1 <= n <= 2^62. Local. */
void gidd_permutation_init(gidd_permutation *permutation, uint64_t seed, uint64_t epoch, int64_t n);

/* The element at place i, 0 <= i < n. Local. */
int64_t gidd_permutation_at(const gidd_permutation *permutation, int64_t i);

#endif
