/* SPDX-License-Identifier: Apache-2.0 */
#include "diffusion/permutation.h"

#include "diffusion/chi_square.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

static void assert_bijection(uint64_t seed, uint64_t epoch, int64_t n)
{
    gidd_permutation p;
    char *hit = calloc((size_t)n, 1);
    gidd_permutation_init(&p, seed, epoch, n);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = gidd_permutation_at(&p, i);
        cr_assert(at >= 0 && at < n && !hit[at], "n %ld: place %ld gives %ld", (long)n, (long)i,
                  (long)at);
        hit[at] = 1;
    }
    free(hit);
}

Test(permutation, is_a_bijection)
{
    for (int64_t n = 1; n <= 300; n++) {
        assert_bijection(1, (uint64_t)n, n);
    }
    const int64_t sizes[] = {1023, 1024, 1025, 4095, 4096, 4097, 65536, 65537, 100003};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_bijection(0x123456789abcdefu, 3, sizes[i]);
    }
}

Test(permutation, works_at_the_largest_sizes)
{
    gidd_permutation p;
    int64_t n = (int64_t)1 << 62;
    gidd_permutation_init(&p, 1, 0, n);
    cr_assert(gidd_permutation_at(&p, 0) != gidd_permutation_at(&p, n - 1));
    gidd_permutation_init(&p, 1, 0, n / 4 + 1); // the slowest: three of four values are walked over
    for (int64_t i = 0; i < 1000; i++) {
        int64_t at = gidd_permutation_at(&p, i);
        cr_assert(at >= 0 && at <= n / 4);
    }
}

// Each element is at each place equally often.
Test(permutation, places_are_uniform)
{
    const int64_t sizes[] = {2, 3, 5, 10, 16, 31};
    for (size_t s = 0; s < 6; s++) {
        enum { EPOCHS = 20000 };
        int64_t n = sizes[s], seen[31 * 31] = {0};
        double expected[31 * 31];
        for (uint64_t epoch = 0; epoch < EPOCHS; epoch++) {
            gidd_permutation p;
            gidd_permutation_init(&p, 11, epoch, n);
            for (int64_t i = 0; i < n; i++) {
                seen[i * n + gidd_permutation_at(&p, i)]++;
            }
        }
        for (int64_t i = 0; i < n * n; i++) {
            expected[i] = (double)EPOCHS / (double)n;
        }
        double sigmas = chi_square_sigmas(seen, expected, n * n, 2 * n - 1);
        cr_assert(sigmas < 4.5, "n %ld: %g sigmas", (long)n, sigmas);
    }
}

// All 24 orders of four elements come up equally often.
Test(permutation, orders_are_uniform)
{
    enum { EPOCHS = 48000 };
    int64_t seen[256] = {0}, kinds = 0;
    for (uint64_t epoch = 0; epoch < EPOCHS; epoch++) {
        gidd_permutation p;
        int64_t order = 0;
        gidd_permutation_init(&p, 5, epoch, 4);
        for (int64_t i = 0; i < 4; i++) {
            order = order * 4 + gidd_permutation_at(&p, i);
        }
        seen[order]++;
    }
    double statistic = 0.0;
    for (int64_t i = 0; i < 256; i++) {
        kinds += seen[i] > 0;
        statistic += seen[i] > 0 ? pow((double)seen[i] - 2000.0, 2) / 2000.0 : 0.0;
    }
    cr_assert_eq(kinds, 24);
    cr_assert(statistic < 23.0 + 4.5 * sqrt(46.0), "%g", statistic);
}

// Marks of structure: fixed points, neighbours that stay neighbours, correlation with the place.
Test(permutation, has_no_structure)
{
    enum { EPOCHS = 400, N = 1000 };
    double fixed = 0, neighbours = 0, correlation = 0;
    for (uint64_t epoch = 0; epoch < EPOCHS; epoch++) {
        gidd_permutation p;
        int64_t before = -2;
        gidd_permutation_init(&p, 42, epoch, N);
        for (int64_t i = 0; i < N; i++) {
            int64_t at = gidd_permutation_at(&p, i);
            fixed += at == i;
            neighbours += at == before + 1;
            correlation += ((double)i - (N - 1) / 2.0) * ((double)at - (N - 1) / 2.0);
            before = at;
        }
    }
    double bound = 4.5 / sqrt(EPOCHS); // means of EPOCHS numbers of mean 1 and variance 1
    cr_assert_float_eq(fixed / EPOCHS, 1.0, bound, "%g fixed points", fixed / EPOCHS);
    cr_assert_float_eq(neighbours / EPOCHS, 0.999, bound, "%g neighbours", neighbours / EPOCHS);
    correlation /= EPOCHS * (double)N * ((double)N * N - 1) / 12.0;
    cr_assert_float_eq(correlation, 0.0, 4.5 / sqrt((double)EPOCHS * N), "%g", correlation);
}

Test(permutation, depends_on_seed_and_epoch)
{
    enum { N = 1000 };
    gidd_permutation a, b, c;
    int64_t same_ab = 0, same_ac = 0;
    gidd_permutation_init(&a, 1, 0, N);
    gidd_permutation_init(&b, 1, 1, N);
    gidd_permutation_init(&c, 2, 0, N);
    for (int64_t i = 0; i < N; i++) {
        same_ab += gidd_permutation_at(&a, i) == gidd_permutation_at(&b, i);
        same_ac += gidd_permutation_at(&a, i) == gidd_permutation_at(&c, i);
    }
    cr_assert(same_ab < 8 && same_ac < 8, "%ld %ld", (long)same_ab, (long)same_ac);
}
