/* SPDX-License-Identifier: Apache-2.0 */
#include "diffusion/posterior.h"

#include <criterion/criterion.h>
#include <math.h>

enum { V = 13, MASK = V - 1 };

static gidd_schedule schedule_of(gidd_process process, double p_uniform)
{
    gidd_schedule s;
    cr_assert(gidd_schedule_init(&s, &(gidd_schedule_args){.process = process,
                                                           .p_uniform = p_uniform,
                                                           .t_eps = 1e-4,
                                                           .max_weight = 2.0,
                                                           .vocab_size = V,
                                                           .mask_id = MASK}) == GIDD_OK);
    return s;
}

// Some distribution over the ids, nothing on the mask.
static void some_xhat(double xhat[V])
{
    double sum = 0.0;
    for (int j = 0; j < V; j++) {
        xhat[j] = j == MASK ? 0.0 : 1.0 + j * j % 7;
        sum += xhat[j];
    }
    for (int j = 0; j < V; j++) {
        xhat[j] /= sum;
    }
}

static double marginal_of(gidd_marginal at, double xhat_j, int j)
{
    return at.alpha * xhat_j + (j == MASK ? at.beta_mask : at.beta_other);
}

// Reverse steps undo forward ones: mixing the posteriors over z ~ q_t gives q_s.
Test(posterior, mixes_to_the_earlier_marginal)
{
    const double p_uniforms[] = {0.0, 0.1, 0.5};
    double xhat[V];
    some_xhat(xhat);
    for (size_t i = 0; i < 3; i++) {
        gidd_schedule s = schedule_of(GIDD_PROCESS_GIDD, p_uniforms[i]);
        gidd_posterior step = gidd_posterior_at(&s, 0.7, 0.6);
        gidd_marginal early = gidd_schedule_marginal(&s, 0.6),
                      late = gidd_schedule_marginal(&s, 0.7);
        double mixed[V] = {0};
        for (int32_t z = 0; z < V; z++) {
            double row[V], sum = 0.0;
            gidd_posterior_row(&step, &s, xhat, V, z, row);
            for (int j = 0; j < V; j++) {
                sum += row[j];
                mixed[j] += row[j] * marginal_of(late, xhat[z], z);
                cr_assert(row[j] >= 0.0);
            }
            cr_assert_float_eq(sum, 1.0, 1e-13, "p_u %g z %d: %.17g", p_uniforms[i], z, sum);
        }
        for (int j = 0; j < V; j++) {
            cr_assert_float_eq(mixed[j], marginal_of(early, xhat[j], j), 1e-14, "id %d", j);
        }
    }
}

Test(posterior, of_a_step_to_the_same_time_keeps_the_token)
{
    gidd_schedule s = schedule_of(GIDD_PROCESS_GIDD, 0.1);
    gidd_posterior step = gidd_posterior_step(&s, 8, 0);
    double xhat[V], row[V];
    some_xhat(xhat);
    cr_assert(step.t == 1e-4 && step.s == step.t);
    gidd_posterior_row(&step, &s, xhat, V, 4, row);
    for (int j = 0; j < V; j++) {
        cr_assert_float_eq(row[j], j == 4 ? 1.0 : 0.0, 1e-12);
    }
}

Test(posterior, steps_down_the_grid)
{
    gidd_schedule s = schedule_of(GIDD_PROCESS_GIDD, 0.1);
    gidd_posterior first = gidd_posterior_step(&s, 8, 7), last = gidd_posterior_step(&s, 8, 1);
    cr_assert_float_eq(first.t, 0.9998 * 7 / 8 + 1e-4, 1e-15); // tau_n is never visited
    cr_assert_float_eq(first.s, 0.9998 * 6 / 8 + 1e-4, 1e-15);
    cr_assert(last.s == 1e-4);
    cr_assert(first.alpha_t == gidd_schedule_marginal(&s, first.t).alpha);
    cr_assert(first.beta_other_s == gidd_schedule_marginal(&s, first.s).beta_other);
    cr_assert(first.move_t == 0.0);
}

Test(posterior, mdlm_unmasks_by_the_ratio_of_moves)
{
    gidd_schedule s = schedule_of(GIDD_PROCESS_MDLM, 0.0);
    gidd_posterior step = gidd_posterior_at(&s, 0.8, 0.2);
    double xhat[V], row[V], sum = 0.0;
    some_xhat(xhat);
    gidd_posterior_row(&step, &s, xhat, V, MASK, row);
    for (int j = 0; j < V; j++) {
        sum += row[j];
    }
    cr_assert_float_eq(row[MASK], 0.25, 1e-15);
    cr_assert_float_eq(row[3], 0.75 * xhat[3], 1e-15);
    cr_assert_float_eq(sum, 1.0, 1e-14);
}

Test(posterior, draw_is_strict_and_ends_in_the_last_column)
{
    const double p[5] = {0.25, 0.0, 0.25, 0.25, 0.125}; // an eighth is missing
    cr_assert_eq(gidd_categorical_draw(p, 5, 0.0), 0);
    cr_assert_eq(gidd_categorical_draw(p, 5, nextafter(0.25, 0.0)), 0);
    cr_assert_eq(gidd_categorical_draw(p, 5, 0.25), 2); // never the empty column
    cr_assert_eq(gidd_categorical_draw(p, 5, 0.5), 3);
    cr_assert_eq(gidd_categorical_draw(p, 5, 0.75), 4);
    cr_assert_eq(gidd_categorical_draw(p, 5, nextafter(1.0, 0.0)), 4);
    cr_assert_eq(gidd_categorical_draw((double[]){0.0, 0.5}, 2, 0.0), 1);
    cr_assert_eq(gidd_categorical_draw((double[]){0.0}, 1, 0.5), 0);
}
