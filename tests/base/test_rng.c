/* SPDX-License-Identifier: Apache-2.0
 *
 * Philox 4x32-10 against the published known answers (kat_vectors of Random123), and the ranges of what is made
 * from its words.
 */
#include "base/rng.h"

#include <criterion/criterion.h>

static void expect_words(uint64_t seed, uint32_t stream, uint64_t index, uint32_t draw, const uint32_t want[4])
{
    uint32_t word[4];
    gidd_philox(seed, (gidd_rng_stream)stream, index, draw, word);
    for (int i = 0; i < 4; i++) {
        cr_expect(word[i] == want[i], "word %d: %08x instead of %08x", i, word[i], want[i]);
    }
}

// Counter words 0..3 are draw, index low, index high, stream; key words 0..1 are the halves of the seed.
Test(rng, known_answers)
{
    expect_words(0, 0, 0, 0, (const uint32_t[]){0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
    expect_words(0xffffffffffffffffu, 0xffffffffu, 0xffffffffffffffffu, 0xffffffffu,
                 (const uint32_t[]){0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
    expect_words(0x299f31d0a4093822u, 0x03707344u, 0x13198a2e85a308d3u, 0x243f6a88u,
                 (const uint32_t[]){0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u});
}

Test(rng, uniform_covers_zero_to_one)
{
    cr_expect(gidd_uniform53(0, 0) == 0.0);
    cr_expect(gidd_uniform53(0xffffffffu, 0xffffffffu) == 1.0 - 0x1p-53);
    cr_expect(gidd_uniform53(0, 0x80000000u) == 0.5);
}

// The mean of n uniforms has standard deviation 1 / sqrt(12 n): five of them are the tolerance.
Test(rng, uniform_mean)
{
    enum { COUNT = 20000 };
    double sum = 0;
    for (uint64_t index = 0; index < COUNT; index++) {
        sum += gidd_uniform(7, GIDD_STREAM_NOISE, index, 0, (int)(index % 2));
    }
    cr_expect(sum / COUNT > 0.5 - 0.0102 && sum / COUNT < 0.5 + 0.0102, "mean %g", sum / COUNT);
}

Test(rng, below_bound)
{
    int64_t seen[7] = {0};
    for (uint64_t index = 0; index < 7000; index++) {
        uint64_t value = gidd_uniform_below(1, GIDD_STREAM_CROP, index, 0, 7);
        cr_assert(value < 7);
        seen[value]++;
    }
    for (int i = 0; i < 7; i++) { // 1000 expected, standard deviation 29
        cr_expect(seen[i] > 850 && seen[i] < 1150, "value %d seen %lld times", i, (long long)seen[i]);
    }
    cr_expect(gidd_uniform_below(1, GIDD_STREAM_CROP, 3, 0, 1) == 0);
}

// Streams, draws, indices and seeds must not share numbers.
Test(rng, coordinates_are_separate)
{
    uint32_t base[4], other[4];
    gidd_philox(1, GIDD_STREAM_NOISE, 5, 2, base);
    gidd_philox(2, GIDD_STREAM_NOISE, 5, 2, other);
    cr_expect(base[0] != other[0]);
    gidd_philox(1, GIDD_STREAM_CROP, 5, 2, other);
    cr_expect(base[0] != other[0]);
    gidd_philox(1, GIDD_STREAM_NOISE, 5ull << 32, 2, other);
    cr_expect(base[0] != other[0]);
    gidd_philox(1, GIDD_STREAM_NOISE, 5, 3, other);
    cr_expect(base[0] != other[0]);
}
