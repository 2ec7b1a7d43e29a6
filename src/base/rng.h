/* SPDX-License-Identifier: Apache-2.0
 *
 * Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011). There is no state: a number is a pure function of (seed, stream, index, draw),
 * so nothing about randomness has to be saved, skipped or agreed on.
 *
 *   key     = seed                     (low word, high word)
 *   counter = draw, index low, index high, stream
 *
 * `index` is a global sample number n = step*G + i, an element of a parameter, a document ...;
 * `stream` says what the numbers are for, so that two purposes never share one.
 */
#ifndef GIDD_BASE_RNG_H
#define GIDD_BASE_RNG_H

#include <stdint.h>

typedef enum gidd_rng_stream {
    GIDD_STREAM_PARAM = 1,   /* initial parameters: index = tensor << 40 | block of 4 elements */
    GIDD_STREAM_TIME = 2,    /* the step's offset r of the low-discrepancy times: index = step   */
    GIDD_STREAM_CROP = 3,    /* window start: index = sample                                     */
    GIDD_STREAM_NOISE = 4,   /* z: index = sample, draw = position / 2                           */
    GIDD_STREAM_SHUFFLE = 5, /* keys of the epoch permutation: index = epoch                     */
    GIDD_STREAM_EVAL_TIME = 6,
    GIDD_STREAM_EVAL_CROP = 7,
    GIDD_STREAM_EVAL_NOISE = 8,
    GIDD_STREAM_SAMPLE = 9,  /* generation: index = sample << 20 | step, draw = position / 2     */
    GIDD_STREAM_CORRECT = 10,
    GIDD_STREAM_MIX = 11,
    GIDD_STREAM_TOKEN = 12,  /* random tokens of tests and tools                                 */
    GIDD_STREAM_ESTIMATE = 13, /* noise of an ELBO estimate: index = stratum << 40 | row            */
} gidd_rng_stream;

/* Four 32-bit words for one counter. */
static inline void gidd_philox(uint64_t seed, gidd_rng_stream stream, uint64_t index, uint32_t draw,
                               uint32_t out[4])
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c0 = draw, c1 = (uint32_t)index, c2 = (uint32_t)(index >> 32), c3 = (uint32_t)stream;
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* Two words to a double in [0, 1) on the grid of 2^-53. */
static inline double gidd_uniform53(uint32_t low, uint32_t high)
{
    uint64_t bits = ((uint64_t)high << 32 | low) >> 11;
    return (double)bits * 0x1p-53;
}

/* The `which`-th (0 or 1) double in [0, 1) of a counter. */
static inline double gidd_uniform(uint64_t seed, gidd_rng_stream stream, uint64_t index, uint32_t draw,
                                  int which)
{
    uint32_t word[4];
    gidd_philox(seed, stream, index, draw, word);
    return which == 0 ? gidd_uniform53(word[0], word[1]) : gidd_uniform53(word[2], word[3]);
}

__extension__ typedef unsigned __int128 gidd_uint128;

/* An integer in [0, bound), bound >= 1, from 64 random bits: high half of the 128-bit product. Its
 * bias, bound / 2^64, is below anything that could be seen. */
static inline uint64_t gidd_uniform_below(uint64_t seed, gidd_rng_stream stream, uint64_t index,
                                          uint32_t draw, uint64_t bound)
{
    uint32_t word[4];
    gidd_philox(seed, stream, index, draw, word);
    uint64_t bits = (uint64_t)word[1] << 32 | word[0];
    return (uint64_t)((gidd_uint128)bits * bound >> 64);
}

#endif
