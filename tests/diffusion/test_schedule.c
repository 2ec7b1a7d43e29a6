/* SPDX-License-Identifier: Apache-2.0 */
#include "diffusion/schedule.h"

#include <criterion/criterion.h>
#include <math.h>

static const gidd_schedule_args gpt2 = {
    .p_uniform = 0.1, .t_eps = 1e-4, .max_weight = 2.0, .vocab_size = 50259, .mask_id = 50258};
static const double some_times[] = {1e-4, 1e-3, 0.01, 0.1,   0.25,  0.5,
                                    0.75, 0.9,  0.99, 0.999, 0.9999};

static gidd_schedule schedule_of(gidd_schedule_args args)
{
    gidd_schedule schedule;
    cr_assert(gidd_schedule_init(&schedule, &args) == GIDD_OK);
    return schedule;
}

static gidd_schedule with_p(double p_uniform, int64_t V)
{
    gidd_schedule_args args = gpt2;
    args.p_uniform = p_uniform;
    args.vocab_size = V;
    args.mask_id = (int32_t)V - 1;
    return schedule_of(args);
}

Test(schedule, marginal_sums_to_one)
{
    const double p_uniforms[] = {0.0, 1e-6, 0.1, 0.2, 0.5, 0.9};
    const int64_t vocabularies[] = {2, 97, 501, 50259};
    for (size_t i = 0; i < 6; i++) {
        for (size_t v = 0; v < 4; v++) {
            gidd_schedule s = with_p(p_uniforms[i], vocabularies[v]);
            for (int k = 0; k <= 1000; k++) {
                gidd_marginal at = gidd_schedule_marginal(&s, k / 1000.0);
                double N = (double)(vocabularies[v] - 1);
                double sum = at.alpha + at.beta_mask + N * at.beta_other;
                cr_assert_float_eq(sum, 1.0, 1e-15, "p_u %g V %ld t %d/1000: %.17g", p_uniforms[i],
                                   (long)vocabularies[v], k, sum);
            }
        }
    }
}

Test(schedule, uniform_share_at_one_half_is_p_uniform)
{
    const double p_uniforms[] = {0.05, 0.1, 0.2, 0.5};
    for (size_t i = 0; i < 4; i++) {
        gidd_schedule s = with_p(p_uniforms[i], 50259);
        double share = 50258.0 * gidd_schedule_marginal(&s, 0.5).beta_other;
        cr_assert_float_eq(share, p_uniforms[i], 1e-7, "%.9g", share);
    }
}

Test(schedule, mask_only_keeps_a_trace_of_uniform_noise)
{
    gidd_schedule s = with_p(0.0, 50259);
    cr_assert_float_eq(s.log_B, -19.306852340698242, 1e-14, "%.17g", s.log_B);
    cr_assert_float_eq(s.B, 4.122309160692339e-09, 1e-17, "%.17g", s.B);
    cr_assert(gidd_schedule_marginal(&s, 0.5).beta_other > 0.0);
}

// SPEC sections 4 and 5 once more, written as there and in long double.
typedef struct exact {
    long double alpha, beta_other, beta_mask, w[3], omega[3]; // kept, masked, other
} exact;

static exact exact_coef(const gidd_schedule *s, float time)
{
    long double t = (long double)time, N = (long double)(s->args.vocab_size - 1);
    long double B = (long double)s->B;
    long double c = sqrtl(t) * sqrtl(1 - t) * B, Ct = 1 + c;
    long double dc = 0.5L * (1 - 2 * t) / (t * (1 - t)) * c;
    exact e = {.alpha = (1 - t) / Ct, .beta_other = c / (N * Ct), .beta_mask = t / Ct};
    e.omega[0] = (c + (1 - t) * dc) / N / ((1 - t) * (1 - t + c / N));
    e.omega[1] = 1 / (t * (1 - t));
    e.omega[2] = (c + (1 - t) * dc) / ((1 - t) * c);
    e.w[0] = B / (N + 1) * expl(0.5L / (1 + expl(t)));
    e.w[1] = 2;
    e.w[2] = 1;
    return e;
}

static void assert_rounded(float got, long double want, const char *what, double t)
{
    // Half a unit of float32, and a little for float64's own rounding before it.
    long double bound = fabsl(want) * 0x1p-24L * 1.00001L;
    cr_assert(fabsl((long double)got - want) <= bound, "%s at t = %g: %.9g, exactly %.12Lg", what,
              t, (double)got, want);
}

