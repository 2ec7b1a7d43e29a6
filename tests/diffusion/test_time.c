/* SPDX-License-Identifier: Apache-2.0 */
#include "diffusion/time.h"

#include <criterion/criterion.h>
#include <math.h>

static int64_t reverse(int64_t i, int bits)
{
    int64_t out = 0;
    for (int b = 0; b < bits; b++) {
        out |= (i >> b & 1) << (bits - 1 - b);
    }
    return out;
}

Test(time, rank_is_that_of_the_bit_reversal)
{
    for (int64_t G = 1; G <= 130; G++) {
        for (int64_t i = 0; i < G; i++) {
            int64_t before = 0;
            for (int64_t j = 0; j < G; j++) {
                before += reverse(j, 8) < reverse(i, 8);
            }
            cr_assert_eq(gidd_time_rank(i, G), before, "G %ld i %ld", (long)G, (long)i);
        }
    }
    for (int64_t i = 0; i < 512; i++) {
        cr_assert_eq(gidd_time_rank(i, 512), reverse(i, 9));
    }
}

// Aligned slices of 2^k rows: one row in each of 2^k equal intervals of the grid.
Test(time, slices_of_a_power_of_two_are_stratified)
{
    const int64_t sizes[] = {8, 64, 512, 1024};
    for (size_t s = 0; s < 4; s++) {
        for (int64_t slice = 1; slice <= sizes[s]; slice *= 2) {
            for (int64_t first = 0; first < sizes[s]; first += slice) {
                char hit[1024] = {0};
                for (int64_t i = first; i < first + slice; i++) {
                    hit[gidd_time_rank(i, sizes[s]) * slice / sizes[s]]++;
                }
                for (int64_t k = 0; k < slice; k++) {
                    cr_assert_eq(hit[k], 1, "G %ld slice %ld+%ld interval %ld", (long)sizes[s],
                                 (long)first, (long)slice, (long)k);
                }
            }
        }
    }
}

// Other G: groups of floor or ceil(G / 2^k) neighbours on the grid, one row of the slice in each.
Test(time, slices_of_other_sizes_are_stratified_too)
{
    const int64_t sizes[] = {6, 12, 48, 100, 384, 999};
    for (size_t s = 0; s < 6; s++) {
        int64_t G = sizes[s];
        for (int64_t slice = 2; slice <= G / 2; slice *= 2) {
            for (int64_t first = 0; first + slice <= G; first += slice) {
                int64_t group_start = 0;
                int bits = 0;
                while ((int64_t)1 << bits < slice) {
                    bits++;
                }
                for (int64_t k = 0; k < slice; k++) {
                    int64_t low = reverse(k, bits);
                    int64_t size = (G - low + slice - 1) / slice; // rows whose low bits are `low`
                    int64_t rank = gidd_time_rank(first + low, G);
                    cr_assert(size == G / slice || size == (G + slice - 1) / slice);
                    cr_assert(rank >= group_start && rank < group_start + size);
                    group_start += size;
                }
                cr_assert_eq(group_start, G);
            }
        }
    }
}

Test(time, grid_wraps_and_stays_inside)
{
    cr_assert(gidd_time_on_grid(0, 4, 0.0, 1e-4) == 1e-4f);
    cr_assert(gidd_time_on_grid(3, 4, 0.25, 1e-4) == 1e-4f);
    cr_assert(gidd_time_on_grid(1, 4, 0.25, 0.0) == 0.5f);
    for (int64_t step = 0; step < 1000; step++) {
        double r = gidd_time_offset(7, step);
        for (int64_t k = 0; k < 8; k++) {
            float t = gidd_time_on_grid(k, 8, r, 1e-4);
            cr_assert(t >= 1e-4f && t <= 0.9999f, "step %ld: %.9g", (long)step, (double)t);
        }
    }
}

Test(time, offsets_depend_on_seed_and_step)
{
    double mean = 0.0;
    for (int64_t step = 0; step < 10000; step++) {
        mean += gidd_time_offset(1, step) / 10000;
    }
    cr_assert_float_eq(mean, 0.5, 4.0 / sqrt(12.0 * 10000), "%g", mean);
    cr_assert(gidd_time_offset(1, 5) != gidd_time_offset(1, 6));
    cr_assert(gidd_time_offset(1, 5) != gidd_time_offset(2, 5));
    cr_assert(gidd_time_offset(1, 5) != gidd_time_eval_offset(1, 5));
}
