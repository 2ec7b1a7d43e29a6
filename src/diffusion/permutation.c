/* SPDX-License-Identifier: Apache-2.0 */
#include "diffusion/permutation.h"

#include "base/rng.h"

void gidd_permutation_init(gidd_permutation *permutation, uint64_t seed, uint64_t epoch, int64_t n)
{
    *permutation = (gidd_permutation){.n = (uint64_t)n, .half_bits = 1};
    while (((uint64_t)1 << 2 * permutation->half_bits) < (uint64_t)n) {
        permutation->half_bits++;
    }
    for (uint32_t round = 0; round < GIDD_PERMUTATION_ROUNDS; round++) {
        uint32_t word[4];
        gidd_philox(seed, GIDD_STREAM_SHUFFLE, epoch, round, word);
        permutation->key[round] = (uint64_t)word[1] << 32 | word[0];
    }
}

// One pass through the network: a bijection of [0, 4^h).
static uint64_t encipher(const gidd_permutation *permutation, uint64_t value)
{
    uint32_t bits = permutation->half_bits;
    uint64_t half = ((uint64_t)1 << bits) - 1;
    uint64_t left = value >> bits, right = value & half;
    for (int round = 0; round < GIDD_PERMUTATION_ROUNDS; round++) {
        uint32_t word[4];
        gidd_philox(permutation->key[round], GIDD_STREAM_SHUFFLE, right, 0, word);
        uint64_t next = left ^ (word[0] & half);
        left = right;
        right = next;
    }
    return left << bits | right;
}

int64_t gidd_permutation_at(const gidd_permutation *permutation, int64_t i)
{
    uint64_t value = (uint64_t)i;
    do {
        value = encipher(permutation, value);
    } while (value >= permutation->n); // ends: the cycle of i comes back to i < n
    return (int64_t)value;
}