Test(schedule, coefficients_are_exact_but_for_one_rounding)
{
    const double p_uniforms[] = {0.0, 0.1, 0.2};
    for (size_t i = 0; i < 3; i++) {
        gidd_schedule s = with_p(p_uniforms[i], 50259);
        for (size_t k = 0; k < sizeof some_times / sizeof *some_times; k++) {
            float t = (float)some_times[k];
            exact e = exact_coef(&s, t);
            gidd_seq_coef c;
            gidd_schedule_coef(&s, t, &c);
            cr_assert(c.t == t && c.row_weight == 1.0f);
            assert_rounded(c.alpha, e.alpha, "alpha", some_times[k]);
            assert_rounded(c.beta_other, e.beta_other, "beta_other", some_times[k]);
            assert_rounded(c.beta_mask, e.beta_mask, "beta_mask", some_times[k]);
            assert_rounded(c.omega_keep, e.omega[0], "omega_keep", some_times[k]);
            assert_rounded(c.omega_mask, e.omega[1], "omega_mask", some_times[k]);
            assert_rounded(c.omega_other, e.omega[2], "omega_other", some_times[k]);
            assert_rounded(c.w_keep, e.w[0], "w_keep", some_times[k]);
            assert_rounded(c.w_mask, e.w[1], "w_mask", some_times[k]);
            assert_rounded(c.w_other, e.w[2], "w_other", some_times[k]);
        }
    }
}

Test(schedule, weightings_clip)
{
    gidd_schedule_args args = gpt2;
    gidd_seq_coef c;
    args.max_weight = 1.0; // as version 1.0.0 of the reference had it
    gidd_schedule s = schedule_of(args);
    gidd_schedule_coef(&s, 0.5f, &c);
    cr_assert(c.w_mask == 1.0f && c.w_other == 1.0f && c.omega_mask == 4.0f);

    args.weighting = GIDD_WEIGHTING_CLIP;
    args.min_weight = 0.5;
    args.max_weight = 3.0;
    s = schedule_of(args);
    gidd_schedule_coef(&s, 0.5f, &c);
    cr_assert(c.w_mask == 3.0f && c.w_other == 2.0f && c.w_keep == 0.5f);

    args.weighting = GIDD_WEIGHTING_NONE;
    s = schedule_of(args);
    gidd_schedule_coef(&s, 0.5f, &c);
    cr_assert(c.w_mask == c.omega_mask && c.w_other == c.omega_other && c.w_keep == c.omega_keep);
}

Test(schedule, alpha_ratio_is_the_derivative_of_log_alpha)
{
    gidd_schedule s = with_p(0.2, 97);
    for (size_t k = 2; k < 9; k++) {
        double t = some_times[k], h = 1e-6;
        double slope = (log(gidd_schedule_marginal(&s, t + h).alpha) -
                        log(gidd_schedule_marginal(&s, t - h).alpha)) /
                       (2 * h);
        double ratio = gidd_schedule_alpha_ratio(&s, t);
        cr_assert_float_eq(ratio, slope, 1e-4 * fabs(slope), "t %g: %g against %g", t, ratio,
                           slope);
    }
}

Test(schedule, mdlm_weighs_masked_positions_by_one_over_t)
{
    gidd_schedule_args args = gpt2;
    args.process = GIDD_PROCESS_MDLM;
    args.weighting = GIDD_WEIGHTING_DYNAMIC; // has no effect
    gidd_schedule s = schedule_of(args);
    for (size_t k = 0; k < sizeof some_times / sizeof *some_times; k++) {
        float t = (float)some_times[k];
        gidd_seq_coef c;
        gidd_marginal at = gidd_schedule_marginal(&s, (double)t);
        gidd_schedule_coef(&s, t, &c);
        double tc = fmax((double)t, 1e-4);
        double weight = gidd_mdlm_dsigma((double)t) / expm1(gidd_mdlm_sigma((double)t));
        cr_assert(c.w_mask == (float)(1.0 / tc) && c.omega_mask == c.w_mask);
        cr_assert_float_eq(weight * tc, 1.0, 1e-11, "t %g: %.15g", (double)t, weight * tc);
        cr_assert(c.w_keep == 0.0f && c.w_other == 0.0f && c.omega_keep == 0.0f);
        cr_assert(c.beta_other == 0.0f && at.alpha + at.beta_mask == 1.0);
        cr_assert_float_eq(at.beta_mask, 0.9999 * tc, 1e-16);
    }
}

Test(schedule, grid_goes_from_eps_to_one_minus_eps)
{
    gidd_schedule s = with_p(0.1, 97);
    cr_assert(gidd_schedule_grid(&s, 128, 0) == 1e-4);
    cr_assert_float_eq(gidd_schedule_grid(&s, 128, 64), 0.5, 1e-15);
    cr_assert_float_eq(gidd_schedule_grid(&s, 128, 128), 1.0 - 1e-4, 1e-15);
}

Test(schedule, refuses_arguments_out_of_range)
{
    gidd_schedule_args wrong[] = {gpt2, gpt2, gpt2, gpt2, gpt2, gpt2, gpt2, gpt2};
    wrong[0].p_uniform = 1.0;
    wrong[1].p_uniform = -0.1;
    wrong[2].p_uniform = (double)NAN;
    wrong[3].t_eps = 0.0;
    wrong[4].t_eps = 0.5;
    wrong[5].min_weight = 3.0;
    wrong[6].mask_id = 0;
    wrong[7].vocab_size = 1;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        gidd_schedule s;
        cr_assert(gidd_schedule_init(&s, &wrong[i]) == GIDD_ERR_CONFIG, "case %zu", i);
    }
}
