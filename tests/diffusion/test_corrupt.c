/* SPDX-License-Identifier: Apache-2.0 */
#include "diffusion/corrupt.h"

#include "diffusion/chi_square.h"

#include <criterion/criterion.h>
#include <math.h>

static gidd_schedule schedule_of(gidd_process process, double p_uniform, int32_t V)
{
    gidd_schedule s;
    cr_assert(gidd_schedule_init(&s, &(gidd_schedule_args){.process = process,
                                                           .p_uniform = p_uniform,
                                                           .t_eps = 1e-4,
                                                           .max_weight = 2.0,
                                                           .vocab_size = V,
                                                           .mask_id = V - 1}) == GIDD_OK);
    return s;
}

// The right end of id j's interval, as corrupt.h draws it.
static double right_end(const gidd_corruption *c, int32_t x, int32_t j)
{
    double end = (double)(j + 1) * c->at.beta_other;
    return j >= x ? end + c->at.alpha : end;
}

static int32_t scan(const gidd_corruption *c, int32_t x, double u)
{
    int32_t j = 0;
    while (j < c->mask && right_end(c, x, j) <= u) {
        j++;
    }
    return j;
}

Test(corrupt, every_boundary_is_exact)
{
    const double p_uniforms[] = {0.1, 0.2, 0.9}, times[] = {1e-4, 0.1, 0.5, 0.9, 0.9999};
    for (size_t p = 0; p < 3; p++) {
        gidd_schedule s = schedule_of(GIDD_PROCESS_GIDD, p_uniforms[p], 97);
        for (size_t k = 0; k < 5; k++) {
            gidd_corruption c;
            gidd_corruption_init(&c, &s, times[k]);
            for (int32_t x = 0; x < 96; x++) {
                cr_assert_eq(gidd_corrupt_token(&c, x, 0.0), 0);
                cr_assert_eq(gidd_corrupt_token(&c, x, nextafter(1.0, 0.0)), 96);
                for (int32_t j = 0; j < 96; j++) {
                    double end = right_end(&c, x, j);
                    int32_t below = gidd_corrupt_token(&c, x, nextafter(end, 0.0));
                    int32_t at = gidd_corrupt_token(&c, x, end);
                    cr_assert(below == j && at == j + 1, "t %g x %d: %d|%d around the end of %d",
                              times[k], x, below, at, j);
                }
            }
        }
    }
}

Test(corrupt, agrees_with_a_scan_at_full_size)
{
    const double p_uniforms[] = {0.0, 0.1, 0.2};
    for (size_t p = 0; p < 3; p++) {
        gidd_schedule s = schedule_of(GIDD_PROCESS_GIDD, p_uniforms[p], 50259);
        gidd_corruption c;
        gidd_corruption_init(&c, &s, 0.37);
        for (uint64_t i = 0; i < 300; i++) {
            int32_t x = (int32_t)gidd_uniform_below(1, GIDD_STREAM_TOKEN, i, 0, 50258);
            double u = gidd_uniform(1, GIDD_STREAM_NOISE, i, 0, 0);
            if (i % 3 == 0) { // into the uniform part, on either side of x
                u = u * (double)x * c.at.beta_other;
            } else if (i % 3 == 1) {
                u = c.mask_from - u * (double)(50258 - x) * c.at.beta_other;
            }
            int32_t z = gidd_corrupt_token(&c, x, u), want = scan(&c, x, u);
            cr_assert_eq(z, want, "p_u %g x %d u %.17g: %d, not %d", p_uniforms[p], x, u, z, want);
        }
    }
}

Test(corrupt, follows_the_distribution)
{
    enum { V = 11, ROWS = 400, T = 501 };
    gidd_schedule s = schedule_of(GIDD_PROCESS_GIDD, 0.3, V);
    const double times[] = {0.05, 0.5, 0.95};
    for (size_t k = 0; k < 3; k++) {
        for (int32_t x = 0; x < V - 1; x++) {
            int32_t in[T], z[T];
            int64_t seen[V] = {0};
            double expected[V];
            gidd_corruption c;
            gidd_corruption_init(&c, &s, times[k]);
            for (int i = 0; i < T; i++) {
                in[i] = x;
            }
            for (uint64_t row = 0; row < ROWS; row++) {
                gidd_corrupt_row(&c, 3, GIDD_STREAM_NOISE, row * V + (uint64_t)x, in, T, z);
                for (int i = 0; i < T; i++) {
                    seen[z[i]]++;
                }
            }
            for (int j = 0; j < V; j++) {
                double p =
                    j == V - 1 ? c.at.beta_mask : c.at.beta_other + (j == x ? c.at.alpha : 0);
                expected[j] = p * ROWS * T;
            }
            double sigmas = chi_square_sigmas(seen, expected, V, 1);
            cr_assert(sigmas < 4.5, "t %g x %d: %g sigmas", times[k], x, sigmas);
        }
    }
}

/* A million draws of each process, p_u = 0 included: by chance a comparison fails for one seed in 300000. */
Test(corrupt, a_million_draws_follow_the_distribution)
{
    enum { V = 11, X = 4, ROWS = 2000, T = 500 };
    static const struct {
        gidd_process process;
        double p_uniform, t;
    } cases[] = {{GIDD_PROCESS_GIDD, 0.2, 0.3},
                 {GIDD_PROCESS_GIDD, 0.0, 0.7},
                 {GIDD_PROCESS_GIDD, 0.5, 0.98},
                 {GIDD_PROCESS_MDLM, 0.0, 0.4}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const double t = cases[k].t, p = cases[k].p_uniform;
        const double c = sqrt(t * (1 - t)) * 2 * p / (1 - p); // SPEC section 4, written out once more
        const int mdlm = cases[k].process == GIDD_PROCESS_MDLM;
        gidd_schedule s = schedule_of(cases[k].process, p, V);
        gidd_corruption corruption;
        int32_t x[T], z[T];
        int64_t seen[V] = {0};
        double expected[V];
        gidd_corruption_init(&corruption, &s, t);
        for (int i = 0; i < T; i++) {
            x[i] = X;
        }
        for (uint64_t row = 0; row < ROWS; row++) {
            gidd_corrupt_row(&corruption, 40 + k, GIDD_STREAM_NOISE, row, x, T, z);
            for (int i = 0; i < T; i++) {
                seen[z[i]]++;
            }
        }
        for (int j = 0; j < V; j++) {
            double q = j == V - 1 ? t / (1 + c) : (j == X ? (1 - t) / (1 + c) : 0) + c / ((V - 1) * (1 + c));
            if (mdlm) {
                q = j == V - 1 ? (1 - 1e-4) * t : j == X ? 1 - (1 - 1e-4) * t : 0;
            }
            expected[j] = q * ROWS * T;
        }
        double sigmas = chi_square_sigmas(seen, expected, V, 1);
        cr_assert(sigmas < 4.5, "case %zu: %g sigmas", k, sigmas);
    }
}

Test(corrupt, row_takes_two_uniforms_a_draw)
{
    enum { T = 600 + 1 }; // several blocks and an odd end
    static int32_t x[T], z[T], want[T];
    static double u[T];
    gidd_schedule s = schedule_of(GIDD_PROCESS_GIDD, 0.2, 501);
    gidd_corruption c;
    gidd_corruption_init(&c, &s, 0.5);
    for (int i = 0; i < T; i++) {
        x[i] = i % 500;
        u[i] = gidd_uniform(9, GIDD_STREAM_EVAL_NOISE, 77, (uint32_t)(i / 2), i % 2);
    }
    gidd_corrupt(&c, x, u, T, want);
    gidd_corrupt_row(&c, 9, GIDD_STREAM_EVAL_NOISE, 77, x, T, z);
    cr_assert_arr_eq(z, want, sizeof z);
    for (int i = 0; i < T; i++) {
        cr_assert_eq(z[i], scan(&c, x[i], u[i]));
    }
}

Test(corrupt, mdlm_masks_below_the_move_chance)
{
    gidd_schedule s = schedule_of(GIDD_PROCESS_MDLM, 0.0, 97);
    gidd_corruption c;
    gidd_corruption_init(&c, &s, 0.25);
    double move = gidd_mdlm_move(0.25);
    int32_t x[3] = {5, 5, 5}, z[3];
    gidd_corrupt(&c, x, (double[]){0.0, nextafter(move, 0.0), move}, 3, z);
    cr_assert(z[0] == 96 && z[1] == 96 && z[2] == 5);
    cr_assert_eq(gidd_corrupt_token(&c, 5, nextafter(move, 0.0)), 96);
    cr_assert_eq(gidd_corrupt_token(&c, 5, move), 5);
}
